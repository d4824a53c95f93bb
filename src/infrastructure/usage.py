"""Usage records on PostgreSQL: beside the ledger, and never in its way.

A batch is one statement with one argument, the records as JSON: that takes half of the worker's time that
COPY does, and a quarter of what arrays do. It also notes the batch's number, so that one whose answer was
lost is not written twice.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from application.ports import CallRecord
from application.usage import MOST_ROWS, Grouping, Percentiles, UsageView, VersionUsage
from domain.errors import InvalidInput, ModelNotFound, Problem, StoreUnavailable
from domain.values import ModelId
from infrastructure.database import Connection, Pool, borrowed, store_errors

logger = logging.getLogger(__name__)

REMOVAL: Final = 3_600.0
"""Seconds between two removals of what is too old."""
AGAIN: Final = 60.0
"""Seconds after which one that failed is tried again."""
REMOVED_AT_ONCE: Final = 2_000
REST: Final = 0.1
"""Seconds between two statements of a removal."""
ONE_AT_A_TIME: Final = 0x6D6F64656C757361
"""The advisory lock of removals: 'modelusa' in ASCII."""
READERS: Final = 2
"""Questions at a time; a worker's others wait."""
CONNECTIONS: Final = READERS + 2
"""One more for what is written, and one for what is removed."""
ANSWER_TIMEOUT: Final = 10
"""Seconds that a question may take: some ten million calls."""

# What a provider tells may be any number; it must not make the whole batch fail.
WRITE: Final = """
    WITH new AS (
        INSERT INTO usage_writer AS w (id, batch, wrote_at) VALUES ($1, $2, now())
        ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, wrote_at = excluded.wrote_at
        WHERE w.batch < excluded.batch
        RETURNING 1)
    INSERT INTO usage (started_at, duration, first_byte, version, input_tokens, output_tokens, status,
        attempts, stream, operation, model_id, asked, caller, error)
    SELECT started_at, duration, first_byte, version,
        CASE WHEN tokens IS NOT NULL THEN least(greatest((tokens ->> 'input')::numeric, 0), 2147483647) END,
        CASE WHEN tokens IS NOT NULL THEN least(greatest((tokens ->> 'output')::numeric, 0), 2147483647) END,
        status, least(attempts, 32767), stream, operation, model_id, nullif(asked, model_id),
        caller ->> 'id', error
    FROM json_to_recordset($3) AS r (started_at timestamptz, duration real, first_byte real, version int,
        tokens json, status smallint, attempts bigint, stream boolean, operation text, model_id text,
        asked text, caller json, error text)
    WHERE EXISTS (SELECT FROM new)
"""

# Model by model, as the only index is by model and time; the models are found by leaps through it. The order
# has the index itself be read, which passes quickly over what was removed just before.
REMOVE: Final = """
    WITH RECURSIVE lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS mine),
    models AS (
        (SELECT model_id FROM usage, lock WHERE mine ORDER BY model_id LIMIT 1)
        UNION ALL
        SELECT following.model_id FROM models m CROSS JOIN LATERAL (
            SELECT model_id FROM usage u WHERE u.model_id > m.model_id ORDER BY model_id LIMIT 1) following
    ), gone AS (
        DELETE FROM usage WHERE ctid = ANY (ARRAY(
            SELECT old.ctid FROM models m CROSS JOIN LATERAL (
                SELECT u.ctid FROM usage u WHERE u.model_id = m.model_id
                    AND u.started_at < now() - make_interval(days => $2) ORDER BY u.started_at LIMIT $3) old
            LIMIT $3))
        RETURNING 1)
    SELECT count(*) FROM gone
"""
FORGET_WRITERS: Final = "DELETE FROM usage_writer WHERE wrote_at < now() - make_interval(days => $1 + 1)"

KNOWN: Final = "SELECT EXISTS (SELECT FROM model WHERE id = $1)"
COUNT: Final = """
    SELECT {start} AS start, version, count(*) AS requests,
        count(*) FILTER (WHERE status >= 500 OR status = 429) AS errors,
        count(*) FILTER (WHERE attempts > 1) AS retried,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration)
            FILTER (WHERE status < 400) AS duration,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY first_byte)
            FILTER (WHERE status < 400) AS first_byte,
        coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens,
        min(started_at) AS first_call_at, max(started_at) AS last_call_at
    FROM usage WHERE model_id = $1 AND started_at >= $2 AND started_at < $3
    GROUP BY 1, version ORDER BY 1 DESC, version DESC LIMIT $4
"""
COUNTS: Final[dict[Grouping, str]] = {
    "version": COUNT.format(start="NULL::timestamptz"),
    "hour": COUNT.format(start="date_trunc('hour', started_at, 'UTC')"),
    "day": COUNT.format(start="date_trunc('day', started_at, 'UTC')"),
}


