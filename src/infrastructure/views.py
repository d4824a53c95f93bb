"""The read side on PostgreSQL: the present from the projection's mapped tables, the past from the events."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from advanced_alchemy.config import SQLAlchemyAsyncConfig
from sqlalchemy import ColumnElement, Row, Select, func, literal_column, or_, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from application.views import Blame, DefaultView, Entry, EventFilter, Liveness, ModelView, Page
from domain.configuration import FIELDS, ModelConfig
from domain.default import DefaultChanged
from domain.errors import ModelFrozen, ModelNotFound, StoreUnavailable, VersionNotFound
from domain.model import ModelDeleted
from domain.values import DEFAULT_STREAM, Actor, ModelId, model_of, model_stream
from infrastructure import codec
from infrastructure.codec import Stored, UnreadableEvent
from infrastructure.database import LOST
from infrastructure.entries import ENTRIES, EVENT, entry
from infrastructure.tables import DefaultRow, EventRow, ModelRow

logger = logging.getLogger(__name__)

BLAME_PAGE: Final = 500
"""Events read at a time while the change of each field is looked for."""

TICK: Final = timedelta(microseconds=1)
LARGEST_VERSION: Final = 2**31 - 1
"""What the column can hold; a version beyond it is one that does not exist."""

PRESENT: Final = select(
    ModelRow.id,
    ModelRow.config,
    ModelRow.version,
    ModelRow.position,
    ModelRow.updated_at,
    ModelRow.actor,
    ModelRow.actor_name,
    ModelRow.actor_kind,
    select(DefaultRow.model_id).scalar_subquery().label("default_id"),
).where(ModelRow.deleted.is_(False))


class PostgresViews:
    """Answers from one statement each, so that every answer is of one moment."""

    def __init__(self, alchemy: SQLAlchemyAsyncConfig) -> None:
        self._alchemy = alchemy

    async def models(self, at: int | None = None) -> dict[str, ModelView]:
        """See `Views.models`."""
        if at is None:
            rows = await self._rows(PRESENT.order_by(ModelRow.id))
            return {row.id: view for row in rows if (view := _present(row))}
        newest = _newest(EventRow.stream == func.concat("model/", ModelRow.id), at).lateral()
        rows = await self._rows(
            select(newest).select_from(ModelRow).join(newest, true()).order_by(ModelRow.id)
        )
        default = await self._default_at(at)
        live = [row for row in rows if row.type != ModelDeleted.__struct_config__.tag]
        return dict(known for row in live if (known := _readable_past(row, default)))

    async def model(
        self, model_id: ModelId, *, version: int | None = None, at: int | None = None
    ) -> ModelView:
        """See `Views.model`."""
        if version is not None:
            row = await self._version(model_id, version)
            return _past(row, await self._default_at(None))[1]
        if at is not None:
            newest = _newest(EventRow.stream == model_stream(model_id), at)
            rows = await self._rows(newest)
            if not rows:
                raise ModelNotFound(model_id)
            if rows[0].type == ModelDeleted.__struct_config__.tag:
                raise ModelNotFound(model_id, rows[0].version)
            return _past(rows[0], await self._default_at(at))[1]
        rows = await self._rows(PRESENT.where(ModelRow.id == model_id))
        if not rows:
            raise await self._missing(model_id)
        view = _present(rows[0])
        if view is None:
            raise ModelFrozen(model_stream(model_id))
        return view

    async def liveness(self, model_id: ModelId) -> tuple[Liveness, int]:
        """See `Views.liveness`."""
        rows = await self._rows(select(ModelRow.deleted, ModelRow.version).where(ModelRow.id == model_id))
        if not rows:
            return "absent", 0
        return "deleted" if rows[0].deleted else "live", rows[0].version

    async def config(self, model_id: ModelId, version: int) -> ModelConfig:
        """See `Views.config`."""
        return _past(await self._version(model_id, version), None)[1].config()

    async def history(self, model_id: ModelId, *, before: int | None, limit: int) -> Page:
        """See `Views.history`."""
        found = ENTRIES.where(EVENT.stream == model_stream(model_id)).order_by(EVENT.version.desc())
        if before is not None:
            found = found.where(EVENT.version < min(before, LARGEST_VERSION))
        rows = await self._rows(found.limit(limit + 1))
        if not rows and (await self.liveness(model_id))[0] == "absent":
            raise ModelNotFound(model_id)
        page = [entry(row) for row in rows[:limit]]
        return Page(page, str(page[-1].version) if len(rows) > limit else None)

    async def blame(self, model_id: ModelId) -> dict[str, Blame]:
        """See `Views.blame`."""
        found: dict[str, Blame] = {}
        wanted: set[str] | None = None
        before = None
        while wanted is None or wanted - found.keys():
            page = await self.history(model_id, before=before, limit=BLAME_PAGE)
            wanted = _attribute(page.data, found, wanted)
            if page.next_cursor is None:
                break
            before = int(page.next_cursor)
        set_now = found.keys() & (wanted or set())
        return {field: found[field] for field in ModelConfig.__struct_fields__ if field in set_now}

    async def events(self, wanted: EventFilter, *, before: int | None, limit: int) -> Page:
        """See `Views.events`."""
        found = _filtered(wanted)
        if wanted.since is not None:
            found = found.where(EVENT.position > await self.position_at(wanted.since - TICK))
        if wanted.until is not None:
            found = found.where(EVENT.position <= await self.position_at(wanted.until))
        if before is not None:
            found = found.where(EVENT.position < before)
        rows = await self._rows(found.limit(limit + 1))
        page = [entry(row) for row in rows[:limit]]
        return Page(page, str(page[-1].position) if len(rows) > limit else None)

    async def events_after(self, position: int, limit: int) -> Sequence[Entry]:
        """See `Views.events_after`."""
        found = ENTRIES.where(EVENT.position > position).order_by(EVENT.position)
        return [entry(row) for row in await self._rows(found.limit(limit))]

    async def default(self) -> DefaultView:
        """See `Views.default`."""
        row = (await self._rows(select(DefaultRow.model_id, DefaultRow.version, DefaultRow.position)))[0]
        return DefaultView(row.model_id, row.version, row.position)

    async def position_at(self, instant: datetime) -> int:
        """See `Views.position_at`."""
        position: int = (await self._rows(select(func.ledger_position_at(instant))))[0][0]
        return position

    async def head(self) -> int:
        """See `Views.head`."""
        position: int | None = (await self._rows(select(func.max(EventRow.position))))[0][0]
        return position or 0

    async def _version(self, model_id: ModelId, version: int) -> Row[Any]:
        if 0 < version <= LARGEST_VERSION:
            newest = _newest(EventRow.stream == model_stream(model_id), None)
            rows = await self._rows(newest.where(EventRow.version == version))
            if rows:
                return rows[0]
        if (await self.liveness(model_id))[0] == "absent":
            raise ModelNotFound(model_id)
        raise VersionNotFound(model_id, version)

    async def _missing(self, model_id: ModelId) -> ModelNotFound:
        liveness, version = await self.liveness(model_id)
        return ModelNotFound(model_id, version if liveness == "deleted" else None)

    async def _default_at(self, at: int | None) -> str | None:
        if at is None:
            return (await self.default()).model_id
        rows = await self._rows(_newest(EventRow.stream == DEFAULT_STREAM, at))
        try:
            event = codec.decode(Stored(rows[0].type, rows[0].schema_version, rows[0].body)) if rows else None
        except UnreadableEvent as error:
            raise ModelFrozen(DEFAULT_STREAM) from error
        return event.model_id if isinstance(event, DefaultChanged) else None

    async def _rows(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        async with self._session() as session:
            return (await session.execute(statement)).all()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[AsyncSession]:
        try:
            async with self._alchemy.get_session() as session:
                yield session
        except PoolTimeoutError as error:
            raise StoreUnavailable("database_unavailable", "too many reads at once; try again") from error
        except LOST as error:
            raise StoreUnavailable("database_unavailable", "the database does not answer") from error
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(getattr(error.orig, "__cause__", None), LOST):
                raise StoreUnavailable("database_unavailable", "the database does not answer") from error
            raise


def _newest(stream: ColumnElement[bool], at: int | None) -> Select[Any]:
    """The newest event of a stream, as of a position; the stream may come from the row beside it."""
    newest = select(
        EventRow.stream,
        EventRow.version,
        EventRow.position,
        EventRow.type,
        EventRow.schema_version,
        EventRow.body,
        EventRow.recorded_at,
        EventRow.actor,
        EventRow.actor_name,
        EventRow.meta,
    ).where(stream)
    if at is not None:
        newest = newest.where(EventRow.position <= at)
    return newest.order_by(EventRow.version.desc()).limit(1)


def _filtered(wanted: EventFilter) -> Select[Any]:
    found = ENTRIES.order_by(EVENT.position.desc())
    if wanted.model_id is not None:
        # The same order, and the one that the stream's own index has.
        found = ENTRIES.where(EVENT.stream == model_stream(wanted.model_id)).order_by(EVENT.version.desc())
    if wanted.actor is not None:
        found = found.where(EVENT.actor == wanted.actor)
    if wanted.type is not None:
        found = found.where(EVENT.type == wanted.type)
    if wanted.source is not None:
        found = found.where(literal_column("event.meta ->> 'source'") == wanted.source)
    if wanted.text is not None:
        texts = (EVENT.reason, EVENT.actor_name, EVENT.stream)
        found = found.where(or_(*(column.icontains(wanted.text, autoescape=True) for column in texts)))
    return found


def _present(row: Row[Any]) -> ModelView | None:
    """A row of `PRESENT`; None when a newer release wrote its configuration."""
    fields = {
        **msgspec.json.decode(row.config),
        "version": row.version,
        "position": row.position,
        "is_default": row.id == row.default_id,
        "updated_at": row.updated_at,
        "updated_by": Actor(row.actor, row.actor_name or "", row.actor_kind),
    }
    try:
        return msgspec.convert(fields, ModelView)
    except msgspec.ValidationError:
        logger.warning("model %s: its configuration was written by a newer release", row.id)
        return None


def _past(row: Row[Any], default: str | None) -> tuple[str, ModelView]:
    """A model as one of its events left it, with its id."""
    model_id = model_of(row.stream) or ModelId("")
    try:
        event = codec.decode(Stored(row.type, row.schema_version, row.body))
    except UnreadableEvent as error:
        raise ModelFrozen(row.stream) from error
    if isinstance(event, DefaultChanged):
        raise TypeError(f"{row.stream} holds an event of the default pointer")
    kind = msgspec.json.decode(row.meta)["actor_kind"]
    view = ModelView(
        **{field: getattr(event.config, field) for field in FIELDS},
        version=row.version,
        position=row.position,
        is_default=model_id == default,
        updated_at=row.recorded_at,
        updated_by=Actor(row.actor, row.actor_name or "", kind),
    )
    return model_id, view


def _readable_past(row: Row[Any], default: str | None) -> tuple[str, ModelView] | None:
    """The same; None when a newer release wrote that event."""
    try:
        return _past(row, default)
    except ModelFrozen:
        logger.warning("%s: version %s was written by a newer release", row.stream, row.version)
        return None


def _attribute(page: Sequence[Entry], found: dict[str, Blame], wanted: set[str] | None) -> set[str]:
    """Note the newest change of each field that is set now; answers the fields that are."""
    for past in page:
        if wanted is None and past.config is not None:
            wanted = set(past.config.fields())
        for change in past.changes:
            found.setdefault(change.field, Blame(past.version, past.actor, past.at, past.reason))
    return wanted or set()
