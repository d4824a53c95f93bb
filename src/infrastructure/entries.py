"""Recorded events as people and programs read them: each with what it changed."""

from typing import Any, Final

import msgspec
from msgspec import UNSET
from sqlalchemy import Row, and_, select
from sqlalchemy.orm import aliased

from application.views import Entry
from domain.catalog import Event
from domain.changes import FieldChange, Fields, difference
from domain.default import DefaultChanged
from domain.model import ModelCreated, ModelRestored, ModelRolledBack
from domain.values import Actor, model_of
from infrastructure import codec
from infrastructure.codec import Stored, UnreadableEvent
from infrastructure.tables import EventRow

EVENT: Final = aliased(EventRow, name="event")
PREVIOUS: Final = aliased(EventRow, name="previous")

ENTRIES: Final = select(
    EVENT.position,
    EVENT.stream,
    EVENT.version,
    EVENT.type,
    EVENT.schema_version,
    EVENT.body,
    EVENT.actor,
    EVENT.actor_name,
    EVENT.reason,
    EVENT.meta,
    EVENT.recorded_at,
    EVENT.hash,
    PREVIOUS.type.label("previous_type"),
    PREVIOUS.schema_version.label("previous_schema_version"),
    PREVIOUS.body.label("previous_body"),
).outerjoin(PREVIOUS, and_(PREVIOUS.stream == EVENT.stream, PREVIOUS.version == EVENT.version - 1))
"""Events, each beside the one before it in its stream."""


def entry(row: Row[Any]) -> Entry:
    """One row of `ENTRIES`."""
    event = _decoded(row.type, row.schema_version, row.body)
    previous = _decoded(row.previous_type, row.previous_schema_version, row.previous_body)
    meta = msgspec.json.decode(row.meta)
    model_id = model_of(row.stream)
    if isinstance(event, DefaultChanged):
        model_id = event.model_id
    return Entry(
        position=row.position,
        model_id=model_id,
        version=row.version,
        type=row.type,
        actor=Actor(row.actor, row.actor_name or "", meta["actor_kind"]),
        source=meta["source"],
        at=row.recorded_at,
        reason=row.reason,
        request_id=meta["request_id"],
        changes=_changes(event, previous),
        config=None if event is None or isinstance(event, DefaultChanged) else event.config,
        hash=row.hash.hex(),
        to_version=_target(event),
    )


def _changes(event: Event | None, previous: Event | None) -> list[FieldChange]:
    # A model that is created anew owes nothing to what had its id before.
    old: Fields = {} if previous is None or isinstance(event, ModelCreated) else _fields(previous)
    return [] if event is None else difference(old, _fields(event))


def _fields(event: Event) -> Fields:
    if isinstance(event, DefaultChanged):
        return {"model_id": event.model_id}
    return event.config.fields()


def _target(event: Event | None) -> int | msgspec.UnsetType:
    match event:
        case ModelRolledBack(to_version=version) | ModelRestored(from_version=version):
            return version
        case _:
            return UNSET


def _decoded(kind: str | None, schema_version: int, body: str) -> Event | None:
    if kind is None:
        return None
    try:
        return codec.decode(Stored(kind, schema_version, body))
    except UnreadableEvent:
        return None  # shown without its content; the health page says that this release is too old
