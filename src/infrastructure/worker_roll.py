"""The roll of the workers: each writes down where it is, and reads where the others are."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import uuid4

import asyncpg

from application.workers import Workers, WorkerState, WorkerView
from domain.errors import StoreUnavailable
from infrastructure.database import LOST, Pool, borrowed, store_errors
from infrastructure.follower import Place

logger = logging.getLogger(__name__)

BEAT: Final = 3.0
"""Seconds between two signs of life, when nothing changes."""
PAUSE: Final = 0.1
"""Seconds between two of them at least, however much changes."""
SILENCE: Final = timedelta(seconds=10)
"""Who was silent for so long is not counted any more."""
FORGET: Final = timedelta(minutes=5)

TELL: Final = """
    INSERT INTO worker AS w (id, position, status, follower, degraded, started_at, seen_at)
    VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET (position, status, follower, degraded, seen_at)
        = ROW (excluded.position, excluded.status, excluded.follower, excluded.degraded, excluded.seen_at)
"""
LEAVE: Final = "DELETE FROM worker WHERE id = $1"
TIDY: Final = "DELETE FROM worker WHERE seen_at < now() - $1::interval"
ALL: Final = """
    SELECT h.position AS head, w.* FROM ledger_head h
    LEFT JOIN worker w ON w.seen_at > now() - $1::interval ORDER BY w.started_at, w.id
"""


class PostgresWorkerRoll:
    """See `WorkerRoll`."""

    def __init__(
        self, pool: Pool, state: Callable[[], WorkerState], moved: Callable[[Place], Awaitable[Place]]
    ) -> None:
        """`moved` waits until the ledger is followed to another place; see `Follower.moved`."""
        self._pool = pool
        self._state = state
        self._moved = moved
        self._id = uuid4()
        self._is_told = False

    async def workers(self) -> Workers:
        """See `WorkerRoll.workers`."""
        async with store_errors(), borrowed(self._pool) as connection:
            rows = await connection.fetch(ALL, SILENCE)
        found = [_view(row) for row in rows if row["id"] is not None]
        head = rows[0]["head"] if rows else 0
        return Workers(head, sum(each.position >= head for each in found), len(found), found)

    async def run(self) -> None:
        """Say where this worker is whenever that changes, and now and then, until cancelled."""
        place: Place = (0, 0)
        while True:
            try:
                await self._tell(self._state())
            except (*LOST, asyncpg.PostgresError, StoreUnavailable) as error:
                logger.debug("the roll of workers cannot be written (%s)", type(error).__name__)
            await asyncio.sleep(PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    place = await self._moved(place)

    async def leave(self) -> None:
        """Strike this worker off; who cannot is not counted after a while anyway."""
        if not self._is_told:
            return  # the database does not answer, and a stop must not wait for it
        with suppress(*LOST, asyncpg.PostgresError):
            async with asyncio.timeout(1), borrowed(self._pool) as connection:
                await connection.execute(LEAVE, self._id)

    async def _tell(self, state: WorkerState) -> None:
        self._is_told = False
        async with borrowed(self._pool) as connection:
            told = state.position, state.status, state.follower, state.degraded
            await connection.execute(TELL, self._id, *told)
            await connection.execute(TIDY, FORGET)
        self._is_told = True


def _view(row: asyncpg.Record) -> WorkerView:
    return WorkerView(
        row["position"],
        row["status"],
        row["follower"],
        row["degraded"],
        str(row["id"]),
        row["started_at"],
        row["seen_at"],
    )
