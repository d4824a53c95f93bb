"""The service as the clients that people use see it: each of them plays the same scenarios."""

import json
import struct
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any, Final

import pytest
import pytest_asyncio
from client_processes import LEAVING, PROGRAMS, Told, play
from service import Service
from upstream import CutMidStream, EndWithoutDone, ErrorFrame, Hang, Raw, Reply, Status, Step, Stream
from waiting import eventually, serves
from workers import each_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")

BERN: Final = {"city": "Bern", "inhabitants": 134_000}
JSON: Final = {"content-type": "application/json"}
SSE: Final = {"content-type": "text/event-stream"}
CALL: Final = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
}
WORDS: Final = [f"word {number} " for number in range(8)]
FILTERED: Final = {
    "error": {"message": "Filtered.", "type": "invalid_request_error", "code": "content_filter"}
}


def completion(choice: Mapping[str, Any], kind: str = "chat.completion") -> bytes:
    head = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "any"}
    return json.dumps({**head, "choices": [{"index": 0, **choice}]}).encode()


def events(*deltas: Mapping[str, Any], finish: str) -> bytes:
    chunks = [{"delta": delta, "finish_reason": None} for delta in deltas]
    chunks.append({"delta": {}, "finish_reason": finish})
    said = [completion(chunk, "chat.completion.chunk") for chunk in chunks]
    return b"".join(b"data: %b\n\n" % event for event in [*said, b"[DONE]"])


TOOL_CALL: Final = completion(
    {"message": {"role": "assistant", "content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
)
TOOL_CALL_EVENTS: Final = events(
    {
        "role": "assistant",
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": ""},
            }
        ],
    },
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]},
    finish="tool_calls",
)

VECTORS: Final = [[0.5, 0.25], [-0.5, 1.0]]
"""Numbers that are the same in 32 bits."""


def embeddings(*, encoded: bool) -> bytes:
    """The vectors as the official SDKs ask for them, or as everyone else does."""
    data = [
        {"object": "embedding", "index": index, "embedding": base64(vector) if encoded else vector}
        for index, vector in enumerate(VECTORS)
    ]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return json.dumps({"object": "list", "data": data, "model": "any", "usage": usage}).encode()


def base64(vector: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


SCENARIOS: Final[Mapping[str, Sequence[Step]]] = {
    "listed": [],
    "whole": [Reply("hello to you")],
    "streamed": [Stream(WORDS)],
    "tool_call": [Raw(200, JSON, TOOL_CALL)],
    "tool_call_streamed": [Raw(200, SSE, TOOL_CALL_EVENTS)],
    "structured": [Reply(json.dumps(BERN))],
    "stranger": [],
    "refused": [Status(400, body=FILTERED)],
    "provider_auth": [Status(401)],
    "busy": [Status(429, {"retry-after": "7"})],
    "recovers": [Status(429, {"retry-after": "1"}), Reply("at last")],
    "halved": [CutMidStream()],
    "cut": [CutMidStream(3)],
    "unfinished": [EndWithoutDone(3)],
    "failed_midway": [ErrorFrame(3)],
    "responded": [Reply("hello to you")],
    "responded_streamed": [Stream(WORDS)],
    "responded_cut": [CutMidStream(3)],
    "left_streaming": [Stream(["first", "second"], hold=Event())],
    "left_waiting": [Hang()],
}
"""What the provider answers; a call too many would get an echo."""


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=PROGRAMS)
async def told(request: pytest.FixtureRequest, shared_service: Service) -> Told:
    upstream = shared_service.upstream
    assert upstream is not None
    async with each_worker(shared_service) as clients:
        first, *_ = clients.values()
        models = {scenario: first.new_id() for scenario in SCENARIOS}
        for scenario, model_id in models.items():
            await first.create(model_id, max_retries=0)
            upstream.script(*SCENARIOS[scenario], deployment=model_id)
        models["embedded"] = await first.create(max_retries=0)
        vectors = Raw(200, JSON, embeddings(encoded=request.param in {"openai-node", "langchain"}))
        upstream.script(vectors, deployment=models["embedded"])
        last = await first.create()
        for api in clients.values():
            await eventually(lambda api=api: serves(api, last, 1))
    return await play(request.param, shared_service, upstream, {**models, "missing": first.new_id()})


def only(*clients: str) -> pytest.MarkDecorator:
    """Of those clients; the others have nothing like it."""
    return pytest.mark.parametrize("told", clients, indirect=True, scope="module")


@only("openai-node", "curl")
def test_models_are_listed_and_read(told: Told) -> None:
    found = told.found["listed"]
    assert "error" not in found
    assert set(told.models.values()) - set(found["models"]) == {told.models["missing"]}
    assert found["text"] == told.models["listed"]


def test_a_whole_answer_arrives_with_its_usage(told: Told) -> None:
    found = told.found["whole"]
    assert "error" not in found
    assert (found["text"], found["finish"], found["total_tokens"]) == ("hello to you", "stop", 4)


def test_a_stream_arrives_in_pieces_with_its_usage(told: Told) -> None:
    found = told.found["streamed"]
    assert "error" not in found
    assert (found["text"], found["finish"], found["total_tokens"]) == ("".join(WORDS), "stop", 9)
    assert found["chunks"] == len(WORDS)


