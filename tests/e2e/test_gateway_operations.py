"""Embeddings and responses through the gateway; what they share with chats is told in test_gateway_app."""

import asyncio
import json
from collections.abc import Sequence
from threading import Event
from typing import Any, Final

import httpx2
import openai
import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel
from served_gateway import EVENTS, JSON, KEY, ServedGateway, error_of, events_of, post
from upstream import (
    CutMidStream,
    EndWithoutDone,
    ErrorFrame,
    Hang,
    Raw,
    Reply,
    ScriptedUpstream,
    Status,
    Stream,
    wait_until,
)

from application.ports import Operation, Tokens
from domain.configuration import ModelConfig
from web.demo.answers import ResponseAnswer

TERMINAL: Final = {"response.completed", "response.incomplete", "response.failed", "error"}


@pytest.fixture
def up(gateway: ServedGateway) -> ScriptedUpstream:
    return gateway.up


@pytest.fixture
def sdk(gateway_sdk: AsyncOpenAI) -> AsyncOpenAI:
    return gateway_sdk


@pytest.fixture
def http(gateway_http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return gateway_http


async def embed(http: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    return await http.post("/embeddings", json={"model": "gpt-4", "input": "hello", **fields})


async def respond(http: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    return await http.post("/responses", json={"model": "gpt-4", "input": "hello", **fields})


class TestEmbeddings:
    @pytest.mark.parametrize("kind", ["config", "v1", "compatible"])
    @pytest.mark.parametrize("encoding", ["float", "base64"])
    async def test_the_sdk_gets_its_vectors_from_every_kind_of_provider(
        self, gateway: ServedGateway, sdk: AsyncOpenAI, kind: str, encoding: Any
    ) -> None:
        await gateway.serve({"gpt-4": getattr(gateway, kind)})
        vector = [0.25, -0.5, 0.75, 1.0]
        packed = "AACAPgAAAL8AAEA/AACAPw=="
        data = [{"object": "embedding", "index": 0, "embedding": packed if encoding == "base64" else vector}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = {"object": "list", "data": data, "model": "m", "usage": usage}
        gateway.up.script(Raw(200, JSON, json.dumps(body).encode()))
        # Left out, the SDK asks for base64 and unpacks it.
        asked = {} if encoding == "base64" else {"encoding_format": encoding}
        answer = await sdk.embeddings.create(model="gpt-4", input="hello", **asked)
        assert answer.data[0].embedding == vector
        (request,) = gateway.up.requests
        assert (request.deployment, request.key, request.operation) == ("prod", KEY, "embeddings")
        assert request.fields["model"] == "prod"

    async def test_the_answer_passes_byte_for_byte_and_names_its_version(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        body = b'{ "data" : [{"embedding":[1e-9,-0.10]}],"x_vendor":{"b":1.50} }'
        up.script(Raw(200, {"content-type": "application/json; charset=utf-8"}, body))
        sent = b'{"model":"gpt-4","input":[[1, 2],[3]],"dimensions" : 4,"x":1.50,"temperature":2}'
        answer = await post(http, sent, "/embeddings")
        assert answer.content == body
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["x-model-ledger-model"] == "gpt-4"
        assert answer.headers["x-model-ledger-attempts"] == "1"
        assert "x-model-ledger-adjusted" not in answer.headers
        kept = sent.replace(b'"gpt-4"', b'"prod"').replace(b'"dimensions" : 4', b'"dimensions":4')
        assert up.requests[0].body == kept

    @pytest.mark.parametrize(
        ("body", "param", "code"),
        [
            (b'{"input":"x"}', "model", "missing_required_parameter"),
            (b'{"model":"gpt-4"}', "input", "missing_required_parameter"),
            (b'{"model":1,"input":"x"}', "model", "invalid_type"),
            (b'{"model":"a","input":"x","model":"gpt-4"}', "model", "doubled_key"),
            (b"[]", None, "invalid_json"),
        ],
    )
    async def test_it_asks_for_a_model_and_an_input(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, body: bytes, param: str | None, code: str
    ) -> None:
        answer = await post(http, body, "/embeddings")
        error = error_of(answer)
        assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
        assert up.requests == []

    async def test_its_time_follows_from_the_prompt_alone(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        # With a token for each of max_tokens it would be longer by 40 s.
        await gateway.serve(base_timeout=0.2, max_timeout=60, token_factor=0.01)
        gateway.up.script(Hang())
        async with asyncio.timeout(5):
            answer = await embed(http)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "provider_timeout")

    async def test_what_was_used_is_recorded(self, gateway: ServedGateway, http: httpx2.AsyncClient) -> None:
        gateway.up.script(Reply("hello"))
        await embed(http, stream=True)
        (record,) = await gateway.recorded()
        assert (record.operation, record.stream, record.tokens) == ("embeddings", False, Tokens(1, 0))


class TestResponses:
    @pytest.mark.parametrize("kind", ["config", "v1", "compatible"])
    async def test_the_sdk_gets_a_whole_response_from_every_kind_of_provider(
        self, gateway: ServedGateway, sdk: AsyncOpenAI, kind: str
    ) -> None:
        await gateway.serve({"gpt-4": getattr(gateway, kind)})
        gateway.up.script(Reply("hello to you"))
        answer = await sdk.responses.create(model="gpt-4", input="hello")
        assert (answer.status, answer.output_text) == ("completed", "hello to you")
        (request,) = gateway.up.requests
        assert (request.deployment, request.key) == ("prod", KEY)
        assert request.path == ("/openai/responses" if kind == "config" else "/openai/v1/responses")

    async def test_the_sdk_gets_a_stream(self, compatible: ServedGateway, sdk: AsyncOpenAI) -> None:
        compatible.up.script(Stream(["hello ", "to ", "you"]))
        events = await raw_events(sdk)
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
            "hello to you"
        )
        assert events[-1].type == "response.completed"

    async def test_the_sdks_helper_puts_the_response_together(
        self, compatible: ServedGateway, sdk: AsyncOpenAI
    ) -> None:
        compatible.up.script(Stream(["hello ", "to ", "you"]))
        async with sdk.responses.stream(model="gpt-4", input="hello") as stream:
            final = await stream.get_final_response()
        assert final.output_text == "hello to you"

    async def test_a_stored_prompt_needs_no_input(
        self, compatible: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        answer = await http.post("/responses", json={"model": "gpt-4", "prompt": {"id": "pmpt_1"}})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("body", "param", "code"),
        [
            (b'{"input":"x"}', "model", "missing_required_parameter"),
            (b'{"model":"gpt-4","input":"x","stream":"yes"}', "stream", "invalid_type"),
            (b'{"model":"a","input":"x","model":"gpt-4"}', "model", "doubled_key"),
            (b"{", None, "invalid_json"),
        ],
    )
    async def test_it_asks_for_a_model(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, body: bytes, param: str | None, code: str
    ) -> None:
        answer = await post(http, body, "/responses")
        error = error_of(answer)
        assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
        assert up.requests == []

    async def test_the_configurations_rule_is_applied_and_told(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        config = replace(gateway.compatible, supports_temperature=False)
        await gateway.serve({"gpt-4": config})
        messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}]
        answer = await respond(http, input=messages, max_output_tokens=9000, temperature=1, top_p=1)
        told = "input=developer, max_output_tokens=4096, temperature=dropped, top_p=dropped"
        assert answer.headers["x-model-ledger-adjusted"] == told
        assert gateway.up.requests[0].fields == {
            "model": "prod",
            "input": [{**message, "role": "developer"} for message in messages],
            "max_output_tokens": 4096,
        }

    async def test_what_was_used_is_recorded_whole_and_streamed(
        self, compatible: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        compatible.up.script(Reply("a b c"), Reply("a b c"))
        await respond(http)
        await respond(http, stream=True)
        records = await compatible.recorded(2)
        assert [(record.operation, record.stream) for record in records] == [
            ("responses", False),
            ("responses", True),
        ]
        assert {record.tokens for record in records} == {Tokens(1, 3)}


class TestTheEndsOfAStreamOfEvents:
    @pytest.mark.parametrize("step", [CutMidStream(), EndWithoutDone(), EndWithoutDone(0)])
    async def test_one_that_stops_short_ends_with_an_error_that_the_sdk_raises(
        self,
        compatible: ServedGateway,
        sdk: AsyncOpenAI,
        http: httpx2.AsyncClient,
        step: CutMidStream | EndWithoutDone,
    ) -> None:
        compatible.up.script(step, step, step)
        with pytest.raises(openai.APIError) as failure:
            await raw_events(sdk)
        assert failure.value.code == "provider_broken"
        async with sdk.responses.stream(model="gpt-4", input="hello") as stream:
            with pytest.raises(openai.APIError):
                await stream.get_final_response()
        answer = await respond(http, stream=True)
        *events, last = events_of(answer)
        assert len(events) == 4 + step.after
        assert not TERMINAL & {event["type"] for event in events}
        assert (last["type"], last["code"], last["param"]) == ("error", "provider_broken", None)
        assert last["sequence_number"] == len(events)
        assert answer.text.endswith(f"event: error\ndata: {json.dumps(last, separators=(',', ':'))}\n\n")
        assert [(record.status, record.error) for record in await compatible.recorded(3)] == [
            (502, "broken")
        ] * 3

    async def test_an_error_that_the_provider_tells_itself_stays_the_last_word(
        self, compatible: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        compatible.up.script(ErrorFrame(2))
        *_, delta, last = events_of(await respond(http, stream=True))
        assert delta["type"] == "response.output_text.delta"
        assert (last["type"], last["message"]) == ("error", "The server had an error.")
        (record,) = await compatible.recorded()
        assert (record.status, record.error) == (502, "failed")

    @pytest.mark.parametrize(
        ("last", "outcome"),
        [
            ("response.completed", (200, None)),
            ("response.incomplete", (200, None)),
            ("response.failed", (502, "failed")),
        ],
    )
    @pytest.mark.parametrize(
        "spelling",
        [
            b'event: %b\ndata: {"type":"%b","response":{}}\n\n',
            b'data: {"response":{"x":[{"type":"nested"}]},"type" : "%b"}\n\n',
            b'event:%b\r\ndata:{"type":"%b","x":"\\"type\\":\\"text\\""}\r\n\r\n',
            b'data: {"type":"%b"}\n\ndata: [DONE]\n\n',
            b': well\n\ndata: {"type":"%b"}\n\n: bye\n\n',
        ],
    )
    async def test_each_terminal_event_is_an_end_however_it_is_spelled(
        self,
        compatible: ServedGateway,
        http: httpx2.AsyncClient,
        last: str,
        outcome: tuple[int, str | None],
        spelling: bytes,
    ) -> None:
        body = spelling.replace(b"%b", last.encode())
        compatible.up.script(Raw(200, EVENTS, body))
        assert (await respond(http, stream=True)).content == body
        (record,) = await compatible.recorded()
        assert (record.status, record.error) == outcome

    @pytest.mark.parametrize(
        "body",
        [
            b'data: {"type":"response.output_text.delta","delta":"\\"type\\":\\"response.completed\\""}\n\n',
            b'data: {"type":"response.created","metadata":{"type":"response.completed"}}\n\n',
            b"event: response.completed\n\n",
            b'data: {"type":"response.completed"}\n\ndata: {"type":"response.in_progress"}\n\n',
            b'data: {"type":"response.compl',
            b"",
            b"data: " + b"[" * 100_000 + b"\n\n",
        ],
    )
    async def test_what_only_looks_like_an_end_is_none(
        self, compatible: ServedGateway, http: httpx2.AsyncClient, body: bytes
    ) -> None:
        compatible.up.script(Raw(200, EVENTS, body))
        answer = await respond(http, stream=True)
        assert answer.text.rstrip().rpartition("\n")[2].startswith('data: {"type":"error"')

    async def test_a_last_event_of_megabytes_is_read_whole(
        self, compatible: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        # As an image in it makes them.
        response = {
            "output": [{"result": "x" * 3_000_000}],
            "usage": {"input_tokens": 7, "output_tokens": 8},
        }
        events = [{"type": "response.created"}, {"response": response, "type": "response.completed"}]
        body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
        compatible.up.script(Raw(200, EVENTS, body))
        assert (await respond(http, stream=True)).content == body
        (record,) = await compatible.recorded()
        assert (record.status, record.tokens) == (200, Tokens(7, 8))

    async def test_a_stream_that_outlasts_its_timeout_ends_with_an_error(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve({"gpt-4": replace(gateway.compatible, base_timeout=0.3, max_timeout=0.3)})
        gateway.up.script(Stream(["slow"] * 1_000, delay=0.05))
        answer = await respond(http, stream=True)
        assert events_of(answer)[-1]["error"]["code"] == "provider_timeout"
        await wait_until(lambda: gateway.up.aborted == 1, within=1)


ITEMS: Final[list[dict[str, Any]]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "first"}, {"type": "summary_text", "text": "second"}],
        "encrypted_content": "sealed",
    },
    {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [
            {
                "type": "output_text",
                "text": "hello\nto you \u00e9",
                "annotations": [
                    {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
                ],
                "logprobs": [{"token": "hello", "logprob": -0.5, "bytes": [104], "top_logprobs": []}],
            },
            {"type": "refusal", "refusal": "no more"},
        ],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city":"Bern"}',
        "status": "completed",
    },
    {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_2", "name": "sql", "input": "SELECT 1"},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"},
    {"type": "x_unheard_of", "id": "x_1", "content": "text", "x": 1.5},
]


def whole_response(**changes: Any) -> dict[str, Any]:
    plain = json.loads(ResponseAnswer(["hello"]).whole())
    return {**plain, "id": "resp_1", "output": ITEMS, "x_unknown": 1.5, **changes}


class TestAModelThatCannotStream:
    @pytest.fixture(autouse=True)
    async def cannot_stream(self, gateway: ServedGateway) -> None:
        await gateway.serve({"gpt-4": replace(gateway.compatible, supports_streaming=False)})

    @pytest.mark.parametrize("indent", [None, 2])
    async def test_it_says_it_all_in_one_stream_of_which_a_program_makes_the_same(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, indent: int | None
    ) -> None:
        said = whole_response()
        up.script(Raw(200, JSON, json.dumps(said, indent=indent).encode()))
        answer = await respond(http, stream=True, stream_options={})
        events = events_of(answer)
        names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line[:1] == "e"]
        assert [event["type"] for event in events] == names
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        begun = {**said, "status": "in_progress", "output": [], "usage": None}
        assert events[0] == {"type": "response.created", "sequence_number": 0, "response": begun}
        assert events[-1]["response"] == said
        assert put_together(events) == ITEMS
        assert {"stream", "stream_options"}.isdisjoint(up.requests[0].fields)

    async def test_the_sdk_reads_that_stream_by_itself_and_by_its_helper(
        self, up: ScriptedUpstream, sdk: AsyncOpenAI
    ) -> None:
        said = whole_response(output=ITEMS[:-1])
        up.script(*[Raw(200, JSON, json.dumps(said).encode())] * 2)
        events = await raw_events(sdk)
        async with sdk.responses.stream(model="gpt-4", input="hello") as stream:
            seen = [event async for event in stream]
            final = await stream.get_final_response()
        assert [event.type for event in seen] == [event.type for event in events]
        assert final.output_text == "hello\nto you \u00e9"
        assert [item.type for item in final.output] == [item["type"] for item in ITEMS[:-1]]

    async def test_the_sdks_helper_parses_a_structured_answer(
        self, up: ScriptedUpstream, sdk: AsyncOpenAI
    ) -> None:
        class Weather(BaseModel):
            city: str
            degrees: float

        text = {**ITEMS[1]["content"][0], "text": '{"city":"Bern","degrees":21.5}'}
        up.script(
            Raw(200, JSON, json.dumps(whole_response(output=[{**ITEMS[1], "content": [text]}])).encode())
        )
        async with sdk.responses.stream(model="gpt-4", input="hello", text_format=Weather) as stream:
            final = await stream.get_final_response()
        assert final.output_parsed == Weather(city="Bern", degrees=21.5)

    @pytest.mark.parametrize("status", ["incomplete", "failed"])
    async def test_the_last_event_is_that_of_its_status(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, status: str
    ) -> None:
        said = whole_response(status=status, error={"code": "server_error", "message": "x"})
        up.script(Raw(200, JSON, json.dumps(said).encode()))
        answer = await respond(http, stream=True)
        first, *_, last = events_of(answer)
        assert (first["response"]["status"], first["response"]["error"]) == ("in_progress", None)
        assert last["type"] == f"response.{status}"
        assert last["response"] == said
        assert answer.headers["x-model-ledger-adjusted"] == "stream=whole"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b"{}",
            b'{"status":"queued","output":[]}',
            b'{"status":"completed","output":{}}',
            b"[" * 100_000,
        ],
    )
    async def test_a_whole_answer_that_is_none_is_an_error(
        self, gateway: ServedGateway, up: ScriptedUpstream, http: httpx2.AsyncClient, body: bytes
    ) -> None:
        up.script(Raw(200, JSON, body))
        answer = await respond(http, stream=True)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_broken")
        (record,) = await gateway.recorded()
        assert (record.status, record.error) == (502, "broken")

    async def test_a_chat_that_came_over_many_lines_is_a_stream_all_the_same(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        choice = {"index": 0, "message": {"content": "a\nb", "x": [1, 2]}, "finish_reason": "stop"}
        up.script(Raw(200, JSON, json.dumps({"choices": [choice]}, indent=2).encode()))
        body = {"model": "gpt-4", "messages": [1], "stream": True}
        chunk, done = events_of(await http.post("/chat/completions", json=body))
        assert chunk["choices"][0]["delta"] == {"content": "a\nb", "x": [1, 2]}
        assert done == "[DONE]"


DELTAS: Final = {
    # last but one part of an event's type: the field that its delta fills
    "output_text": "text",
    "reasoning_summary_text": "text",
    "refusal": "refusal",
    "function_call_arguments": "arguments",
    "custom_tool_call_input": "input",
}


def put_together(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as a program makes them of the events: begun, and filled by deltas."""
    items: dict[int, dict[str, Any]] = {}
    for event in events:
        *_, of, what = event["type"].split(".")
        if (of, what) == ("output_item", "added"):
            items[event["output_index"]] = event["item"]
        elif (of, what) == ("output_item", "done") and "status" in event["item"]:
            items[event["output_index"]]["status"] = event["item"]["status"]
        elif what in {"added", "delta"}:
            fill(items[event["output_index"]], event, of, what)
    return [items[index] for index in sorted(items)]


def fill(item: dict[str, Any], event: dict[str, Any], of: str, what: str) -> None:
    parts = item.get("summary" if "summary" in of else "content", [])
    number = event.get("content_index", event.get("summary_index"))
    target = item if number is None else parts[number] if number < len(parts) else {}
    if what == "delta":
        target[DELTAS[of]] += event["delta"]
        if "logprobs" in event:
            target["logprobs"] += event["logprobs"]
    elif of == "annotation":
        assert len(target["annotations"]) == event["annotation_index"]
        target["annotations"].append(event["annotation"])
    else:
        assert len(parts) == number
        parts.append(event["part"])


async def raw_events(sdk: AsyncOpenAI) -> list[ResponseStreamEvent]:
    stream = await sdk.responses.create(model="gpt-4", input="hello", stream=True)
    return [event async for event in stream]


@pytest.fixture
async def compatible(gateway: ServedGateway) -> ServedGateway:
    """The gateway, with a model at a compatible server."""
    await gateway.serve({"gpt-4": gateway.compatible})
    return gateway


BODIES: Final[dict[Operation, tuple[str, dict[str, Any]]]] = {
    "chat": ("/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    "embeddings": ("/embeddings", {"input": "hello"}),
    "responses": ("/responses", {"input": "hello"}),
}
EVERY: Final = pytest.mark.parametrize("operation", BODIES)


class TestEveryOperation:
    """The faults of a provider, with what it counted."""

    @pytest.fixture(autouse=True)
    async def compatible(self, compatible: ServedGateway) -> None:
        pass

    async def call(self, http: httpx2.AsyncClient, operation: Operation, **fields: Any) -> httpx2.Response:
        path, body = BODIES[operation]
        return await http.post(path, json={"model": "gpt-4", **body, **fields})

    @EVERY
    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    async def test_errors_that_may_pass_are_tried_as_often_as_configured(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, operation: Operation, status: int
    ) -> None:
        gateway.up.script(*[Status(status)] * 4)
        answer = await self.call(http, operation)
        assert (answer.status_code, answer.headers["x-model-ledger-attempts"]) == (status, "4")
        await wait_until(lambda: gateway.up.finished == 4, within=2)
        assert gateway.up.started == 4
        (record,) = await gateway.recorded()
        assert (record.status, record.error, record.attempts) == (status, f"http_{status}", 4)

    @EVERY
    @pytest.mark.parametrize("status", [400, 404, 422])
    async def test_a_refusal_is_passed_on_at_once(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, operation: Operation, status: int
    ) -> None:
        gateway.up.script(Status(status))
        answer = await self.call(http, operation)
        assert (answer.status_code, error_of(answer)["code"]) == (status, str(status))
        await wait_until(lambda: gateway.up.finished == 1, within=2)
        (record,) = await gateway.recorded()
        assert (record.status, record.error, record.attempts) == (status, f"http_{status}", 1)

    @EVERY
    async def test_an_error_then_an_answer_is_an_answer(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, operation: Operation
    ) -> None:
        gateway.up.script(Status(503), Reply("hello"))
        answer = await self.call(http, operation)
        assert (answer.status_code, answer.headers["x-model-ledger-attempts"]) == (200, "2")
        await wait_until(lambda: gateway.up.finished == 2, within=2)

    @EVERY
    async def test_a_whole_answer_that_breaks_off_is_an_error_and_not_tried_again(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, operation: Operation
    ) -> None:
        gateway.up.script(CutMidStream())
        answer = await self.call(http, operation)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_broken")
        await wait_until(lambda: gateway.up.finished == 1, within=2)
        assert gateway.up.started == 1

    @EVERY
    async def test_a_provider_that_refuses_the_key_is_a_bad_gateway(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, operation: Operation
    ) -> None:
        gateway.up.script(Status(401))
        answer = await self.call(http, operation)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_auth")
        (record,) = await gateway.recorded()
        assert (record.status, record.error) == (502, "http_401")

    @EVERY
    async def test_a_caller_who_leaves_ends_the_call_within_a_second(
        self, gateway: ServedGateway, operation: Operation
    ) -> None:
        gateway.up.script(Hang())
        async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, verify=False) as http:
            asking = asyncio.create_task(self.call(http, operation))
            await wait_until(lambda: gateway.up.live == 1, within=2)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await wait_until(lambda: gateway.up.aborted == 1, within=1)
        (record,) = await gateway.recorded()
        assert (record.status, record.error, record.first_byte) == (499, "left", None)

    @pytest.mark.parametrize("operation", ["chat", "responses"])
    async def test_a_caller_who_leaves_mid_stream_ends_it_within_a_second(
        self, gateway: ServedGateway, operation: Operation
    ) -> None:
        gateway.up.script(Stream(["a", "b"], hold=Event()))
        path, body = BODIES[operation]
        async with (
            httpx2.AsyncClient(base_url=gateway.url, trust_env=False, verify=False) as http,
            http.stream("POST", path, json={"model": "gpt-4", **body, "stream": True}) as answer,
        ):
            assert await anext(answer.aiter_lines())
        await wait_until(lambda: gateway.up.aborted == 1, within=1)
        (record,) = await gateway.recorded()
        assert (record.status, record.error) == (499, "left")
        assert record.first_byte is not None

    @EVERY
    async def test_all_of_it_is_recorded(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, operation: Operation
    ) -> None:
        config: ModelConfig = gateway.compatible
        version = await gateway.serve({"gpt-4": config})
        gateway.up.script(Reply("one two"))
        await self.call(http, operation)
        (record,) = await gateway.recorded()
        assert (record.model_id, record.version, record.asked) == ("gpt-4", version, "gpt-4")
        assert (record.caller.id, record.operation, record.stream) == ("token:anna", operation, False)
        assert (record.status, record.error, record.attempts) == (200, None, 1)
        assert record.started_at.tzinfo is not None
        assert record.first_byte is not None
        assert 0 < record.first_byte <= record.duration < 5
        assert record.tokens == Tokens(1, 0 if operation == "embeddings" else 2)
