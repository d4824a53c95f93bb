"""The event store on PostgreSQL: the only module that writes events."""

import secrets
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from application.ports import Append, Context, Idempotency, Look, Place, Receipt
from domain.catalog import Change, Event, Seen
from domain.default import DefaultChanged
from domain.errors import IdempotencyMismatch, ModelFrozen, StoreUnavailable, VersionConflict
from domain.links import Links
from domain.values import ModelId, Stream
from infrastructure import codec
from infrastructure.codec import Stored, UnreadableEvent
from infrastructure.database import LOST, Connection, Pool, borrowed, store_errors
from infrastructure.projections import Row, project

# Of an array the planner counts the items, and so plans each look anew, which takes longer than the look.
LOOK: Final = """
    SELECT (SELECT EXISTS (SELECT FROM model WHERE NOT deleted)) AS any_live,
        CASE WHEN wanted.n = 1 THEN (
            SELECT json_object_agg(id, json_build_object('aliases', coalesce(aliases, '[]'),
                'fallbacks', coalesce(fallbacks, '[]')))::text
            FROM model WHERE NOT deleted AND (aliases IS NOT NULL OR fallbacks IS NOT NULL)) END AS links,
        e.stream, e.version, e.position, e.hash, e.type, e.schema_version, e.body::text AS body
    FROM json_array_elements_text($1::json) WITH ORDINALITY AS wanted (stream, n)
    LEFT JOIN LATERAL (
        SELECT * FROM event WHERE stream = wanted.stream ORDER BY version DESC LIMIT 1) e ON true
    ORDER BY wanted.n
"""
LINKS: Final = msgspec.json.Decoder(dict[ModelId, Links])
OUTDATED: Final = frozenset({"event_stream_version", "model_links"})
"""What the database holds against an append whose decision saw too little; see the migrations."""
ANSWERED: Final = """
    SELECT fingerprint, answer::text AS answer FROM idempotency
    WHERE actor = $1 AND method = $2 AND path = $3 AND key = $4 AND expires_at > now()
"""
APPEND: Final = """
    SELECT outcome, detail FROM ledger_append(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
"""
BUSY: Final = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
READ_ONLY: Final = (asyncpg.ReadOnlySQLTransactionError, asyncpg.DiskFullError)


class PostgresEventStore:
    """Appends in one round trip; see the function `ledger_append` of the first migration."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def look(self, streams: Sequence[Stream]) -> Look:
        """See `EventStore.look`."""
        async with store_errors(), borrowed(self._pool) as connection:
            rows = await connection.fetch(LOOK, msgspec.json.encode(streams).decode())
        events: dict[Stream, tuple[Event, int]] = {}
        places: dict[Stream, Place] = {}
        for row in rows:
            if row["stream"] is None:
                continue
            try:
                event = codec.decode(Stored(row["type"], row["schema_version"], row["body"]))
            except UnreadableEvent as error:
                raise ModelFrozen(row["stream"]) from error
            events[row["stream"]] = event, row["version"]
            places[row["stream"]] = Place(row["version"], row["position"], row["hash"].hex())
        links = LINKS.decode(rows[0]["links"] or "{}")
        return Look(Seen(events, rows[0]["any_live"], links), places)

    async def answered(self, idempotency: Idempotency) -> Receipt | None:
        """See `EventStore.answered`."""
        scope = (idempotency.actor, idempotency.method, idempotency.path, idempotency.key)
        async with store_errors(), borrowed(self._pool) as connection:
            row = await connection.fetchrow(ANSWERED, *scope)
        if row is None:
            return None
        if row["fingerprint"] != idempotency.fingerprint:
            raise IdempotencyMismatch
        return msgspec.json.decode(row["answer"], type=Receipt)

    async def append(self, append: Append) -> Receipt:
        """See `EventStore.append`."""
        arguments = _arguments(append)
        try:
            async with store_errors(), borrowed(self._pool) as connection:
                outcome, detail = await _append(connection, arguments)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name not in OUTDATED:
                raise
            raise VersionConflict(append.changes[0].stream) from error
        match outcome:
            case "appended" | "answered":
                return msgspec.json.decode(detail, type=Receipt)
            case "mismatch":
                raise IdempotencyMismatch
            case _:
                raise VersionConflict(detail)


async def _append(connection: Connection, arguments: Sequence[object]) -> tuple[str, str]:
    """The append itself; once it is on its way, an answer that fails to come leaves its outcome open."""
    try:
        row = await connection.fetchrow(APPEND, *arguments)
    except BUSY as error:
        raise StoreUnavailable("ledger_busy", "the ledger is busy; nothing was recorded") from error
    except READ_ONLY as error:
        raise StoreUnavailable("database_unavailable", "the database takes no writes now") from error
    except LOST as error:
        raise StoreUnavailable(
            "outcome_unknown",
            "the database did not confirm the change; read it back, or repeat the request with the same "
            "Idempotency-Key",
        ) from error
    outcome, detail = row or ("stale", "")  # the function always answers one row
    return outcome, detail


def _arguments(append: Append) -> list[object]:
    """The arguments of `ledger_append`, in its order."""
    context = append.context
    versions = _versions(append)
    stored = [codec.encode(change.event) for change in append.changes]
    rows = [_row(change) for change in append.changes]
    key = append.idempotency
    return [
        [uuid7() for _ in stored],
        [change.stream for change in append.changes],
        versions,
        [event.type for event in stored],
        [event.schema_version for event in stored],
        [event.body for event in stored],
        [secrets.token_bytes(16) for _ in stored],
        context.actor.id,
        context.actor.name,
        context.reason,
        _meta(context),
        list(append.expected),
        list(append.expected.values()),
        [row.model_id for row in rows],
        [row.config for row in rows],
        [row.deleted for row in rows],
        *((key.method, key.path, key.key, key.fingerprint) if key else (None, None, None, None)),
        msgspec.json.encode(append.receipt).decode(),
    ]


def _versions(append: Append) -> list[int]:
    newest = dict(append.expected)
    versions = []
    for change in append.changes:
        newest[change.stream] += 1
        versions.append(newest[change.stream])
    return versions


def _row(change: Change) -> Row:
    if isinstance(change.event, DefaultChanged):
        return project(change, None)
    return project(change, msgspec.json.encode(change.event.config).decode())


def _meta(context: Context) -> str:
    """What else is kept of a request; sorted, as the chain proves its bytes."""
    meta = {
        "actor_kind": context.actor.kind,
        "correlation_id": uuid7().hex,
        "request_id": context.request_id,
        "source": context.source,
    }
    return msgspec.json.encode(meta).decode()