@pytest.mark.parametrize("scenario", ["whole", "streamed"])
def test_an_answer_says_which_version_of_which_model_gave_it(told: Told, scenario: str) -> None:
    identity = told.found[scenario]["identity"]
    assert (identity["model"], identity["version"]) == (told.models[scenario], "1")
    assert int(identity["position"]) > 0


@pytest.mark.parametrize("scenario", ["tool_call", "tool_call_streamed"])
def test_tools_reach_the_provider_and_their_calls_come_back(told: Told, scenario: str) -> None:
    found = told.found[scenario]
    assert "error" not in found
    assert found["tool_calls"] == [{"name": "weather", "arguments": {"city": "Bern"}}]
    assert found["finish"] in {"tool_calls", "tool-calls"}
    (request,) = told.requests[scenario]
    (tool,) = request.fields["tools"]
    assert (tool["type"], tool["function"]["name"]) == ("function", "weather")
    assert tool["function"]["parameters"]["properties"] == {"city": {"type": "string"}}


def test_a_structured_answer_is_asked_for_and_read(told: Told) -> None:
    found = told.found["structured"]
    assert "error" not in found
    assert found["object"] == BERN
    (request,) = told.requests["structured"]
    assert request.fields["response_format"]["type"] == "json_schema"


def test_embeddings_arrive_as_numbers(told: Told) -> None:
    found = told.found["embedded"]
    assert "error" not in found
    assert found["vectors"] == VECTORS
    (request,) = told.requests["embedded"]
    assert request.fields["input"] == ["one", "two"]


def test_a_response_arrives_with_its_usage(told: Told) -> None:
    found = told.found["responded"]
    assert "error" not in found
    assert (found["text"], found["total_tokens"]) == ("hello to you", 4)


def test_a_streamed_response_arrives_in_pieces_with_its_usage(told: Told) -> None:
    found = told.found["responded_streamed"]
    assert "error" not in found
    assert (found["text"], found["chunks"], found["total_tokens"]) == ("".join(WORDS), len(WORDS), 9)


OF_THE_SDK: Final = {
    "stranger": "AuthenticationError",
    "missing": "NotFoundError",
    "refused": "BadRequestError",
    "busy": "RateLimitError",
    "halved": "InternalServerError",
    "midway": "APIError",
}
ERRORS: Final[Mapping[str, Mapping[str, object]]] = {
    "openai-node": OF_THE_SDK,
    "langchain": OF_THE_SDK,
    "ai-sdk": {**dict.fromkeys(OF_THE_SDK, "AI_APICallError"), "midway": "AI_StreamProviderError"},
    "curl": {**dict.fromkeys(OF_THE_SDK, 22), "midway": "not the end"},
}


@pytest.mark.parametrize(
    ("scenario", "status", "code"),
    [
        ("stranger", 401, "invalid_api_key"),
        ("missing", 404, "model_not_found"),
        ("refused", 400, "content_filter"),
        ("busy", 429, "429"),
        ("halved", 502, "provider_broken"),
    ],
)
def test_a_refusal_is_raised_as_its_own_class(told: Told, scenario: str, status: int, code: str) -> None:
    error = told.found[scenario]["error"]
    assert (error["status"], error["code"]) == (status, code)
    assert error["class"] == ERRORS[told.client][scenario]


@only("openai-node", "langchain")
def test_the_gateways_own_trouble_with_a_provider_is_not_tried_again(told: Told) -> None:
    error = told.found["provider_auth"]["error"]
    assert (error["class"], error["status"]) == ("InternalServerError", 502)
    assert len(told.requests["provider_auth"]) == 1


def test_a_provider_that_is_busy_says_for_how_long(told: Told) -> None:
    assert told.found["busy"]["error"]["retry_after"] == "7"


@pytest.mark.parametrize("scenario", ["cut", "unfinished", "failed_midway", "responded_cut"])
def test_a_stream_that_fails_midway_is_raised_after_what_came(told: Told, scenario: str) -> None:
    found = told.found[scenario]
    assert found["text"] == "chunk 1 chunk 2 chunk 3 "
    assert found["error"]["class"] == ERRORS[told.client]["midway"]
    assert "finish" not in found


def test_a_call_is_tried_again_when_the_provider_said_and_no_other(told: Told) -> None:
    found = told.found["recovers"]
    assert (found.get("error"), found["text"]) == (None, "at last")
    first, second = told.requests["recovers"]
    assert second.at - first.at > 0.9
    once = {*told.found} - {"listed", "stranger", "missing", "recovers"}
    assert {scenario: len(told.requests[scenario]) for scenario in once} == dict.fromkeys(once, 1)


def test_a_call_ends_upstream_within_a_second_of_its_callers_leaving(told: Told) -> None:
    assert told.found.keys() >= {*LEAVING}
    assert len(told.aborted_within) == len(LEAVING)
    assert max(told.aborted_within) < 1


def test_what_a_caller_sends_as_its_key_never_reaches_the_provider(told: Told) -> None:
    sent = [request for requests in told.requests.values() for request in requests]
    assert sent
    assert all("mlk_" not in repr(request) for request in sent)
