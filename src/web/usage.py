"""How the versions of a model did when they were called."""

from datetime import UTC, datetime, timedelta
from typing import Final

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from application.usage import Grouping, UsageReader, UsageView
from domain.access import Permission
from domain.errors import InvalidInput, Problem
from domain.values import parse_model_id
from web.instants import parse_instant

WINDOW: Final = timedelta(days=7)
"""What a question without `since` is about."""


class UsageController(Controller):
    """What is known of one model's calls; it is no part of the ledger."""

    path = "/api/config/models/{model_id:str}/usage"
    tags = ("history",)

    @get("/", permission=Permission.READ_HISTORY)
    async def usage(
        self,
        usage: NamedDependency[UsageReader],
        model_id: FromPath[str],
        by: FromQuery[Grouping] = "version",
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
    ) -> Response[UsageView]:
        """Requests, errors, times (s) and tokens by version; a deleted model's too. Without `since`: 7 days.

        An error is a status of 500 or above, 429, or a stream that broke. Times are of successful calls.
        """
        wanted = parse_model_id(model_id)
        end = datetime.now(UTC) if until is None else parse_instant(until, "until")
        begin = end - WINDOW if since is None else parse_instant(since, "since")
        if begin >= end:
            raise InvalidInput([Problem("/since", "invalid_value", "before until, which is now if left out")])
        view = await usage.usage(wanted, by=by, since=begin, until=end)
        return Response(view, headers={"Cache-Control": "no-store"})
