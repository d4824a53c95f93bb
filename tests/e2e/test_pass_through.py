"""What the gateway does not know it does not touch: exchanges as providers have them, byte for byte.

`golden/NAME.request.json` goes in; `golden/NAME.answer.json` or, for a stream, `.answer.sse` is what the
provider answers, and what has to come out.
"""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, overload

import httpx2
import msgspec
import pytest
from msgspec import Raw as RawJson
from msgspec.structs import replace
from openai import AsyncOpenAI
from pydantic import BaseModel
from served_gateway import EVENTS, HELLO, JSON, ServedGateway, ask, error_of, post
from upstream import Raw, Stream, wait_until

from application.ports import Tokens
from web.gateway.routes import BODY_LIMIT

GOLDEN: Final = Path(__file__).parent / "golden"
NAMES: Final = sorted(path.name.partition(".")[0] for path in GOLDEN.glob("*.request.json"))
PATHS: Final = {"chat": "/chat/completions", "embeddings": "/embeddings", "responses": "/responses"}


def request_of(name: str) -> bytes:
    return (GOLDEN / f"{name}.request.json").read_bytes()


def answer_of(name: str) -> Raw:
    stream = GOLDEN / f"{name}.answer.sse"
    if stream.exists():
        return Raw(200, EVENTS, stream.read_bytes())
    return Raw(200, JSON, (GOLDEN / f"{name}.answer.json").read_bytes())


def fields(body: bytes) -> list[tuple[str, bytes]]:
    """The top-level fields in their order, each as its bytes."""
    return [
        (name, bytes(value)) for name, value in msgspec.json.decode(body, type=dict[str, RawJson]).items()
    ]


@pytest.mark.parametrize("kind", ["config", "v1", "compatible"])
@pytest.mark.parametrize("name", NAMES)
async def test_an_exchange_passes_byte_for_byte(
    gateway: ServedGateway, gateway_http: httpx2.AsyncClient, name: str, kind: str
) -> None:
    await gateway.serve({"gpt-4": getattr(gateway, kind)})
    sent, answer = request_of(name), answer_of(name)
    gateway.up.script(answer)
    got = await post(gateway_http, sent, PATHS[name.partition("-")[0]])
    assert got.content == answer.body
    assert "x-model-ledger-adjusted" not in got.headers
    (request,) = gateway.up.requests
    passed = fields(request.body)
    assert passed == [(field, b'"prod"' if field == "model" else value) for field, value in fields(sent)]
    (record,) = await gateway.recorded()
    assert (record.status, record.error) == (200, None)


def test_there_is_an_exchange_for_each_thing_that_may_break() -> None:
    assert len(NAMES) > 20
    for things in ("tool-calls", "images", "structured", "reasoning", "unknown"):
        assert {f"chat-{things}", f"responses-{things}"} <= {*NAMES}


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("chat-tool-calls", Tokens(82, 17)),
        ("chat-tool-calls-stream", Tokens(82, 17)),
        ("chat-structured-stream", None),
        ("embeddings-texts", Tokens(5, 0)),
        ("responses-tool-calls", Tokens(82, 17)),
        ("responses-reasoning-stream", Tokens(82, 17)),
        ("responses-unknown", None),
    ],
)
async def test_what_was_used_is_read_from_it(
    gateway: ServedGateway, gateway_http: httpx2.AsyncClient, name: str, tokens: Tokens | None
) -> None:
    gateway.up.script(answer_of(name))
    await post(gateway_http, request_of(name), PATHS[name.partition("-")[0]])
    (record,) = await gateway.recorded()
    assert record.tokens == tokens


class Weather(BaseModel):
    city: str
    degrees: float


async def test_the_sdk_puts_a_chats_tool_calls_together(
    gateway: ServedGateway, gateway_sdk: AsyncOpenAI
) -> None:
    gateway.up.script(answer_of("chat-tool-calls-stream"))
    async with gateway_sdk.chat.completions.stream(model="gpt-4", messages=HELLO) as stream:  # type: ignore[arg-type]
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.arguments for call in calls] == ['{"city":"Bern"}', '{"city":"Z\u00fcrich"}']


async def test_the_sdk_parses_a_structured_answer_of_each_api(
    gateway: ServedGateway, gateway_sdk: AsyncOpenAI
) -> None:
    bern = Weather(city="Bern", degrees=21.5)
    gateway.up.script(*map(answer_of, ("chat-structured", "responses-structured-stream")))
    chat = await gateway_sdk.chat.completions.parse(
        model="gpt-4",
        messages=HELLO,  # type: ignore[arg-type]
        response_format=Weather,
    )
    assert chat.choices[0].message.parsed == bern
    async with gateway_sdk.responses.stream(model="gpt-4", input="x", text_format=Weather) as stream:
        assert (await stream.get_final_response()).output_parsed == bern


# Sizes and speeds.


@pytest.mark.parametrize("path", PATHS.values())
async def test_a_body_above_the_limit_is_refused(
    gateway: ServedGateway, gateway_http: httpx2.AsyncClient, path: str
) -> None:
    answer = await post(gateway_http, b" " * (BODY_LIMIT + 1), path)
    assert (answer.status_code, error_of(answer)["type"]) == (413, "invalid_request_error")
    assert gateway.up.requests == []


class Counted(Sequence[str]):
    """Chunks that count how many of them were taken."""

    def __init__(self, chunk: str, number: int) -> None:
        self._chunk = chunk
        self._number = number
        self.taken = 0

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice) or index >= self._number:
            raise IndexError
        self.taken = max(self.taken, index + 1)
        return self._chunk


async def test_a_reader_of_a_byte_at_a_time_holds_up_its_own_provider_and_nobody_else(
    gateway: ServedGateway, gateway_http: httpx2.AsyncClient
) -> None:
    await gateway.serve(base_timeout=60, max_timeout=60)
    chunks = Counted("x" * 100_000, 2_000)
    gateway.up.script(Stream(chunks, delay=0))
    loop = asyncio.get_running_loop()
    body = b'{"model":"gpt-4","messages":[1],"stream":true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    url = httpx2.URL(gateway.url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
        slow.settimeout(0)
        await loop.sock_connect(slow, (url.host, url.port))
        await loop.sock_sendall(slow, head + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert await loop.sock_recv(slow, 1) == b"H"
        # It stands still when ten calls of others in a row find it where it was.
        still, taken = 0, 0
        async with asyncio.timeout(10):
            while still < 10:
                assert (await ask(gateway_http, stream=True)).content.endswith(b"[DONE]\n\n")
                assert len(await loop.sock_recv(slow, 1)) == 1
                still, taken = (still + 1 if taken == chunks.taken else 0), chunks.taken
        # What the sockets' buffers hold, and no more.
        assert 0 < chunks.taken < 300
        assert (gateway.up.live, gateway.pool.leases) == (1, 1)
    await wait_until(lambda: gateway.up.aborted == 1, within=1)
    record = (await gateway.recorded(len(gateway.up.requests)))[-1]
    assert (record.status, record.error) == (499, "left")


async def test_a_fast_reader_gets_the_same_stream_to_its_end(
    gateway: ServedGateway, gateway_http: httpx2.AsyncClient
) -> None:
    await gateway.serve({"gpt-4": replace(gateway.config, base_timeout=60, max_timeout=60)})
    chunks = Counted("x" * 100_000, 200)
    gateway.up.script(Stream(chunks, delay=0))
    answer = await ask(gateway_http, stream=True)
    assert answer.content.endswith(b"[DONE]\n\n")
    assert chunks.taken == 200
    assert answer.content.count(b"x" * 100_000) == 200
