"""The queue between calls and their records: bounded, written in batches, and nobody waits for it."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from application.ports import CallRecord
from domain.errors import StoreUnavailable
from infrastructure.follower import pause

logger = logging.getLogger(__name__)

CAPACITY: Final = 10_000
"""Records that wait; at a hundred calls a second, those of an outage of more than a minute and a half."""
BATCH: Final = 500
PERIOD: Final = 1.0
"""Seconds that a record waits at most for others to be written with."""
LAST_WRITE: Final = 2.0
"""Seconds that a stop waits for the records that are left."""
QUIET: Final = 60.0
"""Seconds between two lines of the log about dropped records."""

Write = Callable[[int, Sequence[CallRecord]], Awaitable[None]]
"""Writes a batch under its number: once, however often it is asked to.

Raises `StoreUnavailable` if it is worth trying again.
"""


class UsageLog:
    """Takes records at once and has them written a little later; see `CallLog`."""

    def __init__(
        self,
        write: Write,
        *,
        kept: bool = True,
        period: float = PERIOD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Unless they are to be `kept`, records are forgotten at once and are not counted as dropped."""
        self._write = write
        self._kept = kept
        self._period = period
        self._clock = clock
        self._waiting: deque[CallRecord] = deque()
        self._batch: list[CallRecord] = []
        self._number = 0
        self._filled = asyncio.Event()
        self._told = 0
        self._quiet_until = -QUIET
        self.dropped = 0
        """Records that were lost so far: no room was left, or they could not be written."""

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting) + len(self._batch)

    def record(self, call: CallRecord) -> None:
        """See `CallLog.record`."""
        if not self._kept:
            return
        waiting = self._waiting
        if len(waiting) + len(self._batch) >= CAPACITY:
            self.dropped += 1
            return
        waiting.append(call)
        if len(waiting) == BATCH:
            self._filled.set()

    async def run(self) -> None:
        """Write until cancelled. Never returns, never raises for a lost database."""
        failures = 0
        while True:
            if failures:
                await asyncio.sleep(pause(failures))
            elif len(self._waiting) < BATCH:
                await self._due()
            try:
                await self._write_batch()
                failures = 0
            except StoreUnavailable:
                failures += 1
            self._tell_dropped()

    async def close(self) -> None:
        """Write what is left, if that is done soon; what is not, counts as dropped. `run` has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                while self.waiting:
                    try:
                        await self._write_batch()
                    except StoreUnavailable:
                        await asyncio.sleep(pause(0))
        self.dropped += self.waiting
        self._batch.clear()
        self._waiting.clear()
        self._quiet_until = self._clock()
        self._tell_dropped()

    async def _due(self) -> None:
        self._filled.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._period):
                await self._filled.wait()

    async def _write_batch(self) -> None:
        """Write up to `BATCH` records; those of a failure are kept, as the same batch."""
        if not self._batch:
            if not self._waiting:
                return
            self._batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._number += 1
        try:
            await self._write(self._number, self._batch)
        except StoreUnavailable:
            raise
        except Exception:
            # A bug; tried again, it would keep every later record from being written, too.
            if self._clock() >= self._quiet_until:
                logger.exception("these usage records cannot be written: %d", len(self._batch))
            self.dropped += len(self._batch)
        self._batch = []

    def _tell_dropped(self) -> None:
        if self.dropped > self._told and self._clock() >= self._quiet_until:
            logger.warning("usage records dropped since the last such line: %d", self.dropped - self._told)
            self._told = self.dropped
            self._quiet_until = self._clock() + QUIET
