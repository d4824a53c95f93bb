"""Where the workers are: whether a change is live everywhere."""

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from application.workers import WorkerRoll, Workers
from domain.access import Permission


class WorkerController(Controller):
    """All workers that serve this ledger."""

    path = "/api/config/workers"
    tags = ("operations",)

    @get("/", permission=Permission.READ_MODELS)
    async def workers(self, roll: NamedDependency[WorkerRoll]) -> Response[Workers]:
        """Each worker's position and state; `live` of them know the newest change."""
        return Response(await roll.workers(), headers={"Cache-Control": "no-store"})
