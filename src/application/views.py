"""What can be read back, and the port that reads it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from msgspec import UNSET, Struct, UnsetType

from application.ports import Source
from domain.changes import FieldChange, PatchOperation
from domain.configuration import FIELDS, ModelConfig
from domain.values import Actor, ModelId


class ModelView(ModelConfig, frozen=True, kw_only=True):
    """A model: its configuration, and the event that it comes from."""

    version: int
    position: int
    is_default: bool
    updated_at: datetime
    updated_by: Actor

    def config(self) -> ModelConfig:
        """The configuration alone."""
        return ModelConfig(**{field: getattr(self, field) for field in FIELDS})


class Entry(Struct, frozen=True):
    """One event as people and programs read it.

    `changes` compares with the version before it, `config` is the configuration after it; both are
    empty and None for an event that this release cannot read. `model_id` is None only for a change of
    the default to none.
    """

    position: int
    model_id: str | None
    version: int
    type: str
    actor: Actor
    source: Source
    at: datetime
    reason: str | None
    request_id: str
    changes: list[FieldChange]
    config: ModelConfig | None
    hash: str
    to_version: int | UnsetType = UNSET
    """The version that a rollback or a restore brought back."""


class Page(Struct, frozen=True):
    """Some entries, newest first; `next_cursor` leads to the older ones, null on the last page."""

    data: list[Entry]
    next_cursor: str | None


class Blame(Struct, frozen=True):
    """Who last changed a field, when, and why."""

    version: int
    actor: Actor
    at: datetime
    reason: str | None


class Difference(Struct, frozen=True):
    """What leads from one version's configuration to another's."""

    model_id: str
    from_version: int
    to_version: int
    changes: list[FieldChange]
    patch: list[PatchOperation]


class DefaultView(Struct, frozen=True):
    """The default pointer; null when no model is the default."""

    model_id: str | None
    version: int
    position: int


class EventFilter(Struct, frozen=True):
    """Which events of the whole ledger; None means any."""

    model_id: ModelId | None = None
    actor: str | None = None
    type: str | None = None
    source: Source | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    """Found in the reason, the actor's name or the model's id, in any case."""


Liveness = Literal["live", "deleted", "absent"]


@runtime_checkable
class Views(Protocol):
    """Reads the ledger and its projection. Every method raises `StoreUnavailable` when it cannot."""

    async def models(self, at: int | None = None) -> dict[str, ModelView]:
        """Every live model by id, now or as of a position."""
        ...

    async def model(
        self, model_id: ModelId, *, version: int | None = None, at: int | None = None
    ) -> ModelView:
        """One model now, as of a position, or with the configuration of one version.

        A version of a model that is deleted now can still be read.

        Raises:
            ModelNotFound: it is (or was then) not live.
            VersionNotFound: it has no such version.
        """
        ...

    async def liveness(self, model_id: ModelId) -> tuple[Liveness, int]:
        """Whether a model is in service, and its newest version (0 when absent)."""
        ...

    async def config(self, model_id: ModelId, version: int) -> ModelConfig:
        """The configuration that a version left behind.

        Raises:
            ModelNotFound: nothing was ever recorded under that id.
            VersionNotFound: it has no such version.
        """
        ...

    async def history(self, model_id: ModelId, *, before: int | None, limit: int) -> Page:
        """A model's entries, newest first, below a version. The cursor is the last one's version.

        Raises:
            ModelNotFound: nothing was ever recorded under that id.
        """
        ...

    async def blame(self, model_id: ModelId) -> dict[str, Blame]:
        """For each field that is set now (or was at the deletion): the change that made it so.

        Raises:
            ModelNotFound: nothing was ever recorded under that id.
        """
        ...

    async def events(self, wanted: EventFilter, *, before: int | None, limit: int) -> Page:
        """Entries of the whole ledger, newest first, below a position. The cursor is a position."""
        ...

    async def events_after(self, position: int, limit: int) -> Sequence[Entry]:
        """Entries of the whole ledger, oldest first, above a position."""
        ...

    async def default(self) -> DefaultView:
        """Which model is the default."""
        ...

    async def position_at(self, instant: datetime) -> int:
        """The last position recorded at or before an instant; 0 when there is none."""
        ...

    async def head(self) -> int:
        """The last position; 0 for an empty ledger."""
        ...
