"""What is told of calls: their records, and their traces."""

import json
from collections.abc import Mapping
from typing import Final

import httpx2
import pytest
from served_gateway import EVENTS, HELLO, ServedGateway, ask, error_of, post
from upstream import CutMidStream, Raw, Reply, Status, Step

from application.ports import CallRecord, LiveModel, Operation
from application.telemetry import Answered, TraceContext

ODD: Final = {"content-type": "text/plain", "content-encoding": "gzip"}
"""Headers of an answer that are not those of the error that takes its place."""
PARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def http(gateway_http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return gateway_http


class TestRecords:
    @pytest.mark.parametrize(
        ("step", "stream", "status", "error"),
        [
            (Raw(200, ODD, b"x" * 70_000_000), False, 502, "too_large"),
            (Raw(200, {**EVENTS, "content-encoding": "gzip"}, b"x"), True, 502, "broken"),
            (Raw(307, {"location": "http://x/"}, b""), False, 502, "http_307"),
            (CutMidStream(), False, 502, "broken"),
        ],
    )
    async def test_each_has_its_word(
        self,
        gateway: ServedGateway,
        http: httpx2.AsyncClient,
        step: Step,
        stream: object,
        status: int,
        error: str,
    ) -> None:
        gateway.up.script(step)
        answer = await ask(http, stream=stream)
        assert answer.status_code == status
        assert error_of(answer)["type"] == "server_error"
        (record,) = await gateway.recorded()
        assert (record.status, record.error) == (status, error)

    @pytest.mark.parametrize(
        "body",
        [b"{", b'{"model":"gpt-4"}', json.dumps({"model": "unknown", "messages": HELLO}).encode()],
    )
    async def test_a_request_that_reaches_no_model_has_no_record(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, body: bytes
    ) -> None:
        assert (await post(http, body)).status_code in {400, 404}
        assert (await ask(http)).status_code == 200
        assert [record.status for record in await gateway.recorded()] == [200]

    async def test_a_stream_that_breaks_was_begun(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        gateway.up.script(CutMidStream())
        await ask(http, stream=True)
        (record,) = await gateway.recorded()
        assert (record.status, record.error, record.tokens) == (502, "broken", None)
        assert record.first_byte is not None

    async def test_a_streams_tokens_are_known_when_it_tells_them(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        gateway.up.script(Reply("one two"), Reply("one two"))
        await ask(http, stream=True, stream_options={"include_usage": True})
        await ask(http, stream=True)
        told, untold = await gateway.recorded(2)
        assert (told.tokens and told.tokens.output, untold.tokens) == (2, None)


class Remembered:
    """A trace that remembers its end, and the traces that begin it."""

    headers: Mapping[str, str] = {"traceparent": PARENT.replace("b7ad", "ffff")}

    def __init__(self, *, detailed: bool) -> None:
        self.detailed = detailed
        self.begun: list[tuple[Operation, str, TraceContext | None]] = []
        self.ended: list[tuple[CallRecord, Answered | None]] = []

    def begin(self, operation: Operation, model: LiveModel, incoming: TraceContext | None) -> "Remembered":
        self.begun.append((operation, model.model_id, incoming))
        return self

    def end(self, call: CallRecord, answered: Answered | None = None) -> None:
        self.ended.append((call, answered))


class TestTraces:
    async def test_without_a_tracer_the_callers_context_goes_on_as_it_came(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        body = json.dumps({"model": "gpt-4", "messages": HELLO}).encode()
        await post(http, body, traceparent=PARENT, tracestate="a=1")
        await post(http, body, traceparent="nonsense")
        first, second = gateway.up.requests
        assert (first.headers["traceparent"], first.headers["tracestate"]) == (PARENT, "a=1")
        assert "traceparent" not in second.headers

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_tracer_is_told_of_each_call_and_its_headers_reach_the_provider(
        self, gateway: ServedGateway, http: httpx2.AsyncClient, stream: object
    ) -> None:
        gateway.gateway.traces = traces = Remembered(detailed=True)
        gateway.up.script(Reply("hello"))
        body = json.dumps({"model": "gpt-4", "messages": HELLO, "stream": stream}).encode()
        await post(http, body, traceparent=PARENT)
        (record,) = await gateway.recorded()
        assert traces.begun == [("chat", "gpt-4", TraceContext(PARENT))]
        ((ended, answered),) = traces.ended
        assert ended is record
        assert answered is not None
        assert (answered.model, answered.finish_reasons) == ("demo-upstream", ("stop",))
        assert answered.id is not None
        assert gateway.up.requests[0].headers["traceparent"] == traces.headers["traceparent"]

    async def test_what_a_provider_says_of_itself_is_read_for_those_who_ask(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        gateway.gateway.traces = traces = Remembered(detailed=False)
        gateway.up.script(Status(400))
        await ask(http)
        ((ended, answered),) = traces.ended
        assert (ended.status, answered) == (400, None)
