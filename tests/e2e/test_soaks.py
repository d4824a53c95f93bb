"""The gateway for longer, under change, among callers who leave, and full: nothing is cut or kept."""

import asyncio
import re
import statistics
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Final, Self

import pytest
from service import Api, Service
from soak import Caller, Streamed, callers, open_files, resident, worker
from upstream import Hang, ScriptedUpstream, Stream, wait_until
from waiting import eventually, ready, serves
from workers import connections_to

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")

EVERY: Final = 0.1
"""Seconds between two edits."""
CLIENTS: Final = re.compile(r'^model_ledger_clients\{state="(\w+)"\} (\S+)$', re.MULTILINE)
CHUNK_DELAY: Final = 0.25
"""Seconds between two chunks of a stream that lasts."""


def long(*sizes: object) -> object:
    """Sizes of the soak; those beside it are of its short form."""
    return pytest.param(*sizes, marks=pytest.mark.long)


def api_version(version: int) -> str:
    """What a model's configuration names in a version of it, so that its calls tell."""
    return (date(2020, 1, 1) + timedelta(version)).isoformat()


@pytest.fixture
async def soaked(fresh_service: Service) -> AsyncIterator["Soaked"]:
    """A service of one worker with one model, which is the only one that calls the upstream."""
    async with fresh_service.api() as api:
        await remove(api, "first")
        yield await Soaked(api, await api.create(credential=None, api_version=api_version(1))).begun()


class Soaked:
    """The service that is soaked, seen from outside."""

    def __init__(self, api: Api, model_id: str) -> None:
        self.api = api
        self.service = api.service
        self.model_id = model_id
        self.version = 1
        self.pid = worker(self.service)

    async def begun(self) -> Self:
        """Once the model can be called; it was not called yet."""
        await eventually(self._is_listed)
        self._files = self.own_files()
        return self

    def own_files(self) -> int:
        """Open files and sockets but for the connections to the provider."""
        return open_files(self.pid) - self.connections()

    def connections(self) -> int:
        """To the provider."""
        assert self.service.upstream is not None
        return connections_to(self.service, int(self.service.upstream.origin.rpartition(":")[2]))

    async def edit(self) -> int:
        """Change the model so that it needs another client; the position of that."""
        self.version += 1
        answer = await self.api.update(self.model_id, credential=None, api_version=api_version(self.version))
        assert answer.status_code == 200, answer.text
        receipt = answer.json()
        assert receipt["version"] == self.version
        return int(receipt["position"])

    async def clients(self) -> Mapping[str, int]:
        """Clients of the pool by state, as its metrics tell."""
        answer = await self.api.http.get("/metrics")
        assert answer.status_code == 200, answer.text
        return {state: int(float(count)) for state, count in CLIENTS.findall(answer.text)}

    async def is_drained(self) -> bool:
        """Whether the current client is the only one."""
        return await self.clients() == {"active": 1, "draining": 0}

    async def is_current(self) -> bool:
        """Whether a call is answered by the newest version."""
        return await serves(self.api, self.model_id, self.version)

    async def end(self) -> None:
        """Delete the model: with its last call every connection closes, and nothing is left of it."""
        await eventually(self.is_drained)
        await remove(self.api, self.model_id)
        await eventually(lambda: serves(self.api, self.model_id, None))
        await wait_until(lambda: self.connections() == 0, within=3)
        await wait_until(lambda: open_files(self.pid) <= self._files + 5, within=3)

    async def _is_listed(self) -> bool:
        return (await self.api.http.get(f"/v1/models/{self.model_id}")).status_code == 200


async def remove(api: Api, model_id: str) -> None:
    """Delete a model that may be the default."""
    await api.http.put("/api/config/default", json={"model_id": None})
    answer = await api.delete(model_id)
    assert answer.status_code == 200, answer.text


# Streams, while their model changes.


@pytest.mark.parametrize(("seconds", "chunks"), [(2, 6), long(30, 20)])
async def test_two_hundred_streams_outlive_an_edit_every_tenth_of_a_second(
    soaked: Soaked, upstream: ScriptedUpstream, seconds: int, chunks: int
) -> None:
    upstream.stream_chunks, upstream.chunk_delay = chunks, CHUNK_DELAY
    async with callers(soaked.service, 200) as everyone:
        over, apart = asyncio.Event(), chunks * CHUNK_DELAY / len(everyone)
        streaming = [
            asyncio.create_task(keep_streaming(each, soaked.model_id, number * apart, over))
            for number, each in enumerate(everyone)
        ]
        await wait_until(lambda: upstream.live == len(everyone), within=15)
        lags = await edit_meanwhile(soaked, round(seconds / EVERY))
        over.set()
        streams = [each for those in await asyncio.gather(*streaming) for each in those]
    assert statistics.median(lags) < 0.1, "a change is in use at once"
    assert_complete(streams, soaked.model_id, chunks)
    assert len({each.version for each in streams}) > seconds, "they began all along"
    assert upstream.aborted == 0
    await soaked.end()


async def keep_streaming(caller: Caller, model_id: str, after: float, over: asyncio.Event) -> list[Streamed]:
    """One stream after the other; the callers begin in turn, so that some stream begins at any time."""
    await asyncio.sleep(after)
    streams = []
    while not over.is_set():
        streams.append(await caller.stream(model_id))
    return streams


