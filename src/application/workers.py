"""The workers that serve one ledger, wherever they run."""

from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

Status = Literal["starting", "ready", "degraded", "stopping"]


class WorkerState(Struct, frozen=True):
    """What a worker says of itself."""

    position: int
    """The last position that its calls and reads know."""
    status: Status
    follower: str
    """How it learns of changes: `listening`, `polling` or `disconnected`."""
    degraded: list[str]
    """Why it is not simply ready."""


class WorkerView(WorkerState, frozen=True):
    """A worker as the others see it."""

    id: str
    started_at: datetime
    seen_at: datetime


class Workers(Struct, frozen=True):
    """All workers that were heard of just now: `live` of `total` know the ledger's newest position."""

    position: int
    live: int
    total: int
    workers: list[WorkerView]


@runtime_checkable
class WorkerRoll(Protocol):
    """Knows the workers."""

    async def workers(self) -> Workers:
        """Those of now, the oldest first.

        Raises:
            StoreUnavailable: the database is away.
        """
        ...
