"""Whether this worker lives, and whether it serves."""

from collections.abc import Callable
from typing import Literal

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from domain.access import Permission

Status = Literal["ready", "degraded", "starting", "stopping"]


class Readiness(Struct, frozen=True):
    """`ready`, `degraded` (it serves, and says what is not well), `starting` or `stopping` (503)."""

    status: Status
    position: int
    """The last position of the ledger that this worker serves."""
    follower: Literal["listening", "polling", "disconnected"]
    degraded: list[str]
    snapshot_age: int | None
    """Seconds since the local snapshot that is served was the ledger's state; null once that was read."""


Health = Callable[[], Readiness]


class HealthController(Controller):
    """The probes of an orchestrator; open to everyone, so they name no model and no address."""

    tags = ("operations",)

    @get("/livez", permission=Permission.PUBLIC, media_type="text/plain")
    async def livez(self) -> str:
        """The process answers; depends on nothing."""
        return "ok"

    @get("/readyz", permission=Permission.PUBLIC)
    async def readyz(self, health: NamedDependency[Health]) -> Response[Readiness]:
        """Whether calls are served, and what is degraded."""
        readiness = health()
        status = 503 if readiness.status in {"starting", "stopping"} else 200
        return Response(readiness, status_code=status, headers={"Cache-Control": "no-store"})
