"""The ledger in memory: an event store that keeps its port's contract, and a reader of single models."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct, structs

from application.ports import Append, Context, Idempotency, Look, Place, Receipt
from application.views import Entry, Liveness, ModelView, Page
from domain.catalog import Change, Event, Seen
from domain.configuration import FIELDS, ModelConfig
from domain.default import DefaultChanged
from domain.errors import IdempotencyMismatch, ModelFrozen, ModelNotFound, VersionConflict, VersionNotFound
from domain.links import Links, Others, check_links, links_of
from domain.model import Absent, Deleted, Live, Model, ModelDeleted, evolve, live
from domain.values import DEFAULT_STREAM, ModelId, Stream, model_of, model_stream
from infrastructure import codec
from infrastructure.codec import Stored, UnreadableEvent

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Row(Struct, frozen=True):
    """One recorded event, as it is stored."""

    stream: Stream
    place: Place
    stored: Stored
    context: Context


class MemoryEventStore:
    """Keeps the stored form of events, so that what is read back went through the codec."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.answers: dict[tuple[str, str, str, str], tuple[bytes, Receipt]] = {}

    async def look(self, streams: Sequence[Stream]) -> Look:
        """See `EventStore.look`."""
        newest = {row.stream: row for row in self.rows if row.stream in streams}
        events = {stream: (decoded(row), row.place.version) for stream, row in newest.items()}
        last = {row.stream: row.stored.type for row in self.rows if row.stream != DEFAULT_STREAM}
        any_live = any(kind != "model.deleted" for kind in last.values())
        places = {stream: row.place for stream, row in newest.items()}
        return Look(Seen(events, any_live, self._links()), places)

    async def answered(self, idempotency: Idempotency) -> Receipt | None:
        """See `EventStore.answered`."""
        fingerprint, receipt = self.answers.get(scope(idempotency), (idempotency.fingerprint, None))
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyMismatch
        return receipt

    async def append(self, append: Append) -> Receipt:
        """See `EventStore.append`. Nothing in it waits, so that nothing comes between."""
        if append.idempotency and (answer := await self.answered(append.idempotency)):
            return answer
        for stream, version in append.expected.items():
            if self.version(stream) != version:
                raise VersionConflict(stream)
        for change in append.changes:
            self._refuse_links(change)
        receipt = append.receipt
        for change in append.changes:
            self.record(change.stream, codec.encode(change.event), append.context)
            place = self.rows[-1].place
            receipt = structs.replace(receipt, position=place.position, hash=place.hash)
        if append.idempotency:
            self.answers[scope(append.idempotency)] = append.idempotency.fingerprint, receipt
        return receipt

    def record(self, stream: Stream, stored: Stored, context: Context) -> None:
        """Add one row, unchecked, as another release might."""
        previous = self.rows[-1].place.hash if self.rows else ""
        digest = hashlib.sha256(f"{previous} {len(self.rows)} {stored.body}".encode()).hexdigest()
        place = Place(self.version(stream) + 1, len(self.rows) + 1, digest)
        self.rows.append(Row(stream, place, stored, context))

    def _links(self) -> dict[ModelId, Links]:
        links = {}
        for stream, row in {row.stream: row for row in self.rows}.items():
            with suppress(ModelFrozen):
                event, model_id = decoded(row), model_of(stream)
                if model_id and not isinstance(event, ModelDeleted | DefaultChanged):
                    links[model_id] = links_of(event.config)
        return {model_id: each for model_id, each in links.items() if each != Links()}

    def _refuse_links(self, change: Change) -> None:
        """What the database holds against an append whose decision saw too little."""
        model_id = model_of(change.stream)
        if model_id is None or isinstance(change.event, ModelDeleted | DefaultChanged):
            return
        newest = {row.stream: row for row in self.rows}
        live = {model_of(stream) for stream, row in newest.items() if row.stored.type != "model.deleted"}
        links = self._links()
        old = links.get(model_id, Links()) if model_id in live else None
        others = Others(links, frozenset(each for each in live - {model_id} if each))
        new = links_of(change.event.config)
        if any(check_links(model_id, new, old, others, from_the_past=True)):
            raise VersionConflict(change.stream)

    def version(self, stream: Stream) -> int:
        return sum(row.stream == stream for row in self.rows)

    def events(self, stream: Stream) -> list[Event]:
        """All events of a stream, the oldest first."""
        return [decoded(row) for row in self.rows if row.stream == stream]


class MemoryViews:
    """Reads the present from a `MemoryEventStore`: the part of `Views` that the application itself needs."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store

    async def model(self, model_id: ModelId) -> ModelView:
        """See `Views.model`."""
        state = live(model_id, self._state(model_id))
        row = next(row for row in reversed(self._store.rows) if row.stream == model_stream(model_id))
        pointer = self._store.events(DEFAULT_STREAM)
        return ModelView(
            **{field: getattr(state.config, field) for field in FIELDS},
            version=state.version,
            position=row.place.position,
            is_default=bool(pointer) and pointer[-1] == DefaultChanged(model_id),
            updated_at=EPOCH,
            updated_by=row.context.actor,
        )

    async def models(self, at: int | None = None) -> dict[str, ModelView]:
        """See `Views.models`; only the present."""
        assert at is None
        ids = {each for row in self._store.rows if (each := model_of(row.stream))}
        return {each: await self.model(each) for each in sorted(ids) if isinstance(self._state(each), Live)}

    async def head(self) -> int:
        """See `Views.head`."""
        return len(self._store.rows)

    async def liveness(self, model_id: ModelId) -> tuple[Liveness, int]:
        """See `Views.liveness`."""
        match self._state(model_id):
            case Absent():
                return "absent", 0
            case Live(version=version):
                return "live", version
            case Deleted(version=version):
                return "deleted", version

    async def config(self, model_id: ModelId, version: int) -> ModelConfig:
        """See `Views.config`."""
        events = self._store.events(model_stream(model_id))
        if not events:
            raise ModelNotFound(model_id)
        if not 1 <= version <= len(events):
            raise VersionNotFound(model_id, version)
        event = events[version - 1]
        assert not isinstance(event, DefaultChanged)
        return event.config

    async def history(self, model_id: ModelId, *, before: int | None, limit: int) -> Page:
        """See `Views.history`."""
        rows = [row for row in reversed(self._store.rows) if row.stream == model_stream(model_id)]
        page = [_entry(model_id, row) for row in rows if before is None or row.place.version < before]
        return Page(page[:limit], str(page[limit - 1].version) if len(page) > limit else None)

    def _state(self, model_id: ModelId) -> Model:
        state: Model = Absent()
        for event in self._store.events(model_stream(model_id)):
            assert not isinstance(event, DefaultChanged)
            state = evolve(state, event)
        return state


def _entry(model_id: ModelId, row: Row) -> Entry:
    event = decoded(row)
    assert not isinstance(event, DefaultChanged)
    return Entry(
        position=row.place.position,
        model_id=model_id,
        version=row.place.version,
        type=row.stored.type,
        actor=row.context.actor,
        source=row.context.source,
        at=EPOCH,
        reason=row.context.reason,
        request_id=row.context.request_id,
        changes=[],  # nothing here asks for them
        config=event.config,
        hash=row.place.hash,
    )


def scope(idempotency: Idempotency) -> tuple[str, str, str, str]:
    return idempotency.actor, idempotency.method, idempotency.path, idempotency.key


def decoded(row: Row) -> Event:
    try:
        return codec.decode(row.stored)
    except UnreadableEvent as error:
        raise ModelFrozen(row.stream) from error
