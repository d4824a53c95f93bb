"""The live feed: one reader of new entries for all who watch, in each worker."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import msgspec

from application.views import Entry, Views
from domain.errors import StoreUnavailable

KEPT: Final = 1_000
"""Entries kept in memory; who is further behind reads the ledger."""
BATCH: Final = 500
HEARTBEAT: Final = 15.0
"""Seconds of silence before a comment is sent, which keeps proxies from closing the connection."""
RETRY: Final = 1.0
"""Seconds between tries while the database is away."""


class Feed:
    """Entries as server-sent events, in the ledger's order, each exactly once."""

    def __init__(
        self, views: Views, advanced: Callable[[int], Awaitable[int]], heartbeat: float = HEARTBEAT
    ) -> None:
        """`advanced` waits until the ledger is beyond a position; see `Follower.advanced`."""
        self._views = views
        self._advanced = advanced
        self._heartbeat = heartbeat
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._position = 0
        self._news = asyncio.Event()
        self._closed = False

    async def run(self, position: int) -> None:
        """Read new entries from a position on, until cancelled."""
        self._position = position
        while True:
            try:
                head = await self._advanced(self._position)
                while self._position < head:
                    entries = await self._views.events_after(self._position, BATCH)
                    if not entries:  # the ledger went back
                        await asyncio.sleep(RETRY)
                        break
                    self._take(entries)
            except StoreUnavailable:
                await asyncio.sleep(RETRY)

    def close(self) -> None:
        """End every stream at once, so that a stop does not wait for who watches."""
        self._closed = True
        self._news.set()

    async def stream(self, after: int | None) -> AsyncIterator[bytes]:
        """Everything after a position (None: from now on), then what comes, with heartbeats."""
        # Taken before the first line is out: whoever has read it misses nothing from there on.
        position = self._position if after is None else after
        yield b"retry: 2000\n\n"
        try:
            async for message in self._messages(position):
                yield message
        except StoreUnavailable:
            return  # who watches comes back by itself, and resumes

    async def _messages(self, position: int) -> AsyncIterator[bytes]:
        if position > self._position and position > await self._views.head():
            # The ledger went back: a backup was restored, or its tail was lost. The id takes the place
            # of the one that the client holds, so that a reconnection does not skip what came since.
            position = self._position
            yield b"id: %d\nevent: reset\ndata: {}\n\n" % position
        while not self._closed:
            batch = await self._after(position)
            for at, message in batch:
                position = at
                yield message
            if not batch and not await self._wait(position):
                yield b": ping\n\n"

    def _take(self, entries: Sequence[Entry]) -> None:
        self._kept.extend((entry.position, _message(entry)) for entry in entries)
        self._position = entries[-1].position
        # Each piece of news has an event of its own, so that nobody has to clear it for the others.
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _after(self, position: int) -> list[tuple[int, bytes]]:
        if position >= self._position:
            return []
        if self._kept and position >= self._kept[0][0] - 1:
            return [kept for kept in self._kept if kept[0] > position]
        return [
            (entry.position, _message(entry)) for entry in await self._views.events_after(position, BATCH)
        ]

    async def _wait(self, position: int) -> bool:
        """Wait for news; False when there were none within the heartbeat."""
        if self._closed or self._position > position:
            return True
        try:
            async with asyncio.timeout(self._heartbeat):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


def _message(entry: Entry) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        entry.position,
        entry.type.encode(),
        msgspec.json.encode(entry),
    )