class PostgresUsage:
    """The table of usage records: written in batches, counted by version, and emptied of what is old."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._writer = uuid7()
        self._readers = asyncio.Semaphore(READERS)

    async def write(self, number: int, records: Sequence[CallRecord]) -> None:
        """Write a batch unless it is written already; the numbers of one object rise.

        Raises:
            StoreUnavailable: the database takes it not now; ask again.
        """
        text = msgspec.json.encode(records).decode()
        async with _usable(), borrowed(self._pool) as connection:
            await connection.execute(WRITE, self._writer, number, text)

    async def keep(self, days: int) -> None:
        """Remove what is older, at once and then every hour, until cancelled."""
        while True:
            pause = REMOVAL
            try:
                await self.remove(days)
            except StoreUnavailable as error:
                logger.warning("old usage records are not removed now: %s", error)
                pause = AGAIN
            await asyncio.sleep(pause)

    async def remove(self, days: int) -> int:
        """Remove what is older, a little at a time, unless another worker is at it; answers how much it was.

        Raises:
            StoreUnavailable: the database is away.
        """
        removed = 0
        while True:
            async with _usable(), borrowed(self._pool) as connection:
                gone: int = await connection.fetchval(REMOVE, ONE_AT_A_TIME, days, REMOVED_AT_ONCE)
            removed += gone
            if gone < REMOVED_AT_ONCE:
                break
            await asyncio.sleep(REST)
        async with _usable(), borrowed(self._pool) as connection:
            await connection.execute(FORGET_WRITERS, days)
        return removed

    async def usage(self, model_id: ModelId, *, by: Grouping, since: datetime, until: datetime) -> UsageView:
        """See `UsageReader.usage`."""
        async with self._readers, store_errors(), borrowed(self._pool) as connection:
            rows = await _count(connection, COUNTS[by], model_id, since, until)
            if not rows and not await connection.fetchval(KNOWN, model_id):
                raise ModelNotFound(model_id)
        if len(rows) > MOST_ROWS:
            detail = f"more than {MOST_ROWS} rows; ask for a shorter time, or by day or version"
            raise InvalidInput([Problem("/since", "too_many", detail)])
        return UsageView(model_id, by, since, until, [_version(row) for row in rows])


async def _count(
    connection: Connection, statement: str, model_id: ModelId, since: datetime, until: datetime
) -> list[asyncpg.Record]:
    """One row more than an answer has, if there are that many.

    Raises:
        StoreUnavailable: it takes too long.
    """
    async with connection.transaction(readonly=True):
        # By the server, which stops then; a client that gives up would leave it at work.
        await connection.execute(f"SET LOCAL statement_timeout = '{ANSWER_TIMEOUT}s'")
        try:
            return await connection.fetch(
                statement, model_id, since, until, MOST_ROWS + 1, timeout=2 * ANSWER_TIMEOUT
            )
        except asyncpg.QueryCanceledError as error:
            told = f"these calls cannot be counted within {ANSWER_TIMEOUT} s; ask for a shorter time"
            raise StoreUnavailable("too_many_calls", told) from error


def _version(row: asyncpg.Record) -> VersionUsage:
    return VersionUsage(
        start=row["start"] or msgspec.UNSET,
        version=row["version"],
        requests=row["requests"],
        errors=row["errors"],
        error_share=row["errors"] / row["requests"],
        retried=row["retried"],
        duration=_percentiles(row["duration"]),
        first_byte=_percentiles(row["first_byte"]),
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        first_call_at=row["first_call_at"],
        last_call_at=row["last_call_at"],
    )


def _percentiles(values: Sequence[float] | None) -> Percentiles | None:
    # To the microsecond: the columns have seven digits, and what comes after them means nothing.
    return None if values is None else Percentiles(*(round(value, 6) for value in values))


@asynccontextmanager
async def _usable() -> AsyncIterator[None]:
    """Tell whatever the database has against a statement as `StoreUnavailable`, unless it is its data."""
    try:
        async with store_errors():
            yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
        raise
    except asyncpg.PostgresError as error:
        raise StoreUnavailable("database_unavailable", "the database takes no usage records now") from error
