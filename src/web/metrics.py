"""The metrics of the whole service, for Prometheus to scrape."""

from collections.abc import Awaitable, Callable
from typing import Final

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.types import Scope

from domain.access import Permission
from web.gateway.openai_errors import openai_failure

TEXT: Final = "text/plain; version=0.0.4"

Scrape = Callable[[], Awaitable[bytes]]
"""The metrics of all workers in Prometheus' text format."""
Refused = Callable[[int], None]
"""Told the status of each request below /v1 that came to no model."""


class MetricsController(Controller):
    """For a token that may read metrics and, where the operator allows it, for programs of this machine."""

    tags = ("operations",)

    @get("/metrics", permission=Permission.READ_METRICS, media_type="text/plain")
    async def metrics(self, scrape: NamedDependency[Scrape]) -> Response[bytes]:
        """The metrics of all workers, whichever of them answers, in Prometheus' text format."""
        return Response(await scrape(), media_type=TEXT, headers={"Cache-Control": "no-store"})


class CountRefusals:
    """Told of every exception that becomes an answer, it counts those that no call's record tells of."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused

    async def __call__(self, error: Exception, scope: Scope) -> None:
        """See `after_exception` of the framework."""
        if scope["path"].startswith("/v1/"):
            answer = openai_failure(error)
            if "x-model-ledger-model" not in answer.headers:
                self._refused(answer.status_code or 500)