async def edit_meanwhile(soaked: Soaked, count: int) -> list[float]:
    """Edit so many times; seconds from each receipt to the first call that its version answered."""
    clock = asyncio.get_running_loop().time
    lags = []
    for _ in range(count):
        due = clock() + EVERY
        await soaked.edit()
        lags.append(await eventually(soaked.is_current))
        assert (await soaked.clients())["draining"] > 0, "streams keep their clients"
        await asyncio.sleep(max(0.0, due - clock()))
    return lags


def assert_complete(streams: Sequence[Streamed], model_id: str, chunks: int) -> None:
    """Each says all that its own version of the configuration has to say."""
    rest = "".join(f" {number}" for number in range(2, chunks + 1))
    for each in streams:
        echo = f"deployment={model_id} api-version={api_version(each.version)} key=none"
        assert each == Streamed(each.version, echo + rest, "stop", done=True)


# Changes, and nothing else.


@pytest.mark.parametrize("count", [300, long(10_000)])
async def test_refreshes_leave_nothing_behind(soaked: Soaked, upstream: ScriptedUpstream, count: int) -> None:
    await refresh(soaked, max(count // 10, 200))
    files, memory = soaked.own_files(), resident(soaked.pid)
    await refresh(soaked, count)
    assert abs(soaked.own_files() - files) <= 5
    assert soaked.connections() <= 1
    assert await soaked.is_drained()
    grown = resident(soaked.pid) - memory
    sys.stdout.write(f"{count} refreshes took {grown} kB\n")
    assert grown <= 10_000, "kB"
    assert (upstream.aborted, upstream.live) == (0, 0)
    await soaked.end()


async def refresh(soaked: Soaked, count: int) -> None:
    """Edit so often, each time until it is in use; every tenth version answers a call."""
    for number in range(count):
        position = await soaked.edit()
        while (await ready(soaked.api))["position"] < position:
            pass  # each edit is a refresh of its own, none is passed over
        assert number % 10 or await soaked.is_current()


# Callers who leave.


@pytest.mark.parametrize(("aborted", "good"), [(100, 50), long(5_000, 1_000)])
async def test_streams_that_are_left_end_upstream_and_hinder_nobody(
    soaked: Soaked, upstream: ScriptedUpstream, aborted: int, good: int
) -> None:
    for _ in range(0, aborted, 50):
        await leave(soaked.service, upstream, soaked.model_id, count=50)
    assert (upstream.started, upstream.aborted) == (aborted, aborted)
    assert soaked.connections() == 0
    upstream.stream_chunks = 3
    streams = await stream_many(soaked.service, soaked.model_id, good)
    assert len(streams) == good
    assert_complete(streams, soaked.model_id, chunks=3)
    await wait_until(lambda: upstream.finished == good, within=1)
    assert upstream.aborted == aborted
    await soaked.end()


async def leave(service: Service, upstream: ScriptedUpstream, model_id: str, count: int) -> None:
    """Begin calls, most of them streams that have sent something, and leave them all at once."""
    before = upstream.aborted
    waiting = count // 10
    async with callers(service, count) as everyone:
        upstream.script(*[Hang()] * waiting, deployment=model_id)
        for number, each in enumerate(everyone[:waiting]):
            await each.begin(model_id, stream=number % 2 == 0)
        await wait_until(lambda: upstream.live == waiting, within=5)
        upstream.script(*[Stream(["a", "b"], delay=60)] * (count - waiting), deployment=model_id)
        for each in everyone[waiting:]:
            await each.begin(model_id)
        for each in everyone[waiting:]:
            await each.head()
            while b'"a"' not in await each.chunk():
                pass
    await wait_until(lambda: upstream.aborted == before + count, within=1)


async def stream_many(service: Service, model_id: str, count: int) -> list[Streamed]:
    """That many whole streams, by 16 callers."""
    left = iter(range(count))

    async def stream(one: Caller) -> list[Streamed]:
        return [await one.stream(model_id) for _ in left]

    async with callers(service, 16) as everyone:
        return [each for those in await asyncio.gather(*map(stream, everyone)) for each in those]


# Many at once.


@pytest.mark.parametrize(("count", "chunks"), [(200, 4), long(1_000, 30)])
async def test_slow_streams_on_one_worker_all_come_to_their_end(
    soaked: Soaked, upstream: ScriptedUpstream, count: int, chunks: int
) -> None:
    upstream.stream_chunks = 3
    await stream_many(soaked.service, soaked.model_id, 50)
    before = resident(soaked.pid)
    upstream.stream_chunks, upstream.chunk_delay = chunks, 2 * CHUNK_DELAY
    async with callers(soaked.service, count) as everyone:
        streaming = [asyncio.create_task(each.stream(soaked.model_id)) for each in everyone]
        await wait_until(lambda: upstream.live == count, within=15)
        each_takes = (resident(soaked.pid) - before) / count
        streams = await asyncio.gather(*streaming)
    sys.stdout.write(f"{count} streams took {each_takes:.1f} kB each\n")
    assert each_takes < 100, "kB"
    assert_complete(streams, soaked.model_id, chunks)
    assert upstream.aborted == 0
    await soaked.end()
