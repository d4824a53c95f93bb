"""The live feed: one reader of new entries for all who watch, in each worker."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
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

Place = tuple[int, int]
"""Which history of the ledger, and the position in it."""


class Feed:
    """Entries as server-sent events, in the ledger's order, each exactly once."""

    def __init__(
        self, views: Views, moved: Callable[[Place], Awaitable[Place]], heartbeat: float = HEARTBEAT
    ) -> None:
        """`moved` waits until the ledger is followed to another place; see `Follower.moved`."""
        self._views = views
        self._moved = moved
        self._heartbeat = heartbeat
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._history, self._position = 0, 0
        self._news = asyncio.Event()
        self._closed = False

    async def run(self, place: Place) -> None:
        """Read new entries from a place on, until cancelled."""
        self._history, self._position = place
        while True:
            try:
                history, head = await self._moved(place)
                if history != self._history:
                    self._begin(history, head)
                while self._position < head:
                    entries = await self._views.events_after(self._position, BATCH)
                    if not entries:
                        break  # the ledger went back meanwhile, and will be followed to there
                    self._take(entries)
                place = history, head
            except StoreUnavailable:
                await asyncio.sleep(RETRY)

    def close(self) -> None:
        """End every stream at once, so that a stop does not wait for who watches."""
        self._closed = True
        self._news.set()

    async def stream(self, after: int | None) -> AsyncGenerator[bytes]:
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
        history = self._history
        is_ahead = position > self._position and position > await self._views.head()
        while not self._closed:
            if is_ahead or history != self._history:
                # The ledger went back: a backup was restored, or its tail was lost. The id takes the place
                # of the one that the client holds, so that a reconnection does not skip what came since.
                is_ahead, history, position = False, self._history, self._position
                yield b"id: %d\nevent: reset\ndata: {}\n\n" % position
            batch = await self._after(position)
            for at, message in batch:
                position = at
                yield message
            if not batch and not await self._wait(history, position):
                yield b": ping\n\n"

    def _begin(self, history: int, position: int) -> None:
        """Go on in another history; who watches is told to begin anew."""
        self._kept.clear()
        self._history, self._position = history, position
        self._ring()

    def _take(self, entries: Sequence[Entry]) -> None:
        self._kept.extend((entry.position, _message(entry)) for entry in entries)
        self._position = entries[-1].position
        self._ring()

    def _ring(self) -> None:
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

    async def _wait(self, history: int, position: int) -> bool:
        """Wait for news; False when there were none within the heartbeat."""
        if self._closed or self._history != history or self._position > position:
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
