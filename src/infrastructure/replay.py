"""The projection, held against a replay of the events.

Events are fat: the newest one of a stream is its whole state, and so it alone is replayed.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw, Struct

from domain.default import DefaultChanged
from domain.model import ModelCreated, ModelDeleted, ModelRestored, ModelRolledBack, ModelUpdated
from domain.values import DEFAULT_STREAM, model_of
from infrastructure import codec
from infrastructure.chain import MICROSECONDS, Failure
from infrastructure.codec import Stored, UnreadableEvent
from infrastructure.database import Connection

BATCH: Final = 1_000
TIMEOUT: Final = 60.0
"""Seconds that one statement may take."""

NEWEST: Final = f"""
    SELECT e.stream, e.version, e.position, e.type, e.schema_version, e.body::text AS body, e.actor,
        e.actor_name, e.meta ->> 'actor_kind' AS actor_kind,
        {MICROSECONDS.format("e.recorded_at")} AS updated_at
    FROM unnest($1::text[], $2::int[]) AS newest (stream, version) JOIN event e USING (stream, version)
    ORDER BY e.stream
"""  # noqa: S608 - made of constants
MODELS: Final = f"""
    SELECT id, config::text AS config, deleted, version, position, actor, actor_name, actor_kind,
        {MICROSECONDS.format("updated_at")} AS updated_at
    FROM model WHERE id = ANY ($1)
"""  # noqa: S608 - made of constants
MODEL_IDS: Final = "SELECT id FROM model ORDER BY id"
DEFAULTS: Final = "SELECT model_id, version, position FROM default_model"

Values = Mapping[str, object]
"""A row of the projection, by column; times in microseconds since 1970."""


class Replay(Struct, frozen=True):
    """What came of the comparison."""

    failures: list[Failure]
    notes: list[str]


class _Recorded(Struct):
    """The body of a model's event; `Raw` keeps the bytes of the configuration as they are."""

    config: Raw


async def compare(connection: Connection, versions: Mapping[str, int]) -> Replay:
    """Hold every row of the projection against the newest event of its stream.

    `versions` has the last version of each stream, in the snapshot that the connection's transaction sees.
    """
    replay = Replay([], [])
    streams = [stream for stream in versions if model_of(stream) is not None]
    for start in range(0, len(streams), BATCH):
        batch = streams[start : start + BATCH]
        newest = [versions[stream] for stream in batch]
        events = await connection.fetch(NEWEST, batch, newest, timeout=TIMEOUT)
        await _compare_models(connection, events, replay)
    for (model_id,) in await connection.fetch(MODEL_IDS, timeout=TIMEOUT):
        if f"model/{model_id}" not in versions:
            replay.failures.append(Failure(None, f"model {model_id}", "its row has no events"))
    await _compare_default(connection, versions.get(DEFAULT_STREAM, 0), replay)
    return replay


async def _compare_models(connection: Connection, events: Sequence[asyncpg.Record], replay: Replay) -> None:
    ids = [model_of(event["stream"]) for event in events]
    rows = {row["id"]: row for row in await connection.fetch(MODELS, ids, timeout=TIMEOUT)}
    for model_id, event in zip(ids, events, strict=True):
        try:
            wanted = _model_row(event)
        except UnreadableEvent as error:
            replay.notes.append(f"the row of model {model_id} was not compared: {error}")
            continue
        if problem := _difference(wanted, rows.get(model_id)):
            replay.failures.append(Failure(None, f"model {model_id}", problem))


async def _compare_default(connection: Connection, version: int, replay: Replay) -> None:
    events = await connection.fetch(NEWEST, [DEFAULT_STREAM], [version], timeout=TIMEOUT)
    row = await connection.fetchrow(DEFAULTS, timeout=TIMEOUT)
    try:
        wanted = _default_row(events[0] if events else None)
    except UnreadableEvent as error:
        replay.notes.append(f"the default model was not compared: {error}")
        return
    if problem := _difference(wanted, row):
        replay.failures.append(Failure(None, "default_model", problem))


def _model_row(event: asyncpg.Record) -> Values:
    """The row that the newest event of a model leaves.

    Raises:
        UnreadableEvent: this release cannot tell.
    """
    match codec.decode(Stored(event["type"], event["schema_version"], event["body"])):
        case ModelCreated() | ModelUpdated() | ModelRolledBack() | ModelRestored():
            deleted = False
        case ModelDeleted():
            deleted = True
        case DefaultChanged():
            raise UnreadableEvent(f"{event['type']} is no event of a model")
    columns = ("version", "position", "updated_at", "actor", "actor_name", "actor_kind")
    config = bytes(msgspec.json.decode(event["body"], type=_Recorded).config).decode()
    return {"config": config, "deleted": deleted, **{column: event[column] for column in columns}}


def _default_row(event: asyncpg.Record | None) -> Values:
    """The row that the newest event of the default pointer leaves (None: there are no events).

    Raises:
        UnreadableEvent: this release cannot tell.
    """
    if event is None:
        return {"model_id": None, "version": 0, "position": 0}
    change = codec.decode(Stored(event["type"], event["schema_version"], event["body"]))
    if not isinstance(change, DefaultChanged):
        raise UnreadableEvent(f"{event['type']} is no event of the default pointer")
    return {"model_id": change.model_id, "version": event["version"], "position": event["position"]}


def _difference(wanted: Values, row: asyncpg.Record | None) -> str | None:
    maker = f"position {wanted['position']}" if wanted["position"] else "a ledger without such events"
    if row is None:
        return f"its row, as {maker} makes it, is missing"
    columns = [column for column, value in wanted.items() if row[column] != value]
    return f"its row is not as {maker} makes it: {', '.join(columns)} differs" if columns else None
