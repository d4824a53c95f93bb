"""The follower: each worker's way to know what was committed.

    start ──> connect ──> LISTEN ──> snapshot ──> catch up ──> wait for the doorbell, or a second ──┐
      ▲                                              ▲────────────────────────────────────────────┘
      └── back off ◄── anything fails: the connection, a gap, a hash that does not fit

A notification is a doorbell: it carries nothing that is relied on, so that a lost, doubled or late one
cannot matter. Starting and catching up after an outage are one code path. Until the database is reached for
the first time something else may stand in for it; the ledger is then read anew, whatever that was.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Literal

import asyncpg

from infrastructure.database import LOST, READ_TIMEOUT, Connection, Database, NotPrepared
from infrastructure.live import Fold, LedgerMoved, Live, snapshot

logger = logging.getLogger(__name__)

CHANNEL: Final = "model_ledger"
POLL: Final = 1.0
"""Seconds; the longest that a lost notification delays a change, give or take the jitter."""
LONGEST_BACKOFF: Final = 3.0
BATCH: Final = 1_000

AFTER: Final = """
    SELECT h.epoch, h.position AS head_position, h.hash AS head_hash, e.position, e.stream, e.version, e.type,
        e.schema_version, e.body, e.recorded_at, e.prev_hash, e.hash
    FROM ledger_head h LEFT JOIN LATERAL (
        SELECT position, stream, version, type, schema_version, body::text AS body, recorded_at, prev_hash,
            hash
        FROM event WHERE position > $1 ORDER BY position LIMIT $2) AS e ON true
    ORDER BY e.position
"""

Subscriber = Callable[[Live], Awaitable[None]]
Reader = Callable[[Connection], Awaitable[None]]
StandIn = Callable[[], Live | None]
"""What to serve while the database was never reached; asked again after each try, None for nothing."""

Place = tuple[int, int]


class Follower:
    """Keeps `live` at the newest committed state, and tells its subscribers, in order, of each new one."""

    def __init__(
        self,
        database: Database,
        subscribers: Sequence[Subscriber],
        readers: Sequence[Reader] = (),
        stand_in: StandIn = lambda: None,
    ) -> None:
        """`readers` read what else a worker must know, at each round and in the same connection."""
        self._database = database
        self._subscribers = subscribers
        self._readers = readers
        self._stand_in = stand_in
        self._doorbell = asyncio.Event()
        self._moved = asyncio.Condition()
        self._nonce = ""
        self._lost_place = False
        self._history = 0
        self.live: Live | None = None
        self.reached = False
        """Whether `live` is the ledger's own state, and no stand-in's."""
        self.connected = False
        self.current_at: float | None = None
        """When `live` was last known to be the newest, by `time.monotonic`; None if it never was."""
        self.mode: Literal["listening", "polling"] = "polling"
        """`polling` where notifications do not come through, as behind a transaction pooler."""

    @property
    def position(self) -> int:
        """The last position that the subscribers know; 0 while there is none."""
        return self.live.position if self.live else 0

    @property
    def place(self) -> Place:
        """The history that is followed, counted from 1 at each snapshot or stand-in, and the position."""
        return self._history, self.position

    async def moved(self, place: Place) -> Place:
        """Wait until the ledger is followed to another place than that one; answers the new one."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.place != place)
            return self.place

    async def started(self) -> None:
        """Wait for the first snapshot, or for what stands in for it."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.live is not None)

    async def run(self) -> None:
        """Follow until cancelled. Never returns, never raises for a lost database."""
        failures = 0
        while True:
            try:
                async with self._listening() as connection:
                    await self._start(connection)
                    failures = 0
                    await self._follow(connection)
            except NotPrepared:
                failures = 1  # the next look costs nothing and is to come soon
            except LedgerMoved as error:
                logger.warning("%s; reading the ledger anew", error)
                self._lost_place = True
            except (*LOST, asyncpg.PostgresError) as error:
                if not failures:  # once, however long it takes
                    logger.warning("the follower lost the database (%s); trying again", type(error).__name__)
            except Exception:
                # A bug; but a worker that follows no more would serve the past for ever.
                logger.exception("the follower failed; reading the ledger anew")
                self._lost_place = True
            finally:
                self.connected = False
            if not self.reached:
                await self._make_do()
            failures += 1
            await asyncio.sleep(pause(failures))

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[Connection]:
        connection = await self._database.connect()
        try:
            self.mode = "polling"
            await connection.add_listener(CHANNEL, self._ring)
            connection.add_termination_listener(lambda _: self._doorbell.set())
            # A pooler in between takes LISTEN without an error and delivers nothing: try it out.
            self._nonce = f"nonce {secrets.token_hex(8)}"
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, self._nonce)
            yield connection
        finally:
            connection.terminate()  # never `close()`, which would wait for a dead server

    def _ring(self, _: object, __: int, ___: str, payload: object) -> None:
        if payload == self._nonce:
            self.mode = "listening"
        self._doorbell.set()

    async def _start(self, connection: Connection) -> None:
        """Take a snapshot, unless the place in the ledger's history is known; then read on from there."""
        await self._read(connection)
        if self.live is None or self._lost_place:
            looked_at = time.monotonic()
            live = await snapshot(connection)
            self._history += 1
            await self._publish(live)
            self._lost_place, self.reached, self.current_at = False, True, looked_at
        await self._catch_up(connection)
        self.connected = True

    async def _make_do(self) -> None:
        """Take what stands in for the ledger, or give it up."""
        try:
            live = self._stand_in()
            if live is not self.live:
                self._history += 1
                self._lost_place = True
                await self._publish(live)
        except Exception:
            logger.exception("what stands in for the ledger cannot be served")

    async def _follow(self, connection: Connection) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                    await self._doorbell.wait()
            self._doorbell.clear()
            await self._read(connection)
            await self._catch_up(connection)

    async def _read(self, connection: Connection) -> None:
        for reader in self._readers:
            await reader(connection)

    async def _catch_up(self, connection: Connection) -> None:
        """Apply everything after the own position. This read is also the heartbeat.

        Raises:
            LedgerMoved: the history that was followed is not the ledger's any more.
        """
        while live := self.live:
            rows = await connection.fetch(AFTER, live.position, BATCH, timeout=READ_TIMEOUT)
            if not rows or str(rows[0]["epoch"]) != live.epoch:
                raise LedgerMoved("the ledger has another epoch")
            if rows[0]["position"] is None:
                if (rows[0]["head_position"], rows[0]["head_hash"]) != (live.position, live.hash):
                    raise LedgerMoved("the ledger ends where it did not end before")
                self.current_at = time.monotonic()
                return
            fold = Fold(live)
            for row in rows:
                fold.follow(row)
            await self._publish(fold.live())

    async def _publish(self, live: Live | None) -> None:
        if live is not None:
            for subscriber in self._subscribers:
                await subscriber(live)
        async with self._moved:
            self.live = live
            self._moved.notify_all()


def pause(failures: int) -> float:
    """Seconds until the next try after so many failures in a row: ever longer, and never the same."""
    longest = min(LONGEST_BACKOFF, 0.1 * 2 ** min(failures, 10))
    return random.uniform(0.05, longest)  # noqa: S311 - jitter
