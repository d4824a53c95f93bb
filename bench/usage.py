"""`python bench/usage.py [records]`: what it costs to keep usage records, and to ask about them."""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import asyncpg

from application.ports import CallRecord, Tokens
from application.usage import Grouping
from domain.values import Actor, ModelId
from infrastructure.database import Database
from infrastructure.embedded import EmbeddedPostgres, lease
from infrastructure.usage import CONNECTIONS, PostgresUsage
from infrastructure.usage_log import BATCH, CAPACITY, UsageLog

BUSY, QUIET = ModelId("busy-model"), 20
"""Half of all calls go to one model, the rest to so many others."""
DAYS = 7
VERSIONS = 20
CALLER = Actor("token:administrator", "administrator", "token")
SIZES = "SELECT pg_table_size('usage') AS rows, pg_indexes_size('usage') AS index"

Result = TypeVar("Result")


def records(count: int) -> list[CallRecord]:
    """Calls of the last days, in the order in which they ended."""
    chance, begin = random.Random(1), datetime.now(UTC) - timedelta(days=DAYS)
    made = []
    for number in range(count):
        share = number / count
        model_id = BUSY if chance.random() < 0.5 else ModelId(f"quiet-model-{chance.randrange(QUIET):02}")
        status = 200 if chance.random() < 0.98 else chance.choice([400, 429, 500])
        made.append(
            CallRecord(
                model_id=model_id,
                version=1 + int(share * VERSIONS),
                asked=model_id,
                caller=CALLER,
                operation="chat",
                stream=chance.random() < 0.5,
                status=status,
                error=None if status == 200 else f"http_{status}",
                attempts=1,
                started_at=begin + share * timedelta(days=DAYS),
                first_byte=chance.random(),
                duration=chance.expovariate(0.3),
                tokens=Tokens(chance.randrange(4_000), chance.randrange(1_000)) if status == 200 else None,
            )
        )
    return made


async def timed(work: Callable[[], Awaitable[Result]], rounds: int = 5) -> tuple[float, Result]:
    """The median of some rounds, in seconds, and the last result."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = await work()
        times.append(time.perf_counter() - start)
    return sorted(times)[rounds // 2], result


def taking(made: list[CallRecord]) -> float:
    """Microseconds that a call waits for its record to be taken."""

    async def nowhere(*_: object) -> None:
        pass

    log = UsageLog(nowhere)
    start = time.perf_counter()
    for record in made[:CAPACITY]:
        log.record(record)
    return 1e6 * (time.perf_counter() - start) / min(CAPACITY, len(made))


async def measure(server: EmbeddedPostgres, count: int) -> None:
    owner = await asyncpg.connect(server.owner_url)
    await owner.execute("CREATE DATABASE bench_usage")
    await owner.close()
    url = server.url("bench_usage", owner=True)
    database = await Database.prepare(server.url("bench_usage", owner=False), url)
    owner = await asyncpg.connect(url)
    made = records(count)
    print(f"taken: {taking(made):.2f} microseconds a record")
    async with database.pool(CONNECTIONS) as pool:
        usage = PostgresUsage(pool)
        start, own = time.perf_counter(), time.thread_time()
        for number, place in enumerate(range(0, count, BATCH), start=1):
            await usage.write(number, made[place : place + BATCH])
        elapsed, own = time.perf_counter() - start, time.thread_time() - own
        each = 1e3 * elapsed * BATCH / count
        print(
            f"written: {count / elapsed:,.0f}/s in batches of {BATCH}, {each:.1f} ms each; "
            f"{1e6 * own / count:.1f} microseconds of the worker's time a record"
        )
        await owner.execute("VACUUM ANALYZE usage")
        sizes = await owner.fetchrow(SIZES)
        print(f"kept: {sizes['rows'] / count:.0f} bytes a record and {sizes['index'] / count:.0f} of index")
        await questions(usage)
        start, removed = time.perf_counter(), await usage.remove(1)
        print(f"removed: {removed:,} in {time.perf_counter() - start:.1f} s, with its rests")
    await owner.close()


async def questions(usage: PostgresUsage) -> None:
    until = datetime.now(UTC)
    windows: list[tuple[Grouping, int]] = [("version", DAYS), ("day", DAYS), ("hour", DAYS), ("hour", 1)]
    for model_id in (BUSY, ModelId("quiet-model-07")):
        for by, days in windows:
            since = until - timedelta(days=days)
            took, view = await timed(lambda: usage.usage(model_id, by=by, since=since, until=until))  # noqa: B023
            calls = sum(row.requests for row in view.data)
            print(f"counted by {by:7} over {days} days: {calls:9,} calls in {1e3 * took:6.0f} ms")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    root = Path(tempfile.mkdtemp(prefix="model-ledger-bench-"))
    root.chmod(0o755)
    try:
        with lease(root) as server:
            asyncio.run(measure(server, count))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
