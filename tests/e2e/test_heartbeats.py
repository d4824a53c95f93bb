"""Streams on which nothing happens for a while: comments keep them open, and change nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event
from typing import Any, Final

import httpx2
import pytest
from openai import AsyncOpenAI
from served_gateway import HELLO, ServedGateway
from upstream import Pieces, Stream, wait_until

from infrastructure import connections
from web.gateway.event_streams import PING

EVENT: Final = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
DONE: Final = b"data: [DONE]\n\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENCE", 0.03)


@pytest.fixture
async def http(gateway_http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return gateway_http


class Reader:
    """What has come of a stream so far."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer
        self.got = b""
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for chunk in self._answer.aiter_raw():
            self.got += chunk


@asynccontextmanager
async def reading(http: httpx2.AsyncClient, **fields: Any) -> AsyncIterator[Reader]:
    body = {"model": "gpt-4", "messages": HELLO, "stream": True, **fields}
    async with http.stream("POST", "/chat/completions", json=body) as answer:
        reader = Reader(answer)
        try:
            yield reader
        finally:
            await reader.reading


async def silence(gateway: ServedGateway, http: httpx2.AsyncClient, hold: Event) -> None:
    """Set `hold` when the one call that is live was silent for a while, as another stream tells."""
    await wait_until(lambda: gateway.up.live == 1, within=2)
    gateway.up.script(Pieces([EVENT, DONE], hold))
    async with reading(http) as other:
        await wait_until(lambda: other.got.partition(EVENT)[2].count(PING) >= 5, within=2)
        hold.set()


@pytest.mark.parametrize("begin", [EVENT, EVENT.replace(b"\n", b"\r\n"), b": hello\n\n"])
async def test_between_events_a_silence_is_told_by_comments(
    gateway: ServedGateway, http: httpx2.AsyncClient, begin: bytes
) -> None:
    hold = Event()
    gateway.up.script(Pieces([begin, EVENT, DONE], hold))
    async with reading(http) as reader:
        await wait_until(lambda: reader.got.partition(begin)[2].count(PING) >= 3, within=2)
        hold.set()
    assert reader.got.replace(PING, b"") == begin + EVENT + DONE
    assert all(part.endswith((b"\n\n", b"\r\n\r\n")) for part in reader.got.split(PING) if part)


async def test_before_the_first_event_too(gateway: ServedGateway, http: httpx2.AsyncClient) -> None:
    hold = Event()
    gateway.up.script(Pieces([b"", EVENT, DONE], hold))
    async with reading(http) as reader:
        await wait_until(lambda: reader.got.count(PING) >= 3, within=2)
        hold.set()
    assert reader.got.endswith(PING + EVENT + DONE)


@pytest.mark.parametrize(
    ("begin", "end"), [(EVENT[:-1], b"\n"), (EVENT[:20], EVENT[20:]), (b"event: x\n", EVENT)]
)
async def test_within_an_event_nothing_is_said(
    gateway: ServedGateway, http: httpx2.AsyncClient, begin: bytes, end: bytes
) -> None:
    hold = Event()
    gateway.up.script(Pieces([begin, end + DONE], hold))
    async with reading(http) as within:
        await silence(gateway, http, hold)
    assert within.got.removeprefix(PING * within.got.count(PING)) == begin + end + DONE


async def test_comments_make_no_stream_complete(gateway: ServedGateway, http: httpx2.AsyncClient) -> None:
    hold = Event()
    gateway.up.script(Pieces([EVENT, b""], hold))
    async with reading(http) as reader:
        await wait_until(lambda: PING in reader.got, within=2)
        hold.set()
    assert b'"code":"provider_broken"' in reader.got
    (record,) = await gateway.recorded()
    assert (record.status, record.error) == (502, "broken")


async def test_the_sdk_reads_over_them(
    gateway: ServedGateway, http: httpx2.AsyncClient, gateway_sdk: AsyncOpenAI
) -> None:
    hold = Event()
    gateway.up.script(Stream(["hello ", "to ", "you"], delay=0, hold=hold))
    async with gateway_sdk.responses.stream(model="gpt-4", input="hello") as stream:
        await silence(gateway, http, hold)
        assert (await stream.get_final_response()).output_text == "hello to you"


async def test_an_answer_that_is_no_stream_is_left_alone(
    gateway: ServedGateway, http: httpx2.AsyncClient
) -> None:
    hold = Event()
    body = b'{"choices":[]}'
    gateway.up.script(Pieces([body[:5], body[5:]], hold))
    asking = asyncio.create_task(http.post("/chat/completions", json={"model": "gpt-4", "messages": HELLO}))
    await silence(gateway, http, hold)
    assert (await asking).content == body
