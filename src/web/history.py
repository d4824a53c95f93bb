"""A model's past, and the ways back to it."""

from functools import partial
from typing import Annotated, Any, Literal

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from application.ledger import Ledger
from application.ports import Receipt
from application.rollback import Preview, preview_rollback, restore_command, rollback_command
from application.undo import UndoPreview, preview_undo, undo_command
from application.views import Blame, Difference, Page, Views
from domain.access import Permission
from domain.changes import as_json_patch, difference
from domain.values import parse_model_id
from web.bodies import read_struct
from web.identity import Change
from web.paging import next_link, read_cursor, read_limit
from web.receipts import answer


class Rollback(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version comes back, why, and with which credential: today's or the target's."""

    to_version: int
    reason: str | None = None
    credential: Literal["keep", "target"] = "keep"


class Restoration(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version a deleted model comes back with; left out, the one that it had last."""

    to_version: int | None = None
    reason: str | None = None


class Undo(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version's change is taken back, and why; without a reason, the change says what it undoes."""

    version: int
    reason: str | None = None


class HistoryController(Controller):
    """What became of one model, and the ways back."""

    path = "/api/config/models/{model_id:str}"
    tags = ("history",)

    @get("/history", permission=Permission.READ_HISTORY)
    async def history(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        model_id: FromPath[str],
        cursor: FromQuery[str | None] = None,
        limit: FromQuery[int] = 50,
    ) -> Response[Page]:
        """The model's entries, newest first, a deleted model's too."""
        wanted = parse_model_id(model_id)
        page = await views.history(wanted, before=read_cursor(cursor), limit=read_limit(limit))
        return Response(page, headers=next_link(request, page.next_cursor))

    @get("/diff", permission=Permission.READ_HISTORY)
    async def diff(
        self,
        views: NamedDependency[Views],
        model_id: FromPath[str],
        from_version: Annotated[int, QueryParameter(name="from")],
        to_version: Annotated[int, QueryParameter(name="to")],
    ) -> Difference:
        """What leads from one version's configuration to another's."""
        wanted = parse_model_id(model_id)
        old, new = await views.config(wanted, from_version), await views.config(wanted, to_version)
        changes = difference(old.fields(), new.fields())
        return Difference(wanted, from_version, to_version, changes, as_json_patch(changes))

    @get("/blame", permission=Permission.READ_HISTORY)
    async def blame(self, views: NamedDependency[Views], model_id: FromPath[str]) -> dict[str, Blame]:
        """For each field: the change that made it what it is."""
        return await views.blame(parse_model_id(model_id))

    @post("/rollback", status_code=200, permission=Permission.CHANGE_MODELS)
    async def roll_back(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        ledger: NamedDependency[Ledger],
        change: NamedDependency[Change],
        model_id: FromPath[str],
        dry_run: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
    ) -> Response[Receipt] | Response[Preview]:
        """Bring an earlier version's configuration back as a new version; `dry_run` only tells."""
        wanted = parse_model_id(model_id)
        asked = await read_struct(request, Rollback)
        if dry_run:
            return Response(await preview_rollback(views, ledger, wanted, asked.to_version, asked.credential))
        prepare = partial(rollback_command, views, wanted, asked.to_version, asked.credential)
        return answer(await change.because(asked.reason).execute(ledger, prepare))

    @post("/undo", status_code=200, permission=Permission.CHANGE_MODELS)
    async def undo(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        ledger: NamedDependency[Ledger],
        change: NamedDependency[Change],
        model_id: FromPath[str],
        dry_run: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
    ) -> Response[Receipt] | Response[UndoPreview]:
        """Take back what one version changed and keep what later ones did; `dry_run` only tells.

        409 with the fields that were changed again since, if there are any.
        """
        wanted = parse_model_id(model_id)
        asked = await read_struct(request, Undo)
        if dry_run:
            return Response(await preview_undo(views, ledger, wanted, asked.version))
        noted = change.because(asked.reason)
        if noted.context.reason is None:
            noted = noted.because(f"undo of version {asked.version}")
        return answer(await noted.execute(ledger, partial(undo_command, views, wanted, asked.version)))

    @post("/restore", status_code=200, permission=Permission.CHANGE_MODELS)
    async def restore(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        ledger: NamedDependency[Ledger],
        change: NamedDependency[Change],
        model_id: FromPath[str],
    ) -> Response[Receipt]:
        """Bring a deleted model back. 400 when it is live."""
        wanted = parse_model_id(model_id)
        asked = await read_struct(request, Restoration, optional=True)
        prepare = partial(restore_command, views, wanted, asked.to_version)
        return answer(await change.because(asked.reason).execute(ledger, prepare))
