"""LangChain's ChatOpenAI and OpenAIEmbeddings, on the official SDK for Python."""

import asyncio
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from scenarios import HELLO, TEXTS, WEATHER, Found, Scenario, identity, play


class City(BaseModel):
    city: str
    inhabitants: int


def describe(error: Exception) -> Found:
    response = getattr(error, "response", None)
    of_sdk = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("openai")]
    return {
        "class": of_sdk[0] if of_sdk else repr(error),
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "retry_after": response.headers.get("retry-after") if response is not None else None,
    }


def scenarios(given: Mapping[str, Any], leaving: asyncio.Event) -> Mapping[str, Scenario]:
    def chat(scenario: str, **options: Any) -> ChatOpenAI:
        told = {"base_url": given["base_url"], "api_key": given["token"], "include_response_headers": True}
        return ChatOpenAI(model=given["models"][scenario], **{**told, "max_retries": 0, **options})

    async def whole(found: Found, asked: Any) -> None:
        answer = await asked.ainvoke(HELLO)
        found["identity"] = identity(answer.response_metadata["headers"])
        tell(found, answer)

    async def streamed(found: Found, asked: Any) -> None:
        answer: AIMessageChunk | None = None
        found.update(text="", chunks=0)
        async for chunk in asked.astream(HELLO):
            found["text"] += chunk.text
            found["chunks"] += bool(chunk.text)
            answer = chunk if answer is None else answer + chunk
        assert answer is not None
        found["identity"] = identity(answer.response_metadata["headers"])
        tell(found, answer)

    async def structured(found: Found) -> None:
        asked = chat("structured").with_structured_output(City, method="json_schema")
        found["object"] = dict(await asked.ainvoke(HELLO))

    async def embedded(found: Found) -> None:
        asked = OpenAIEmbeddings(
            model=given["models"]["embedded"],
            base_url=given["base_url"],
            api_key=given["token"],
            max_retries=0,
            check_embedding_ctx_length=False,  # else it would fetch a tokenizer, and send tokens
        )
        found["vectors"] = await asked.aembed_documents(TEXTS)

    async def leave_streaming(_: Found) -> None:
        stream = chat("left_streaming").astream(HELLO)
        await anext(stream)
        await stream.aclose()

    async def leave_waiting(_: Found) -> None:
        call = asyncio.create_task(chat("left_waiting").ainvoke(HELLO))
        await leaving.wait()
        call.cancel()
        await asyncio.wait([call])

    responses = {"use_responses_api": True, "output_version": "responses/v1"}
    tools = [{"type": "function", "function": WEATHER}]
    return {
        "whole": lambda found: whole(found, chat("whole")),
        "streamed": lambda found: streamed(found, chat("streamed", stream_usage=True)),
        "tool_call": lambda found: whole(found, chat("tool_call").bind_tools(tools)),
        "tool_call_streamed": lambda found: streamed(found, chat("tool_call_streamed").bind_tools(tools)),
        "structured": structured,
        "stranger": lambda found: whole(found, chat("stranger", api_key="mlk_unknown")),
        "missing": lambda found: whole(found, chat("missing")),
        "refused": lambda found: whole(found, chat("refused", max_retries=2)),
        "provider_auth": lambda found: whole(found, chat("provider_auth", max_retries=2)),
        "busy": lambda found: whole(found, chat("busy")),
        "recovers": lambda found: whole(found, chat("recovers", max_retries=2)),
        "halved": lambda found: whole(found, chat("halved")),
        "cut": lambda found: streamed(found, chat("cut")),
        "unfinished": lambda found: streamed(found, chat("unfinished")),
        "failed_midway": lambda found: streamed(found, chat("failed_midway")),
        "embedded": embedded,
        "responded": lambda found: whole(found, chat("responded", **responses)),
        "responded_streamed": lambda found: streamed(found, chat("responded_streamed", **responses)),
        "responded_cut": lambda found: streamed(found, chat("responded_cut", **responses)),
        "left_streaming": leave_streaming,
        "left_waiting": leave_waiting,
    }


def tell(found: Found, answer: Any) -> None:
    found["text"] = answer.text
    found["finish"] = answer.response_metadata.get("finish_reason")
    found["total_tokens"] = (answer.usage_metadata or {}).get("total_tokens")
    found["tool_calls"] = [{"name": call["name"], "arguments": call["args"]} for call in answer.tool_calls]


asyncio.run(play(scenarios, describe))
