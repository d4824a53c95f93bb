"""The service's own metrics, counted in memory that all workers share.

A call costs a few additions. What they are counted by is the id of a configured model or a word of this
module, never a text of a caller's, and there is a most of them.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from application.ports import CallRecord
from infrastructure.metric_table import OTHER, MetricTable

MODELS: Final = 1_000
"""Models that are counted by themselves, in the life of a service; further ones share a row."""
PERIOD: Final = 1.0
"""Seconds between a worker's looks at itself; a scrape has its own worker look at once."""
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the histograms' buckets; one more has the rest, and the sum follows it."""
CLASSES: Final = ("2xx", "4xx", "5xx")
REASONS: Final = ("broken", "failed", "left", "timeout", OTHER)
"""Why streams end early, in the words of `CallRecord.error`."""

# A model's row; the first columns are its calls by `CLASSES`.
ATTEMPTS: Final = len(CLASSES)
INPUT: Final = ATTEMPTS + 1
OUTPUT: Final = INPUT + 1
DURATION: Final = OUTPUT + 1
FIRST_BYTE: Final = DURATION + len(SECONDS) + 2
COLUMNS: Final = FIRST_BYTE + len(SECONDS) + 2

# A worker's gauges, which are forgotten with it, and its counters, which are not.
GAUGES: Final = range(1, 10)
SERVING, RUNNING, ACTIVE, DRAINING, DEGRADED, POSITION, CURRENT_AT, LISTENING, WAITING = GAUGES
DROPPED: Final = GAUGES.stop
CUT: Final = DROPPED + 1
"""The first of the streams that ended early, by `REASONS`."""
COUNTERS: Final = 1 + len(REASONS)


class State(Struct, frozen=True, kw_only=True):
    """How a worker is, at a moment."""

    running: int
    """Calls that are under way."""
    active: int
    """Clients that are lent to new calls."""
    draining: int
    """Clients that only running calls still use."""
    degraded: int
    """Models whose newest configuration no client fits."""
    position: int
    """Of the ledger, as it is served."""
    current_at: float | None
    """When that was last known to be the newest, by `time.monotonic`; None if it never was."""
    listening: bool
    """Whether the ledger's notifications arrive."""
    waiting: int
    """Usage records that are not written yet."""
    dropped: int
    """Usage records that were lost since the worker started."""


class Metrics:
    """What one worker counts; see `CallLog`."""

    def __init__(self, table: MetricTable, worker: int, state: Callable[[], State]) -> None:
        self._table = table
        self._state = state
        self._part = table.part(worker)
        self._rows = self._part.open()
        self._cells = self._part.cells
        self._dropped_before = self._cells[DROPPED]

    def record(self, call: CallRecord) -> None:
        """See `CallLog.record`."""
        cells = self._cells
        row = self._rows.get(call.model_id)
        if row is None:
            row = self._part.add(call.model_id, self._rows)
        cells[row + _status_class(call.status)] += 1
        cells[row + ATTEMPTS] += call.attempts
        _observe(cells, row + DURATION, call.duration)
        if call.stream and call.first_byte is not None:
            _observe(cells, row + FIRST_BYTE, call.first_byte)
            if call.error is not None:
                cells[CUT + REASONS.index(call.error if call.error in REASONS else OTHER)] += 1
        if call.tokens is not None:
            cells[row + INPUT] += call.tokens.input
            cells[row + OUTPUT] += call.tokens.output

    def refused(self, status: int) -> None:
        """Count a request that came to no model."""
        self._cells[self._rows[OTHER] + _status_class(status)] += 1

    def look(self) -> None:
        """Note how this worker is."""
        cells, state = self._cells, self._state()
        cells[SERVING] = 1
        cells[RUNNING] = state.running
        cells[ACTIVE] = state.active
        cells[DRAINING] = state.draining
        cells[DEGRADED] = state.degraded
        cells[POSITION] = state.position
        cells[CURRENT_AT] = state.current_at or 0
        cells[LISTENING] = state.listening
        cells[WAITING] = state.waiting
        cells[DROPPED] = self._dropped_before + state.dropped

    async def run(self) -> None:
        """Look now and then, until cancelled: the scrapes of other workers cannot ask this one."""
        while True:
            self.look()
            await asyncio.sleep(PERIOD)

    async def scrape(self) -> bytes:
        """The metrics of all workers, in Prometheus' text format."""
        self.look()
        return await asyncio.to_thread(self._tell)

    def _tell(self) -> bytes:
        # Here, as importing prometheus_client takes 30 ms, and not every service is scraped.
        from infrastructure.exposition import tell

        return tell(self._table)


def metric_table(workers: int) -> MetricTable:
    """The memory for that many workers."""
    return MetricTable(workers, gauges=len(GAUGES), counters=COUNTERS, rows=1 + MODELS, columns=COLUMNS)


def _status_class(status: int) -> int:
    return 0 if status < 400 else 1 if status < 500 else 2


def _observe(cells: "memoryview[float]", histogram: int, seconds: float) -> None:
    cells[histogram + bisect_left(SECONDS, seconds)] += 1
    cells[histogram + len(SECONDS) + 1] += seconds
