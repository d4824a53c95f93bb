"""The queue of usage records, with a database that only remembers, or does not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import call

from application.ports import CallLog, CallRecord
from domain.errors import StoreUnavailable
from infrastructure import usage_log
from infrastructure.usage_log import BATCH, CAPACITY, QUIET, UsageLog

NEVER = 3_600.0
AWAY = StoreUnavailable("database_unavailable", "the database does not answer")


class Table:
    """Remembers what it was told to write, and fails as it was told to; None is a success."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = [*outcomes]
        self.asked: list[tuple[int, list[CallRecord]]] = []
        self.written: list[CallRecord] = []
        self._moved = asyncio.Condition()

    async def write(self, number: int, records: Sequence[CallRecord]) -> None:
        self.asked.append((number, [*records]))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is None:
            self.written += records
        async with self._moved:
            self._moved.notify_all()
        if outcome is not None:
            raise outcome

    async def was_asked(self, times: int) -> None:
        async with asyncio.timeout(5), self._moved:
            await self._moved.wait_for(lambda: len(self.asked) >= times)

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(5), self._moved:
            await self._moved.wait_for(lambda: len(self.written) >= count)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again takes no time."""
    monkeypatch.setattr(usage_log, "pause", lambda _: 0)


@asynccontextmanager
async def at_work(log: UsageLog) -> AsyncIterator[None]:
    task = asyncio.create_task(log.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def numbered(count: int, first: int = 0) -> list[CallRecord]:
    return [call(duration=float(n)) for n in range(first, first + count)]


def take(log: CallLog, records: Sequence[CallRecord]) -> list[CallRecord]:
    for record in records:
        log.record(record)
    return [*records]


# In good times.


async def test_records_are_written_in_their_order_and_as_soon_as_their_time_is_over() -> None:
    table = Table()
    log = UsageLog(table.write, period=0.001)
    async with at_work(log):
        given = take(log, numbered(3))
        await table.holds(3)
        given += take(log, numbered(2, 3))
        await table.holds(5)
    assert table.written == given
    assert (log.waiting, log.dropped) == (0, 0)


async def test_a_full_batch_waits_for_nothing() -> None:
    table = Table()
    log = UsageLog(table.write, period=NEVER)
    async with at_work(log):
        given = take(log, numbered(BATCH - 1))
        await asyncio.sleep(0)
        assert not table.asked
        given += take(log, numbered(1, BATCH - 1))
        await table.holds(BATCH)
    assert table.asked == [(1, given)]


async def test_many_records_are_written_in_batches_with_rising_numbers() -> None:
    table = Table()
    log = UsageLog(table.write, period=0.001)
    given = take(log, numbered(2 * BATCH + 7))
    async with at_work(log):
        await table.holds(len(given))
    assert [(number, len(records)) for number, records in table.asked] == [(1, BATCH), (2, BATCH), (3, 7)]
    assert table.written == given


async def test_nothing_is_kept_where_nothing_is_to_be_kept() -> None:
    table = Table()
    log = UsageLog(table.write, kept=False)
    take(log, numbered(3))
    assert (log.waiting, log.dropped) == (0, 0)
    await log.close()
    assert not table.asked


# In bad times.


async def test_what_does_not_fit_is_dropped_and_counted_and_the_rest_is_kept() -> None:
    table = Table()
    log = UsageLog(table.write, period=NEVER)
    given = take(log, numbered(CAPACITY + 3))
    assert (log.waiting, log.dropped) == (CAPACITY, 3)
    async with at_work(log):
        await table.holds(CAPACITY)
    assert table.written == given[:CAPACITY]
    assert (log.waiting, log.dropped) == (0, 3)


async def test_what_is_being_written_takes_its_place_until_it_is_written() -> None:
    under_way = asyncio.Event()

    async def stuck(_: int, __: Sequence[CallRecord]) -> None:
        under_way.set()
        await asyncio.Event().wait()

    log = UsageLog(stuck, period=NEVER)
    take(log, numbered(CAPACITY))
    async with at_work(log):
        await under_way.wait()
        take(log, numbered(1))
        assert (log.waiting, log.dropped) == (CAPACITY, 1)


async def test_a_batch_that_was_not_written_is_tried_again_as_it_was() -> None:
    table = Table(AWAY, AWAY)
    log = UsageLog(table.write, period=0.001)
    given = take(log, numbered(3))
    async with at_work(log):
        await table.was_asked(1)
        later = take(log, numbered(2, 3))
        await table.holds(5)
    assert table.asked == [(1, given)] * 3 + [(2, later)]
    assert log.dropped == 0


async def test_a_batch_that_nobody_can_write_is_dropped_and_keeps_none_from_being_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table(*[ValueError("a number that fits nowhere")] * 2)
    log = UsageLog(table.write, period=0.001)
    take(log, numbered(2 * BATCH))
    later = take(log, numbered(2, 2 * BATCH))
    async with at_work(log):
        await table.holds(2)
    assert table.written == later
    assert (log.waiting, log.dropped) == (0, 2 * BATCH)
    assert caplog.text.count("a number that fits nowhere") == 1, "once a minute, as all of it"
    assert f"these usage records cannot be written: {BATCH}" in caplog.text


async def test_dropped_records_are_told_once_a_minute_at_most(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    table = Table(*[AWAY] * 6)
    log = UsageLog(table.write, period=0, clock=lambda: now)
    take(log, numbered(CAPACITY + 3))
    async with at_work(log):
        await table.was_asked(2)
        take(log, numbered(4))
        await table.was_asked(4)
        assert told(caplog) == [3]
        now = QUIET
        await table.was_asked(7)
    assert told(caplog) == [3, 4]


def told(caplog: pytest.LogCaptureFixture) -> list[int]:
    lines = [record for record in caplog.records if "dropped" in record.message]
    assert {record.levelno for record in lines} <= {logging.WARNING}
    return [int(record.message.split()[-1]) for record in lines]


@given(
    steps=st.lists(st.tuples(st.integers(0, 1_200), st.sampled_from(["written", "away", "bug"])), max_size=12)
)
def test_every_record_is_written_once_or_counted(steps: list[tuple[int, str]]) -> None:
    outcomes = {"written": None, "away": AWAY, "bug": ValueError()}

    async def live() -> tuple[list[CallRecord], Table, UsageLog]:
        table = Table(*(outcomes[name] for _, name in steps))
        log = UsageLog(table.write, period=0)
        given: list[CallRecord] = []
        async with at_work(log):
            for count, _ in steps:
                given += take(log, numbered(count, len(given)))
                await asyncio.sleep(0)
        await log.close()
        return given, table, log

    logging.disable()
    try:
        given, table, log = asyncio.run(live())
    finally:
        logging.disable(logging.NOTSET)
    assert len(table.written) + log.dropped == len(given)
    assert log.waiting == 0
    times = [record.duration for record in table.written]
    assert times == sorted({*times}), "in their order, and each once"


# At the end.


async def test_a_stop_writes_what_is_left() -> None:
    table = Table(AWAY)
    log = UsageLog(table.write, period=NEVER)
    given = take(log, numbered(BATCH + 1))
    async with at_work(log):
        await table.was_asked(1)
    await log.close()
    assert table.written == given
    assert (log.waiting, log.dropped) == (0, 0)


@pytest.mark.parametrize("how", ["it refuses", "it does not answer"])
async def test_a_stop_waits_only_so_long_and_counts_what_is_lost(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def write(_: int, __: Sequence[CallRecord]) -> None:
        if how == "it refuses":
            raise AWAY
        await asyncio.Event().wait()

    monkeypatch.setattr(usage_log, "LAST_WRITE", 0.05)
    log = UsageLog(write)
    take(log, numbered(3))
    async with asyncio.timeout(2):
        await log.close()
    assert (log.waiting, log.dropped) == (0, 3)
    assert told(caplog) == [3]
