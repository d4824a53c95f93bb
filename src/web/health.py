"""Whether this worker lives, and whether it serves."""

from collections.abc import Callable
from typing import Literal

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from domain.access import Permission


class Readiness(Struct, frozen=True):
    """`ready`, `degraded` (it serves, and says what is not well), or `starting` (503)."""

    status: Literal["ready", "degraded", "starting"]
    position: int
    """The last position of the ledger that this worker serves."""
    follower: Literal["listening", "polling", "disconnected"]
    degraded: list[str]


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
        status = 503 if readiness.status == "starting" else 200
        return Response(readiness, status_code=status, headers={"Cache-Control": "no-store"})
