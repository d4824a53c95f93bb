"""The gateway between the real SDK and a real upstream: chat completions, and what all operations share."""

import asyncio
import json
from socket import create_server
from threading import Event
from typing import Final

import httpx2
import openai
import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from served_gateway import (
    EVENTS,
    HELLO,
    JSON,
    KEY,
    NOON,
    TOKEN,
    ServedGateway,
    ask,
    error_of,
    events_of,
    post,
)
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

from web.gateway.routes import BODY_LIMIT

DONE: Final = b"data: [DONE]\n\n"


@pytest.fixture
def up(gateway: ServedGateway) -> ScriptedUpstream:
    return gateway.up


@pytest.fixture
def sdk(gateway_sdk: AsyncOpenAI) -> AsyncOpenAI:
    return gateway_sdk


@pytest.fixture
def http(gateway_http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return gateway_http


async def read(stream: AsyncStream[ChatCompletionChunk]) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


class TestModels:
    async def test_the_sdk_lists_them(self, gateway: ServedGateway, sdk: AsyncOpenAI) -> None:
        await gateway.serve({"o3": gateway.config, "gpt-4": gateway.config})
        models = (await sdk.models.list()).data
        assert [model.id for model in models] == ["gpt-4", "o3"]
        assert {(model.object, model.created, model.owned_by) for model in models} == {
            ("model", int(NOON.timestamp()), "model-ledger")
        }

    async def test_the_sdk_reads_one(self, sdk: AsyncOpenAI) -> None:
        assert (await sdk.models.retrieve("gpt-4")).id == "gpt-4"

    @pytest.mark.parametrize("model", ["gpt-5", "off"])
    async def test_one_that_is_missing_or_disabled_is_not_found(
        self, gateway: ServedGateway, sdk: AsyncOpenAI, model: str
    ) -> None:
        await gateway.serve({"off": replace(gateway.config, enabled=False)})
        for asking in (
            lambda: sdk.models.retrieve(model),
            lambda: sdk.chat.completions.create(model=model, messages=HELLO),
        ):
            with pytest.raises(openai.NotFoundError) as refusal:
                await asking()
            assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")
            assert refusal.value.type == "not_found_error"


class TestAnswers:
    async def test_the_sdk_gets_a_whole_answer(self, up: ScriptedUpstream, sdk: AsyncOpenAI) -> None:
        up.script(Reply("hello to you"))
        answer = await sdk.chat.completions.create(model="gpt-4", messages=HELLO)
        assert answer.choices[0].message.content == "hello to you"
        (request,) = up.requests
        assert (request.deployment, request.key) == ("prod", KEY)
        assert TOKEN not in repr(request)

    async def test_the_sdk_gets_a_stream(self, up: ScriptedUpstream, sdk: AsyncOpenAI) -> None:
        up.script(Stream(["hello ", "to ", "you"]))
        stream = await sdk.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
        assert await read(stream) == "hello to you"

    async def test_the_first_chunk_comes_before_the_second_is_there(
        self, up: ScriptedUpstream, sdk: AsyncOpenAI
    ) -> None:
        up.script(Stream(["first", "second"], hold=(hold := Event())))
        stream = await sdk.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
        async with asyncio.timeout(2):
            async for chunk in stream:
                if chunk.choices[0].delta.content == "first":
                    break
        hold.set()
        assert await read(stream) == "second"

    async def test_every_answer_names_the_version_that_gave_it(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        gateway.up.script(Reply("a"), Reply("b"), Status(400), Hang(Event()))
        version = await gateway.serve(base_timeout=0.3, max_timeout=0.3)
        answers = [await ask(http), await ask(http, stream=True), await ask(http), await ask(http)]
        assert [answer.status_code for answer in answers] == [200, 200, 400, 504]
        for answer in answers:
            assert answer.headers["x-model-ledger-model"] == "gpt-4"
            assert answer.headers["x-model-ledger-version"] == str(version)
            assert answer.headers["x-model-ledger-position"] == str(100 + version)
            assert answer.headers["x-model-ledger-attempts"] == "1"

    async def test_the_providers_request_id_is_passed_on(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        up.script(
            Raw(200, {**JSON, "x-request-id": "theirs"}, b"{}"), Status(400, {"x-request-id": "theirs"})
        )
        for answer in (await ask(http), await ask(http)):
            assert answer.headers["x-provider-request-id"] == "theirs"

    async def test_a_stream_says_that_it_is_one(self, up: ScriptedUpstream, http: httpx2.AsyncClient) -> None:
        up.script(Reply("hello"))
        answer = await ask(http, stream=True)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.content.endswith(DONE)

    async def test_unknown_fields_pass_untouched_both_ways(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        body = b'{ "choices" : [],"x_vendor":{"b":1.50,"a":[1e2,null]} }'
        up.script(Raw(200, {"content-type": "application/json; charset=utf-8"}, body))
        sent = b'{"model":"gpt-4","messages":[{"x":1.50}],"x_vendor":{"b" : 2.0e1},"x_text":"\\u00e9"}'
        answer = await post(http, sent)
        assert answer.content == body
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert up.requests[0].body == sent.replace(b'"gpt-4"', b'"prod"')

    async def test_a_stream_passes_byte_for_byte_however_it_is_spelled(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        body = b': hi\r\n\r\ndata:{"choices":[{"finish_reason" : "stop"}],"x":1.50}\r\n\r\ndata:[DONE]'
        up.script(Raw(200, EVENTS, body))
        assert (await ask(http, stream=True)).content == body

    async def test_a_content_filters_finish_reason_is_passed_on(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        body = b'{"choices":[{"finish_reason":"content_filter","message":{"content":""}}]}'
        up.script(Raw(200, JSON, body))
        assert (await ask(http)).content == body


class TestWhatAProviderMustNotSay:
    @pytest.mark.parametrize("body", [b"", b"{nope", b'{"id":"c1","content":"half', b"<html>welcome</html>"])
    async def test_a_plain_answer_that_is_no_whole_json_is_no_success(
        self, gateway: ServedGateway, up: ScriptedUpstream, http: httpx2.AsyncClient, body: bytes
    ) -> None:
        up.script(Raw(200, JSON, body))
        answer = await ask(http)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "provider_broken"
        assert [record.status for record in gateway.records] == [502]

    @pytest.mark.parametrize("before", [b"", b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'])
    async def test_nothing_follows_an_error_in_a_stream(
        self, gateway: ServedGateway, up: ScriptedUpstream, http: httpx2.AsyncClient, before: bytes
    ) -> None:
        error = b'data: {"error":{"message":"overloaded"}}\n\n'
        up.script(Raw(200, EVENTS, before + error + b"data: [DONE]\n\n"))
        assert (await ask(http, stream=True)).content == before + error
        assert [record.error for record in gateway.records] == ["failed"]

    async def test_the_key_is_blanked_in_what_looks_like_a_success(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        told = b'{"error":{"message":"wrong key: %b"}}' % KEY.encode()
        up.script(Raw(200, JSON, told), Raw(200, EVENTS, b"data: %b\n\n" % told))
        blanked = told.replace(KEY.encode(), b"***")
        assert (await ask(http)).content == blanked
        assert (await ask(http, stream=True)).content == b"data: %b\n\n" % blanked

    async def test_a_success_of_another_kind_is_told_as_what_it_is(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        up.script(Raw(201, JSON, b"{}"))
        answer = await ask(http)
        assert answer.status_code == 502
        assert "status 201" in answer.json()["error"]["message"]


class TestTheConfigurationsRules:
    async def test_a_limit_above_the_ceiling_is_clamped_and_told(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(supports_temperature=False, reasoning=False)
        answer = await ask(http, max_tokens=9000, temperature=1)
        assert answer.headers["x-model-ledger-adjusted"] == "max_tokens=4096, temperature=dropped"
        assert gateway.up.requests[0].fields == {"model": "prod", "messages": HELLO, "max_tokens": 4096}

    async def test_nothing_is_told_when_nothing_was_adjusted(self, http: httpx2.AsyncClient) -> None:
        assert "x-model-ledger-adjusted" not in (await ask(http, max_tokens=1)).headers

    async def test_a_header_never_carries_what_the_caller_wrote(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(reasoning=True)
        body = b'{"model":"gpt-4","messages":[1],"max_tokens":{"a":\r\n1,"set-cookie":"a"}}'
        answer = await post(http, body)
        assert answer.headers["x-model-ledger-adjusted"] == "max_tokens=max_completion_tokens"

    async def test_a_model_that_cannot_stream_says_it_all_in_one_stream(
        self, gateway: ServedGateway, sdk: AsyncOpenAI
    ) -> None:
        await gateway.serve(supports_streaming=False)
        gateway.up.script(Reply("hello to you"))
        options = {"include_usage": True}
        stream = await sdk.chat.completions.create(
            model="gpt-4", messages=HELLO, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        first, last = chunks
        assert first.object == last.object == "chat.completion.chunk"
        assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "hello to you")
        assert first.choices[0].finish_reason == "stop"
        assert first.usage is None
        assert (last.choices, last.usage.completion_tokens) == ([], 3)
        assert {"stream", "stream_options"}.isdisjoint(gateway.up.requests[0].fields)

    async def test_its_tool_calls_become_deltas(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(supports_streaming=False)
        calls = [
            {"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for n in (0, 1)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        gateway.up.script(
            Raw(200, JSON, json.dumps({"id": "x", "choices": [choice], "usage": {}, "y": 1.5}).encode())
        )
        answer = await ask(http, stream=True)
        delta = {**message, "tool_calls": [{"index": n, **call} for n, call in enumerate(calls)]}
        chunk = {
            "id": "x",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "delta": delta}],
            "y": 1.5,
            "object": "chat.completion.chunk",
        }
        assert events_of(answer) == [chunk, "[DONE]"]
        assert answer.headers["x-model-ledger-adjusted"] == "stream=whole"

    async def test_a_provider_that_answers_a_stream_whole_is_understood(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
        up.script(Raw(200, JSON, json.dumps({"choices": [choice]}).encode()))
        answer = await ask(http, stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.content.endswith(DONE)

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"choices":[]}', b'{"choices":[{"message":{}}]}', b"[" * 100_000]
    )
    async def test_a_whole_answer_that_is_none_is_an_error(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, body: bytes
    ) -> None:
        await gateway.serve(supports_streaming=False)
        gateway.up.script(Raw(200, JSON, body))
        answer = await ask(http, stream=True)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_broken")


class TestWhatTheGatewayAsks:
    @pytest.mark.parametrize(
        ("body", "param", "code"),
        [
            (b"", None, "invalid_json"),
            (b"{", None, "invalid_json"),
            (b"[]", None, "invalid_json"),
            (b"null", None, "invalid_json"),
            (b'{"model":"gpt-4","messages":[1],"x":"\xff"}', None, "invalid_json"),
            (b'{"messages":[1]}', "model", "missing_required_parameter"),
            (b'{"model":4,"messages":[1]}', "model", "invalid_type"),
            (b'{"model":null,"messages":[1]}', "model", "invalid_type"),
            (b'{"model":"gpt-4"}', "messages", "missing_required_parameter"),
            (b'{"model":"gpt-4","messages":[ ]}', "messages", "invalid_value"),
            (b'{"model":"gpt-4","messages":"hi"}', "messages", "invalid_value"),
            (b'{"model":"gpt-4","messages":[1],"stream":"yes"}', "stream", "invalid_type"),
            (b'{"model":"gpt-4","messages":[1],"stream":1}', "stream", "invalid_type"),
            (b'{"model":"a","messages":[1],"model":"gpt-4"}', "model", "doubled_key"),
            (b'{"model":"a","messages":[1],"mod\\u0065l":"gpt-4"}', "model", "doubled_key"),
        ],
    )
    async def test_a_body_that_it_does_not_understand_is_refused(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, body: bytes, param: str | None, code: str
    ) -> None:
        answer = await post(http, body)
        error = error_of(answer)
        assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
        assert error["type"] == "invalid_request_error"
        assert up.requests == []

    @pytest.mark.parametrize(
        "inner", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
    )
    @pytest.mark.parametrize("field", [b"messages", b"model", b"x"])
    async def test_a_body_nested_a_hundred_thousand_deep_is_refused(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, field: bytes, inner: bytes
    ) -> None:
        fields = {b"model": b'"gpt-4"', b"messages": b"[1]", field: inner}
        answer = await post(http, b"{" + b",".join(b'"%b":%b' % item for item in fields.items()) + b"}")
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")
        assert up.requests == []

    async def test_the_word_model_may_stand_deeper_and_in_text(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        answer = await ask(
            http, messages=[{"content": 'say "model": "x"'}], tools=[{"model": 1}, {"model": 2}]
        )
        assert answer.status_code == 200

    @pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded"])
    async def test_another_content_type_is_refused(self, http: httpx2.AsyncClient, content_type: str) -> None:
        body = json.dumps({"model": "gpt-4", "messages": HELLO}).encode()
        answer = await post(http, body, **{"content-type": content_type})
        assert (answer.status_code, error_of(answer)["type"]) == (415, "invalid_request_error")

    @pytest.mark.parametrize("path", ["/models?a=1", "/models/gpt-4?a=1", "/chat/completions?a=1"])
    async def test_unknown_query_parameters_are_refused(self, http: httpx2.AsyncClient, path: str) -> None:
        body = {"model": "gpt-4", "messages": HELLO}
        answer = await (http.post(path, json=body) if "chat" in path else http.get(path))
        assert (answer.status_code, error_of(answer)["code"]) == (400, "unknown_parameter")

    async def test_a_body_up_to_the_limit_passes_and_a_larger_one_does_not(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        head, tail = b'{"model":"gpt-4","messages":["', b'"]}'
        largest = head + b"x" * (BODY_LIMIT - len(head + tail)) + tail
        assert (await post(http, largest)).status_code == 200
        answer = await post(http, largest + b" ")
        assert (answer.status_code, error_of(answer)["type"]) == (413, "invalid_request_error")

    @pytest.mark.parametrize(
        ("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/models", 405)]
    )
    async def test_the_frameworks_own_errors_have_the_same_shape(
        self, http: httpx2.AsyncClient, method: str, path: str, status: int
    ) -> None:
        answer = await http.request(method, path)
        assert answer.status_code == status
        assert error_of(answer)["type"] == {404: "not_found_error", 405: "invalid_request_error"}[status]

    async def test_fields_never_say_where_a_call_goes_or_with_which_key(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        with ScriptedUpstream() as attacker:
            tricks = {
                "api_base": attacker.origin,
                "base_url": attacker.origin,
                "azure_endpoint": attacker.origin,
                "api_key": "stolen",
                "api_version": "stolen",
                "deployment": "stolen",
                "extra_headers": {"api-key": "stolen", "x-evil": "1"},
                "extra_query": {"api-version": "stolen"},
                "timeout": 0.001,
                "max_retries": 99,
            }
            headers = {"x-evil": "1", "api-key": "stolen", "authorization": f"Bearer {TOKEN}", "host": "evil"}
            body = {"model": "gpt-4", "messages": HELLO, **tricks}
            answer = await http.post("/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200
            assert attacker.requests == []
        (request,) = up.requests
        assert request.fields == {**body, "model": "prod"}
        assert (request.key, request.query["api-version"]) == (KEY, "2025-01-01-preview")
        assert {"x-evil", "authorization", "cookie"}.isdisjoint(request.headers)
        assert request.headers["host"] == up.origin.removeprefix("http://")


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, openai.BadRequestError),
            (404, openai.NotFoundError),
            (409, openai.ConflictError),
            (422, openai.UnprocessableEntityError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
            (503, openai.InternalServerError),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    async def test_the_sdk_raises_the_class_of_the_providers_status(
        self,
        gateway: ServedGateway,
        sdk: AsyncOpenAI,
        status: int,
        kind: type[openai.APIStatusError],
        stream: object,
    ) -> None:
        await gateway.serve(max_retries=0)
        gateway.up.script(Status(status))
        with pytest.raises(kind) as refusal:
            await sdk.chat.completions.create(model="gpt-4", messages=HELLO, stream=bool(stream))
        assert refusal.value.status_code == status
        assert refusal.value.code == str(status)
        assert refusal.value.body["message"] == "Ordered by the script."

    async def test_all_of_an_openai_error_is_passed_on(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        error = {"message": "no", "type": "image_parse_error", "param": "messages", "code": "content_filter"}
        up.script(Status(400, body={"error": {**error, "innererror": {"x": 1}}}))
        assert error_of(await ask(http)) == error

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>nginx at 10.0.0.1</html>",
            b"",
            b'{"error":"text"}',
            b'{"error":{"code":1}}',
            b"[" * 100_000,
        ],
    )
    async def test_what_is_no_error_object_is_not_repeated(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient, body: bytes
    ) -> None:
        up.script(Raw(400, {"content-type": "text/html"}, body))
        answer = await ask(http)
        assert answer.status_code == 400
        assert error_of(answer)["message"] == "the provider answered with status 400"

    @pytest.mark.parametrize("status", [401, 403])
    async def test_the_providers_refusal_of_the_key_is_not_the_callers(
        self, up: ScriptedUpstream, sdk: AsyncOpenAI, status: int
    ) -> None:
        up.script(
            Status(status, body={"error": {"message": "wrong key sk-the-p***key", "code": "invalid_api_key"}})
        )
        with pytest.raises(openai.InternalServerError) as refusal:
            await sdk.with_options(max_retries=2).chat.completions.create(model="gpt-4", messages=HELLO)
        assert (refusal.value.status_code, refusal.value.code) == (502, "provider_auth")
        assert refusal.value.type == "server_error"
        assert "sk-" not in refusal.value.message
        assert len(up.requests) == 1

    async def test_a_redirect_is_an_error(self, up: ScriptedUpstream, http: httpx2.AsyncClient) -> None:
        with ScriptedUpstream() as elsewhere:
            up.script(Raw(307, {"location": f"{elsewhere.origin}/openai/v1/chat/completions"}, b""))
            answer = await ask(http)
            assert elsewhere.requests == []
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_redirect")
        assert "location" not in answer.headers

    async def test_retry_after_is_kept(self, up: ScriptedUpstream, http: httpx2.AsyncClient) -> None:
        up.script(Status(429, {"retry-after": "77", "retry-after-ms": "77000"}))
        answer = await ask(http)
        assert (answer.status_code, error_of(answer)["type"]) == (429, "rate_limit_error")
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("77", "77000")

    async def test_the_attempts_that_are_told_are_those_that_the_provider_saw(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        up.script(Status(500), Status(429), Reply("ok"), *[Status(503)] * 4)
        good, bad = await ask(http, stream=True), await ask(http)
        assert (good.status_code, good.headers["x-model-ledger-attempts"]) == (200, "3")
        assert (bad.status_code, bad.headers["x-model-ledger-attempts"]) == (503, "4")
        assert len(up.requests) == 7

    async def test_a_provider_that_is_not_there_is_a_bad_gateway(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        with create_server(("127.0.0.1", 0)) as probe:
            gone = f"http://127.0.0.1:{probe.getsockname()[1]}"
        await gateway.serve(azure_endpoint=gone, credential=None)
        answer = await ask(http)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_connect")
        assert answer.headers["x-model-ledger-attempts"] == "4"
        assert "127.0.0.1" not in answer.text

    async def test_a_provider_that_is_too_slow_is_a_gateway_timeout(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        gateway.up.script(Hang())
        await gateway.serve(base_timeout=0.2, max_timeout=0.2)
        answer = await ask(http)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "provider_timeout")

    async def test_a_model_whose_key_may_not_go_there_is_a_bad_gateway(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve({"new": replace(gateway.config, azure_endpoint="https://unbound.example")})
        answer = await ask(http, model="new")
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_not_bound")
        assert "unbound" not in answer.text


class TestTruncation:
    async def test_a_whole_answer_that_breaks_off_is_an_error(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        up.script(CutMidStream())
        answer = await ask(http)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_broken")

    @pytest.mark.parametrize("step", [CutMidStream(), EndWithoutDone(), EndWithoutDone(0)])
    async def test_a_stream_that_stops_short_ends_with_an_error(
        self,
        up: ScriptedUpstream,
        sdk: AsyncOpenAI,
        http: httpx2.AsyncClient,
        step: CutMidStream | EndWithoutDone,
    ) -> None:
        up.script(step, step)
        stream = await sdk.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError):
            await read(stream)
        answer = await ask(http, stream=True)
        *chunks, last = events_of(answer)
        assert len(chunks) == step.after + 1
        assert last["error"]["code"] == "provider_broken"
        assert "[DONE]" not in answer.text

    async def test_half_a_line_is_not_passed_on(self, up: ScriptedUpstream, http: httpx2.AsyncClient) -> None:
        first = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
        up.script(Raw(200, EVENTS, first + b'data: {"choices":[{"finish_reason":"st'))
        chunk, error = events_of(await ask(http, stream=True))
        assert chunk["choices"][0]["delta"] == {"content": "a"}
        assert error["error"]["code"] == "provider_broken"

    async def test_an_error_that_the_provider_tells_itself_stays_the_last_word(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        up.script(ErrorFrame(2))
        *chunks, last = events_of(await ask(http, stream=True))
        assert (len(chunks), last["error"]["message"]) == (3, "The server had an error.")

    async def test_a_finish_reason_is_end_enough(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        body = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
        up.script(Raw(200, EVENTS, body))
        assert (await ask(http, stream=True)).content == body

    async def test_a_text_that_speaks_of_finish_reasons_is_no_end(
        self, up: ScriptedUpstream, http: httpx2.AsyncClient
    ) -> None:
        text = json.dumps({"choices": [{"delta": {"content": '"finish_reason": "stop" \ndata: [DONE]'}}]})
        up.script(Raw(200, EVENTS, f"data: {text}\n\n".encode()))
        assert "error" in events_of(await ask(http, stream=True))[-1]

    async def test_a_stream_that_outlasts_its_timeout_ends_with_an_error(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        gateway.up.script(Stream(["slow"] * 1_000, delay=0.05))
        await gateway.serve(base_timeout=0.3, max_timeout=0.3)
        answer = await ask(http, stream=True)
        assert answer.status_code == 200
        assert events_of(answer)[-1]["error"]["code"] == "provider_timeout"
        await wait_until(lambda: gateway.up.aborted == 1, within=1)


class TestTheCallerLeaves:
    async def left(self, gateway: ServedGateway, step: Stream | Hang, *, stream: bool) -> None:
        gateway.up.script(step)
        async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, verify=False) as http:
            asking = asyncio.create_task(ask(http, stream=stream))
            await wait_until(lambda: gateway.up.live == 1, within=2)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await wait_until(lambda: gateway.up.aborted == 1, within=1)
        await wait_until(lambda: gateway.pool.leases == 0, within=1)

    async def test_before_the_first_byte_of_a_stream(self, gateway: ServedGateway) -> None:
        await self.left(gateway, Hang(), stream=True)

    async def test_while_a_whole_answer_is_made(self, gateway: ServedGateway) -> None:
        await self.left(gateway, Hang(), stream=False)

    async def test_while_a_model_that_cannot_stream_thinks(self, gateway: ServedGateway) -> None:
        await gateway.serve(supports_streaming=False)
        await self.left(gateway, Hang(), stream=True)

    async def test_in_the_middle_of_a_stream(self, gateway: ServedGateway, sdk: AsyncOpenAI) -> None:
        gateway.up.script(Stream(["a", "b"], hold=Event()))
        stream = await sdk.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
        assert await anext(aiter(stream))
        await stream.close()
        await wait_until(lambda: gateway.up.aborted == 1, within=1)
        await wait_until(lambda: gateway.pool.leases == 0, within=1)

    async def test_between_two_tries(self, gateway: ServedGateway, http: httpx2.AsyncClient) -> None:
        await gateway.serve(max_retries=10)
        gateway.up.script(*[Status(500)] * 5, Hang())
        asking = asyncio.create_task(ask(http))
        await wait_until(lambda: gateway.up.live == 1 and len(gateway.up.requests) == 6, within=2)
        asking.cancel()
        await wait_until(lambda: gateway.up.aborted == 1, within=1)

    async def test_one_who_stays_but_does_not_read_is_cut_off_and_holds_up_nobody(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(base_timeout=0.5, max_timeout=0.5)
        gateway.up.script(Stream(["x" * 100_000] * 1_000, delay=0))
        body = json.dumps({"model": "gpt-4", "messages": HELLO, "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        url = httpx2.URL(gateway.url)
        _, writer = await asyncio.open_connection(url.host, url.port, limit=1_000)
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        await wait_until(lambda: gateway.up.live == 1, within=2)
        assert (await ask(http)).status_code == 200
        await wait_until(lambda: gateway.up.aborted == 1, within=2)
        await wait_until(lambda: gateway.pool.leases == 0, within=2)
        writer.close()


class TestRefreshing:
    async def test_fifty_live_streams_outlive_twenty_changes(self, gateway: ServedGateway) -> None:
        up = gateway.up
        hold = Event()
        up.script(*[Stream(["a"] * 20, delay=0.01, hold=hold)] * 50)
        async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20) as http:
            asking = [asyncio.create_task(ask(http, stream=True)) for _ in range(50)]
            await wait_until(lambda: up.live == 50, within=5)
            for number in range(20):
                await gateway.serve(api_version=f"2025-01-{number + 1:02}")
            assert (gateway.pool.open, gateway.pool.draining, gateway.pool.leases) == (1, 1, 50)
            hold.set()
            answers = await asyncio.gather(*asking)
        for answer in answers:
            assert answer.content.count(b'"content":"a"') == 20
            assert answer.content.endswith(DONE)
        await wait_until(lambda: gateway.pool.leases == 0, within=2)
        assert (gateway.pool.open, gateway.pool.draining) == (1, 0)

    async def test_the_next_call_uses_the_new_configuration_at_once(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        for number in range(5):
            version = await gateway.serve(deployment=f"d{number}")
            answer = await ask(http)
            assert answer.headers["x-model-ledger-version"] == str(version)
            assert gateway.up.requests[-1].deployment == f"d{number}"


def test_the_routes_are_in_the_published_contract(gateway_server: ServedGateway) -> None:
    paths = gateway_server.app.openapi_schema.to_schema()["paths"]
    assert {path for path in paths if path.startswith("/v1")} == {
        "/v1/models",
        "/v1/models/{model_id}",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/responses",
    }
