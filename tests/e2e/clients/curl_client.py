"""curl, as a shell script would use it; its exit code is what it raises."""

import asyncio
import json
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scenarios import HELLO, TEXTS, WEATHER, Found, Scenario, identity, play

CHAT = "/chat/completions"
MESSAGES = [{"role": "user", "content": HELLO}]
COMMAND = ["curl", "--silent", "--no-buffer", "--fail-with-body", "--noproxy", "*"]


class Failed(Exception):
    """curl's exit code, or what is wrong with a stream that came to its end."""

    def __init__(self, code: int | str, answer: "Answer") -> None:
        super().__init__(code)
        self.code = code
        self.answer = answer


class Answer:
    """The head and the body that curl wrote down; of several tries the last."""

    def __init__(self, folder: Path) -> None:
        head, body = (folder / "head"), (folder / "body")
        first, *lines = head.read_bytes().decode().strip().split("\r\n\r\n")[-1].split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        self.status = int(first.split()[1]) if first else None
        self.headers = {name.lower(): value for name, _, value in pairs}
        self.body = body.read_text() if body.exists() else ""

    def error(self) -> dict[str, Any]:
        """The error object of a plain answer; empty without one."""
        try:
            found: dict[str, Any] = json.loads(self.body).get("error", {})
        except ValueError:
            return {}
        return found

    def events(self) -> list[str]:
        """The data of a stream's events."""
        return [line[6:] for line in self.body.splitlines() if line.startswith("data: ")]


class Caller:
    """Calls of one service."""

    def __init__(self, given: Mapping[str, Any], leaving: asyncio.Event) -> None:
        self._url = given["base_url"]
        self._token = given["token"]
        self._models = given["models"]
        self._leaving = leaving

    async def get(self, path: str) -> Any:
        """What stands there."""
        return json.loads((await self._call(path)).body)

    async def post(self, path: str, scenario: str, *arguments: str, token: str = "", **fields: Any) -> Answer:
        """The answer to a call of the scenario's model.

        Raises:
            Failed: curl says so.
        """
        return await self._call(path, *self._body(scenario, fields), *arguments, token=token)

    async def ask(self, scenario: str, *arguments: str, **fields: Any) -> Answer:
        """A chat completion."""
        return await self.post(CHAT, scenario, *arguments, messages=MESSAGES, **fields)

    async def leave(self, scenario: str, **fields: Any) -> None:
        """Begin a chat completion, and interrupt curl."""
        process = await self._start(CHAT, *self._body(scenario, {"messages": MESSAGES, **fields}))
        await self._leaving.wait()
        process.terminate()
        await process.wait()

    async def listed(self, found: Found) -> None:
        found["models"] = [model["id"] for model in (await self.get("/models"))["data"]]
        found["text"] = (await self.get(f"/models/{self._models['listed']}"))["id"]

    async def whole(self, found: Found, scenario: str, *arguments: str, **more: Any) -> None:
        answer = await self.ask(scenario, *arguments, **more)
        found["identity"] = identity(answer.headers)
        body = json.loads(answer.body)
        (choice,) = body["choices"]
        found["text"], found["finish"] = choice["message"]["content"], choice["finish_reason"]
        found["total_tokens"] = body.get("usage", {}).get("total_tokens")
        found["tool_calls"] = [called(each["function"]) for each in choice["message"].get("tool_calls", [])]

    async def structured(self, found: Found) -> None:
        schema = {"name": "city", "strict": True, "schema": {"type": "object"}}
        said: Found = {}
        await self.whole(said, "structured", response_format={"type": "json_schema", "json_schema": schema})
        found["object"] = json.loads(said["text"])

    async def streamed(self, found: Found, scenario: str, **fields: Any) -> None:
        answer = await self.ask(scenario, stream=True, **fields)
        *events, last = answer.events()
        found.update(identity=identity(answer.headers), text="", chunks=0)
        finish, calls = None, [dict[str, str]()]
        for event in map(json.loads, events):
            found["total_tokens"] = (event.get("usage") or {}).get("total_tokens")
            for choice in event["choices"]:
                found["text"] += (text := choice["delta"].get("content") or "")
                found["chunks"] += bool(text)
                finish = choice["finish_reason"]
                for piece in choice["delta"].get("tool_calls", []):
                    join(calls[piece["index"]], piece["function"])
        if last != "[DONE]":
            raise Failed("not the end", answer)
        found.update(finish=finish, tool_calls=[called(call) for call in calls if call])

    async def embedded(self, found: Found) -> None:
        answer = await self.post("/embeddings", "embedded", input=TEXTS)
        found["vectors"] = [each["embedding"] for each in json.loads(answer.body)["data"]]

    async def responded(self, found: Found) -> None:
        body = json.loads((await self.post("/responses", "responded", input=HELLO)).body)
        found["text"] = body["output"][0]["content"][0]["text"]
        found["total_tokens"] = body["usage"]["total_tokens"]

    async def respond(self, found: Found, scenario: str) -> None:
        answer = await self.post("/responses", scenario, input=HELLO, stream=True)
        events = [json.loads(event) for event in answer.events()]
        pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        found.update(text="".join(pieces), chunks=len(pieces))
        if events[-1]["type"] != "response.completed":
            raise Failed("not the end", answer)
        response = events[-1]["response"]
        found.update(finish=response["status"], total_tokens=response["usage"]["total_tokens"])

    def _body(self, scenario: str, fields: Mapping[str, Any]) -> list[str]:
        return ["--json", json.dumps({"model": self._models[scenario], **fields})]

    async def _call(self, path: str, *arguments: str, token: str = "") -> Answer:
        with TemporaryDirectory() as folder:
            written = ["--dump-header", f"{folder}/head", "--output", f"{folder}/body"]
            process = await self._start(path, *written, *arguments, token=token)
            code = await process.wait()
            answer = Answer(Path(folder))
        if code:
            raise Failed(code, answer)
        return answer

    async def _start(self, path: str, *arguments: str, token: str = "") -> Process:
        command = [*COMMAND, "--oauth2-bearer", token or self._token, *arguments, self._url + path]
        return await asyncio.create_subprocess_exec(*command, stdout=DEVNULL)


