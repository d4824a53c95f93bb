"""The signal to stop: what is under way is finished or told, nothing new begins, and the end is bounded."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from threading import Event
from typing import Any

import httpx2
import pytest
from service import Api, Databases, Service, running
from upstream import Hang, ScriptedUpstream, Stream, wait_until
from workers import children, each_worker, is_running, workers

MODEL = "first"


@contextmanager
def service_that_waits(
    databases: Databases,
    name: str,
    upstream: ScriptedUpstream,
    *,
    workers: int = 1,
    delay: int = 0,
    drain: int = 20,
) -> Iterator[Service]:
    patience = {"MODEL_LEDGER_STOP_DELAY_SECONDS": str(delay), "MODEL_LEDGER_DRAIN_SECONDS": str(drain)}
    with running(databases, name, upstream, workers=workers, **patience) as service:
        yield service


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **more}


async def streamed(api: Api) -> list[str]:
    """The lines of a stream, to whatever end."""
    request = api.http.stream("POST", "/v1/chat/completions", json=body(stream=True))
    async with request as answer:
        assert answer.status_code == 200
        return [line async for line in answer.aiter_lines() if line]


async def stops(service: Service, *, within: float) -> int:
    """Its exit code, in time."""
    began = time.monotonic()
    code = await asyncio.to_thread(service.process.wait, 30)
    assert time.monotonic() - began < within
    return code


def refuses(service: Service) -> bool:
    """Whether nobody listens any more; a connection that is only kept waiting does not count."""
    try:
        socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=1).close()
    except ConnectionError:
        return True
    return False


async def test_streams_under_way_are_finished_and_nothing_new_begins(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with service_that_waits(databases, database, upstream, workers=2) as service:
        async with service.api(limits=httpx2.Limits(max_connections=None)) as api:
            await allow_streams(service)
            words = [f"word {number} " for number in range(20)]
            upstream.script(*[Stream(words, delay=0.1)] * 30)
            streams = [asyncio.create_task(streamed(api)) for _ in range(30)]
            await wait_until(lambda: upstream.live == 30, within=10)
            service.process.send_signal(signal.SIGTERM)
            await wait_until(lambda: refuses(service), within=1.5)
            assert upstream.live == 30
            for lines in await asyncio.gather(*streams):
                assert lines[-1] == "data: [DONE]"
                assert sum("word" in line for line in lines) == 20
        assert await stops(service, within=2) == 0
    assert upstream.aborted == 0


async def allow_streams(service: Service) -> None:
    """The model that the environment makes has none; all workers know when this returns."""
    async with each_worker(service) as found:
        api, *_ = found.values()
        assert (await api.patch(MODEL, supports_streaming=True)).status_code == 200
        deadline = time.monotonic() + 5
        for api in found.values():
            while (await api.chat(MODEL)).headers["x-model-ledger-version"] != "2":
                assert time.monotonic() < deadline


async def test_what_does_not_end_in_time_is_told_so(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with service_that_waits(databases, database, upstream, drain=1) as service:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(service.api())
            await allow_streams(service)
            upstream.script(Stream(["a ", "b "], hold=Event()))
            endless = asyncio.create_task(streamed(api))
            await wait_until(lambda: upstream.live == 1, within=5)
            upstream.script(Hang())
            hanging = asyncio.create_task(api.http.post("/v1/chat/completions", json=body()))
            await wait_until(lambda: upstream.live == 2, within=5)
            watched = await stack.enter_async_context(api.http.stream("GET", "/api/config/events/stream"))
            service.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert "retry: 2000" in [line async for line in watched.aiter_lines()]
            assert time.monotonic() - began < 0.8, "whoever only watches is sent away at once"
            told = await hanging
            assert 0.9 < time.monotonic() - began < 2
            assert (told.status_code, told.json()["error"]["code"]) == (503, "server_stopping")
            assert told.headers["x-model-ledger-model"] == MODEL
            *lines, last = await endless
            assert "a " in lines[-1]
            assert '"code":"server_stopping"' in last
            assert last.startswith('data: {"error":{')
            assert await stops(service, within=2) == 0
            assert time.monotonic() - began < 3
        assert "Traceback" not in service.said()
    assert upstream.aborted == 2


async def test_while_load_balancers_have_time_to_notice_everything_is_served(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with service_that_waits(databases, database, upstream, workers=2, delay=2) as service:
        async with service.api() as kept:
            assert (await kept.http.get("/readyz")).status_code == 200
            service.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            await is_stopping(kept)
            async with service.api() as new:
                for api in (kept, new):
                    answer = await api.http.get("/readyz")
                    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
                    assert (await api.chat(MODEL)).status_code == 200
                    assert (await api.patch(MODEL, base_timeout=100)).status_code == 200
            assert time.monotonic() - began < 2, "else nothing was shown"
            await wait_until(lambda: refuses(service), within=3)
            assert time.monotonic() - began > 1.9
        assert await stops(service, within=2) == 0


async def is_stopping(api: Api) -> None:
    deadline = time.monotonic() + 1
    while (await api.http.get("/readyz")).status_code == 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(("count", "delay"), [(1, 60), (2, 0)])
async def test_whoever_asks_twice_has_no_patience(
    databases: Databases, database: str, upstream: ScriptedUpstream, count: int, delay: int
) -> None:
    upstream.script(Hang())
    with service_that_waits(databases, database, upstream, workers=count, delay=delay) as service:
        async with service.api() as api, service.api() as other:
            hanging = asyncio.create_task(api.http.post("/v1/chat/completions", json=body()))
            await wait_until(lambda: upstream.live == 1, within=5)
            service.process.send_signal(signal.SIGINT)
            if delay:
                await is_stopping(other)
            else:
                await wait_until(lambda: refuses(service), within=2)
            everyone = {service.process.pid, *children(service.process.pid)}
            service.process.send_signal(signal.SIGINT)
            await stops(service, within=3)
            outcome: Any
            (outcome,) = await asyncio.gather(hanging, return_exceptions=True)
            if count == 1:
                assert outcome.status_code in {500, 503}, "on a busy machine it may be too late to tell"
            else:
                assert isinstance(outcome, httpx2.TransportError)
    await wait_until(lambda: not any(is_running(pid) for pid in everyone), within=5)


async def test_a_worker_that_does_not_end_is_ended(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with service_that_waits(databases, database, upstream, workers=2, drain=0) as service:
        stuck = min(workers(service))
        os.kill(stuck, signal.SIGSTOP)
        service.process.send_signal(signal.SIGTERM)
        assert await stops(service, within=9) == 0
    assert not is_running(stuck)
