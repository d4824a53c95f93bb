"""Usage records on a real PostgreSQL: each of them once, counted as Python counts, gone in their time."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from math import floor
from os import kill
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from advanced_alchemy.alembic.commands import AlembicCommands
from chaos_proxy import ChaosProxy
from ledgers import Book, empty_database, opened, postmaster
from records import ANNA, call
from service import Databases
from upstream import wait_until

from application.ports import CallRecord, Tokens
from application.usage import MOST_ROWS, Grouping, Percentiles, UsageView, VersionUsage
from domain.errors import InvalidInput, ModelNotFound, StoreUnavailable
from domain.values import ModelId
from infrastructure import database as database_module
from infrastructure import usage as usage_module
from infrastructure.database import Database, alchemy
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.rebuild import rebuild
from infrastructure.usage import CONNECTIONS, ONE_AT_A_TIME, REMOVED_AT_ONCE, PostgresUsage
from infrastructure.usage_log import UsageLog
from infrastructure.verify import verify

GPT = ModelId("gpt-4")
OTHER = ModelId("other")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@asynccontextmanager
async def recording(url: str) -> AsyncIterator[PostgresUsage]:
    async with Database(url).pool(CONNECTIONS) as pool:
        yield PostgresUsage(pool)


@pytest.fixture
async def usage(databases: Databases, database: str) -> AsyncIterator[PostgresUsage]:
    async with recording(databases.app_url(database)) as usage:
        yield usage


@pytest.fixture
async def book(databases: Databases, database: str) -> AsyncIterator[Book]:
    """A ledger that knows the two models."""
    async with opened(databases.app_url(database)) as book:
        await book.create(GPT)
        await book.create(OTHER)
        yield book


@pytest.fixture
def proxy(databases: Databases, database: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(databases.app_url(database)) as proxy:
        yield proxy


@asynccontextmanager
async def at_work(log: UsageLog) -> AsyncIterator[UsageLog]:
    task = asyncio.create_task(log.run())
    try:
        yield log
    finally:
        task.cancel()
        await asyncio.wait([task])
        await log.close()


def numbered(count: int, first: int = 0) -> list[CallRecord]:
    return [call(duration=float(n)) for n in range(first, first + count)]


async def numbers(connection: asyncpg.Connection) -> list[int]:
    """The numbers of all records that are there."""
    return [int(row["duration"]) for row in await connection.fetch("SELECT duration FROM usage ORDER BY 1")]


# What is written.


async def test_of_a_call_everything_is_kept_but_what_it_said(
    usage: PostgresUsage, owner: asyncpg.Connection
) -> None:
    records = [
        call(started_at=NOON, stream=True, attempts=3, version=7, tokens=Tokens(11, 0)),
        call(asked="fast", operation="embeddings", status=502, error="broken", first_byte=None, tokens=None),
    ]
    await usage.write(1, records)
    first, second = await owner.fetch("SELECT * FROM usage ORDER BY started_at")
    assert dict(first) == {
        "started_at": NOON,
        "duration": 1.5,
        "first_byte": 0.5,
        "version": 7,
        "input_tokens": 11,
        "output_tokens": 0,
        "status": 200,
        "attempts": 3,
        "stream": True,
        "operation": "chat",
        "model_id": GPT,
        "asked": None,
        "caller": ANNA.id,
        "error": None,
    }
    told = ("asked", "operation", "status", "error", "first_byte", "input_tokens", "output_tokens")
    assert [second[name] for name in told] == ["fast", "embeddings", 502, "broken", None, None, None]
    assert second["started_at"] == records[1].started_at


@pytest.mark.parametrize(
    ("told", "kept"), [(2**31, 2**31 - 1), (10**30, 2**31 - 1), (-1, 0)], ids=["large", "huge", "negative"]
)
async def test_a_providers_absurd_numbers_do_not_keep_a_batch_from_being_written(
    usage: PostgresUsage, owner: asyncpg.Connection, told: int, kept: int
) -> None:
    await usage.write(1, [call(tokens=Tokens(told, told)), call()])
    rows = await owner.fetch("SELECT input_tokens, output_tokens FROM usage ORDER BY 1")
    assert sorted([(kept, kept), (10, 20)]) == [tuple(row) for row in rows]


async def test_a_batch_is_written_once_however_often_it_is_sent(
    usage: PostgresUsage, owner: asyncpg.Connection
) -> None:
    await asyncio.gather(*(usage.write(1, numbered(3)) for _ in range(4)))
    await usage.write(2, numbered(3, 3))
    await usage.write(1, numbered(3))
    assert await numbers(owner) == [*range(6)]


async def test_each_worker_has_batches_of_its_own(
    databases: Databases, database: str, owner: asyncpg.Connection
) -> None:
    url = databases.app_url(database)
    async with recording(url) as one, recording(url) as another:
        await one.write(1, numbered(1))
        await another.write(1, numbered(1, 1))
    assert await numbers(owner) == [0, 1]


# The database fails.


async def test_a_batch_whose_answer_was_lost_is_not_written_twice(
    proxy: ChaosProxy, owner: asyncpg.Connection, dice: random.Random
) -> None:
    async with recording(proxy.url) as usage:
        await usage.write(1, numbered(2))
        before = proxy.forwarded
        await usage.write(2, numbered(2, 2))
        size = proxy.forwarded - before
        cuts, written = 0, 4
        # Both where the batch is under way and where its answer is, which is the end of it.
        for number, place in enumerate([*range(size - 60, size), *dice.sample(range(1, size), 20)], start=3):
            batch = numbered(2, written)
            proxy.cut_after(place)
            while True:
                try:
                    await usage.write(number, batch)
                    break
                except StoreUnavailable:
                    cuts += 1
            proxy.heal()
            written += 2
    assert cuts >= 20
    assert await numbers(owner) == [*range(written)]


async def test_a_server_that_is_killed_loses_and_doubles_no_record(
    own_server: tuple[EmbeddedPostgres, Path],
) -> None:
    server, root = own_server
    await Database.prepare(server.app_url, server.owner_url)
    begin = datetime.now(UTC)
    async with recording(server.app_url) as usage, at_work(UsageLog(usage.write, period=0.01)) as log:
        count = 0
        for _ in range(2):
            for _ in range(50):
                log.record(call(duration=float(count)))
                count += 1
                await asyncio.sleep(0)
            await wait_until(lambda: log.waiting < 50, within=30)
            kill(postmaster(root), signal.SIGKILL)
            for record in numbered(700, count):
                log.record(record)
            count += 700
            await wait_until(lambda: not log.waiting, within=30)
        owner = await asyncpg.connect(server.owner_url)
        assert await numbers(owner) == [*range(count)]
        assert log.dropped == 0
        assert await owner.fetchval("SELECT pg_postmaster_start_time()") > begin
        await owner.close()


async def test_while_the_database_is_silent_nobody_waits_and_what_fits_is_written_later(
    proxy: ChaosProxy, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "COMMAND_TIMEOUT", 0.2)
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr("infrastructure.usage_log.CAPACITY", 700)
    async with recording(proxy.url) as usage, at_work(UsageLog(usage.write, period=0.01)) as log:
        log.record(call(duration=0.0))
        await wait_until(lambda: not log.waiting, within=5)
        proxy.black_hole()
        for record in numbered(703, 1):
            log.record(record)
        assert (log.waiting, log.dropped) == (700, 3)
        accepted = proxy.accepted
        await wait_until(lambda: proxy.accepted > accepted, within=10)
        proxy.heal()
        await wait_until(lambda: not log.waiting, within=10)
    assert await numbers(owner) == [*range(701)]


async def test_what_the_database_refuses_is_tried_again(
    usage: PostgresUsage, owner: asyncpg.Connection
) -> None:
    await owner.execute("REVOKE INSERT ON usage FROM model_ledger_app")
    with pytest.raises(StoreUnavailable):
        await usage.write(1, numbered(1))
    await owner.execute("GRANT INSERT ON usage TO model_ledger_app")
    await usage.write(1, numbered(1))
    assert await numbers(owner) == [0]


# What is counted.


def some_calls(dice: random.Random, count: int) -> list[CallRecord]:
    """Calls of three versions in as many days, some of them failed."""
    return [
        call(
            version=dice.randint(1, 3),
            started_at=NOON + dice.random() * 3 * DAY,
            status=dice.choice([200, 200, 200, 200, 400, 404, 429, 499, 500, 502]),
            attempts=dice.choice([1, 1, 2, 3]),
            duration=dice.expovariate(0.1),
            first_byte=dice.choice([None, dice.random()]),
            tokens=dice.choice([None, Tokens(dice.randrange(9_000), dice.randrange(900))]),
        )
        for _ in range(count)
    ]


def start_of(record: CallRecord, by: Grouping) -> datetime | None:
    hour = record.started_at.replace(minute=0, second=0, microsecond=0)
    return {"version": None, "hour": hour, "day": hour.replace(hour=0)}[by]


def counted(records: Sequence[CallRecord], by: Grouping) -> list[dict[str, Any]]:
    """What the answer has to say, newest first."""
    groups: dict[tuple[Any, int], list[CallRecord]] = {}
    for record in records:
        groups.setdefault((start_of(record, by), record.version), []).append(record)
    rows = []
    for (start, version), calls in sorted(groups.items(), key=lambda group: group[0], reverse=True):
        errors = sum(record.status in {429, 500, 502} for record in calls)
        good = [record for record in calls if record.status == 200]
        rows.append(
            {
                **({"start": start} if start else {}),
                "version": version,
                "requests": len(calls),
                "errors": errors,
                "error_share": pytest.approx(errors / len(calls)),
                "retried": sum(record.attempts > 1 for record in calls),
                "duration": percentiles([record.duration for record in good]),
                "first_byte": percentiles([r.first_byte for r in good if r.first_byte is not None]),
                "input_tokens": sum(record.tokens.input for record in calls if record.tokens),
                "output_tokens": sum(record.tokens.output for record in calls if record.tokens),
                "first_call_at": min(record.started_at for record in calls),
                "last_call_at": max(record.started_at for record in calls),
            }
        )
    return rows


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    # The columns have seven digits, and the answer none after the microsecond.
    near = {name: percentile(values, share) for name, share in (("p50", 0.5), ("p95", 0.95))}
    return {name: pytest.approx(value, rel=1e-6, abs=1e-6) for name, value in near.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Between the two values that are nearest, as much as the share is between theirs."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = ordered[floor(place)]
    high = ordered[min(floor(place) + 1, len(ordered) - 1)]
    return low + (high - low) * (place - floor(place))


def told(view: UsageView) -> list[dict[str, Any]]:
    return [fields(row) for row in view.data]


def fields(row: VersionUsage) -> dict[str, Any]:
    seen = {name: getattr(row, name) for name in row.__struct_fields__}
    return {
        name: fields_of_percentiles(value) if isinstance(value, Percentiles) else value
        for name, value in seen.items()
        if name != "start" or isinstance(value, datetime)
    }


def fields_of_percentiles(value: Percentiles) -> dict[str, float]:
    return {"p50": value.p50, "p95": value.p95}


@pytest.mark.usefixtures("book")
@pytest.mark.parametrize("by", ["version", "hour", "day"])
async def test_what_is_counted_is_what_python_counts(
    usage: PostgresUsage, dice: random.Random, by: Grouping
) -> None:
    records = some_calls(dice, 1_000)
    await usage.write(1, records)
    await usage.write(2, [call(model_id=OTHER, started_at=NOON + HOUR)])
    view = await usage.usage(GPT, by=by, since=NOON, until=NOON + 3 * DAY)
    assert told(view) == counted(records, by)
    assert (view.model_id, view.by, view.since, view.until) == (GPT, by, NOON, NOON + 3 * DAY)


@pytest.mark.usefixtures("book")
async def test_a_version_without_a_success_has_no_times(usage: PostgresUsage) -> None:
    await usage.write(1, [call(started_at=NOON, status=502, error="connect", first_byte=None, tokens=None)])
    (row,) = (await usage.usage(GPT, by="version", since=NOON, until=NOON + HOUR)).data
    assert (row.requests, row.errors, row.error_share) == (1, 1, 1.0)
    assert (row.duration, row.first_byte, row.input_tokens, row.output_tokens) == (None, None, 0, 0)


@pytest.mark.usefixtures("book")
async def test_a_call_counts_from_the_begin_on_and_no_more_at_the_end(usage: PostgresUsage) -> None:
    tick = timedelta(microseconds=1)
    times = [NOON - tick, NOON, NOON + HOUR - tick, NOON + HOUR]
    await usage.write(1, [call(started_at=time) for time in times])
    (row,) = (await usage.usage(GPT, by="version", since=NOON, until=NOON + HOUR)).data
    assert (row.first_call_at, row.last_call_at, row.requests) == (NOON, NOON + HOUR - tick, 2)


async def test_a_deleted_models_calls_are_counted_and_an_unknown_one_is_not_found(
    usage: PostgresUsage, book: Book
) -> None:
    await usage.write(1, [call(started_at=NOON, model_id=OTHER)])
    await book.delete(OTHER)
    window: dict[str, Any] = {"by": "version", "since": NOON, "until": NOON + HOUR}
    assert [row.requests for row in (await usage.usage(OTHER, **window)).data] == [1]
    assert (await usage.usage(GPT, **window)).data == []
    with pytest.raises(ModelNotFound):
        await usage.usage(ModelId("never"), **window)


@pytest.mark.usefixtures("book")
async def test_more_rows_than_an_answer_has_are_refused(usage: PostgresUsage) -> None:
    await usage.write(1, [call(started_at=NOON, version=n) for n in range(1, MOST_ROWS + 1)])
    window: dict[str, Any] = {"since": NOON, "until": NOON + HOUR}
    assert len((await usage.usage(GPT, by="version", **window)).data) == MOST_ROWS
    await usage.write(2, [call(started_at=NOON, version=MOST_ROWS + 1)])
    with pytest.raises(InvalidInput) as refused:
        await usage.usage(GPT, by="version", **window)
    assert [problem.code for problem in refused.value.problems] == ["too_many"]


@pytest.mark.usefixtures("book")
async def test_a_count_that_takes_too_long_is_given_up_by_the_server(
    usage: PostgresUsage, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_module, "ANSWER_TIMEOUT", 0.2)
    async with owner.transaction():
        await owner.execute("LOCK TABLE usage")
        with pytest.raises(StoreUnavailable) as refused:
            await usage.usage(GPT, by="version", since=NOON, until=NOON + HOUR)
        assert refused.value.code == "too_many_calls"
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'usage'::regclass"
        assert await owner.fetchval(waiting) == 0


# What is removed.


async def test_what_is_older_is_removed_and_the_rest_stays(
    usage: PostgresUsage, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_module, "REST", 0)
    now = datetime.now(UTC)
    old, young = now - 30 * DAY - HOUR, now - 30 * DAY + HOUR
    models = [ModelId(f"m{n}") for n in range(7)]
    await usage.write(1, [call(model_id=m, started_at=at) for m in models for at in [old] * 400 + [young]])
    assert await usage.remove(30) == 7 * 400 > REMOVED_AT_ONCE
    left = await owner.fetch("SELECT model_id, started_at FROM usage ORDER BY 1")
    assert [tuple(row) for row in left] == [(model, young) for model in models]
    assert await usage.remove(30) == 0


async def test_writers_that_are_long_gone_are_forgotten(
    usage: PostgresUsage, owner: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO usage_writer VALUES (gen_random_uuid(), 1, now() - interval '31 days 1 hour')"
    )
    await usage.write(1, numbered(1))
    await usage.remove(30)
    assert await owner.fetchval("SELECT count(*) FROM usage_writer") == 1


async def test_one_worker_at_a_time_removes(usage: PostgresUsage, owner: asyncpg.Connection) -> None:
    await usage.write(1, [call(started_at=NOON - 1_000 * DAY)])
    async with owner.transaction():
        await owner.execute("SELECT pg_advisory_xact_lock($1)", ONE_AT_A_TIME)
        assert await usage.remove(30) == 0
    assert await usage.remove(30) == 1


async def test_a_removal_holds_up_neither_records_nor_the_ledger(
    usage: PostgresUsage, owner: asyncpg.Connection, databases: Databases, database: str, book: Book
) -> None:
    await usage.write(1, [call(started_at=NOON - 1_000 * DAY)])
    other = await asyncpg.connect(databases.owner_url(database))
    async with other.transaction():
        # As a removal does, before it commits.
        assert await other.execute("DELETE FROM usage") == "DELETE 1"
        async with asyncio.timeout(2):
            await usage.write(2, numbered(1))
            await book.update(GPT, max_tokens=17)
    await other.close()
    assert await numbers(owner) == [0]


async def test_what_is_kept_for_no_day_is_removed_at_once_and_a_lost_database_does_not_end_it(
    proxy: ChaosProxy, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_module, "AGAIN", 0.01)
    async with recording(proxy.url) as usage:
        await usage.write(1, numbered(3))
        proxy.cut_after(1)
        keeping = asyncio.create_task(usage.keep(0))
        while await owner.fetchval("SELECT count(*) FROM usage"):
            assert not keeping.done()
        keeping.cancel()
        await asyncio.wait([keeping])
    assert keeping.cancelled()


# Beside the ledger.


async def test_a_ledger_of_the_first_revision_gets_its_usage_records_and_the_right_to_them(
    databases: Databases,
) -> None:
    async with empty_database(databases) as name:
        place = Database(databases.owner_url(name))
        engine = place.engine()
        await asyncio.to_thread(AlembicCommands(sqlalchemy_config=alchemy(engine)).upgrade, "0001")
        owner = await asyncpg.connect(databases.owner_url(name))
        assert await owner.fetchval("SELECT to_regclass('usage')") is None
        await owner.execute("GRANT EXECUTE ON FUNCTION ledger_append, ledger_rebuild TO model_ledger_app")
        await Database.prepare(databases.app_url(name), databases.owner_url(name))
        async with recording(databases.app_url(name)) as usage:
            await usage.write(1, [call(started_at=NOON)])
            assert await usage.remove(1) == 1
        await owner.close()
        await engine.dispose()


async def test_usage_is_no_part_of_what_is_verified_and_rebuilt(
    usage: PostgresUsage, owner: asyncpg.Connection, book: Book
) -> None:
    await usage.write(1, [call(started_at=NOON, version=99, model_id=ModelId("never"))])
    assert (await verify(owner)).ok
    assert (await rebuild(owner)).changed == 0
    async with book.pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM usage") == 1