def describe(error: Exception) -> Found:
    if not isinstance(error, Failed):
        return {"class": repr(error)}
    answer = error.answer
    return {
        "class": error.code,
        "status": answer.status,
        "code": answer.error().get("code"),
        "retry_after": answer.headers.get("retry-after"),
    }


def scenarios(given: Mapping[str, Any], leaving: asyncio.Event) -> Mapping[str, Scenario]:
    caller = Caller(given, leaving)
    whole, streamed = caller.whole, caller.streamed
    tools = [{"type": "function", "function": WEATHER}]
    retrying = ["--retry", "2"]
    return {
        "listed": caller.listed,
        "whole": lambda found: whole(found, "whole"),
        "streamed": lambda found: streamed(found, "streamed", stream_options={"include_usage": True}),
        "tool_call": lambda found: whole(found, "tool_call", tools=tools),
        "tool_call_streamed": lambda found: streamed(found, "tool_call_streamed", tools=tools),
        "structured": caller.structured,
        "stranger": lambda found: whole(found, "stranger", token="mlk_unknown"),
        "missing": lambda found: whole(found, "missing"),
        "refused": lambda found: whole(found, "refused", *retrying),
        "busy": lambda found: whole(found, "busy"),
        "recovers": lambda found: whole(found, "recovers", *retrying),
        "halved": lambda found: whole(found, "halved"),
        "cut": lambda found: streamed(found, "cut"),
        "unfinished": lambda found: streamed(found, "unfinished"),
        "failed_midway": lambda found: streamed(found, "failed_midway"),
        "embedded": caller.embedded,
        "responded": caller.responded,
        "responded_streamed": lambda found: caller.respond(found, "responded_streamed"),
        "responded_cut": lambda found: caller.respond(found, "responded_cut"),
        "left_streaming": lambda _: caller.leave("left_streaming", stream=True),
        "left_waiting": lambda _: caller.leave("left_waiting"),
    }


def join(call: dict[str, str], piece: Mapping[str, str]) -> None:
    """Append a piece of a tool call to what came of it before."""
    call.update({name: call.get(name, "") + text for name, text in piece.items()})


def called(function: Mapping[str, str]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": json.loads(function["arguments"])}


asyncio.run(play(scenarios, describe))
