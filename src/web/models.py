"""The models' routes: the present, the past, and every change but the ways back."""

from collections.abc import Mapping
from typing import Any

from litestar import Controller, Request, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from application.connection_test import ConnectionReport, ConnectionTester
from application.ledger import Ledger
from application.patch import PatchModel, json_patch, merge_patch
from application.ports import Receipt
from application.views import DefaultView, ModelView, Views
from domain.access import Permission
from domain.configuration import KeyOrigins, ModelConfig, check
from domain.default import SetDefault
from domain.errors import InvalidInput, Problem
from domain.model import CreateModel, DeleteModel, UpdateModel
from domain.values import parse_model_id
from web.bodies import JSON_PATCH, MERGE_PATCH, read_json, read_struct
from web.identity import Change
from web.instants import read_position
from web.preconditions import etag, not_modified
from web.receipts import answer


class DefaultChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """Which model is to be the default; null for none."""

    model_id: str | None


class ModelController(Controller):
    """One model, and all of them."""

    path = "/api/config/models"
    tags = ("models",)

    @get("/", permission=Permission.READ_MODELS)
    async def list_models(
        self,
        views: NamedDependency[Views],
        as_of: FromQuery[str | None] = None,
        at: FromQuery[int | None] = None,
    ) -> Response[dict[str, ModelView]]:
        """Every live model by id, now, at an instant, or at a position."""
        models = await views.models(await read_position(views, as_of, at))
        return Response(models, headers={"Cache-Control": "no-store"})

    @get("/{model_id:str}", permission=Permission.READ_MODELS)
    async def read_model(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        model_id: FromPath[str],
        version: FromQuery[int | None] = None,
        as_of: FromQuery[str | None] = None,
        at: FromQuery[int | None] = None,
    ) -> Response[ModelView | None]:
        """One model: now, as a version left it, at an instant, or at a position."""
        wanted = parse_model_id(model_id)
        if version is not None and (as_of is not None or at is not None):
            raise InvalidInput([Problem("/version", "ambiguous", "version, as_of or at, only one of them")])
        model = await views.model(wanted, version=version, at=await read_position(views, as_of, at))
        headers = {"ETag": etag(model.version), "Cache-Control": "no-cache"}
        if not_modified(request, model.version):
            return Response(None, status_code=304, headers=headers)
        return Response(model, headers=headers)

    @post("/{model_id:str}", permission=Permission.CHANGE_MODELS, creates=True)
    async def create_model(
        self,
        request: Request[Any, Any, Any],
        ledger: NamedDependency[Ledger],
        origins: NamedDependency[KeyOrigins],
        change: NamedDependency[Change],
        model_id: FromPath[str],
    ) -> Response[Receipt]:
        """Make a model live; the first one becomes the default. 400 when the id is taken."""
        wanted = parse_model_id(model_id)
        command = CreateModel(wanted, await _read_config(request, origins))
        return answer(await change.execute(ledger, command))

    @put("/{model_id:str}", permission=Permission.CHANGE_MODELS)
    async def update_model(
        self,
        request: Request[Any, Any, Any],
        ledger: NamedDependency[Ledger],
        origins: NamedDependency[KeyOrigins],
        change: NamedDependency[Change],
        model_id: FromPath[str],
    ) -> Response[Receipt]:
        """Replace the whole configuration. What is the same already records nothing."""
        wanted = parse_model_id(model_id)
        command = UpdateModel(wanted, await _read_config(request, origins))
        return answer(await change.execute(ledger, command))

    @patch("/{model_id:str}", permission=Permission.CHANGE_MODELS)
    async def patch_model(
        self,
        request: Request[Any, Any, Any],
        ledger: NamedDependency[Ledger],
        change: NamedDependency[Change],
        model_id: FromPath[str],
    ) -> Response[Receipt]:
        """Change some fields: a merge patch (RFC 7396) or a JSON Patch (RFC 6902)."""
        wanted = parse_model_id(model_id)
        document, media_type = await read_json(request, MERGE_PATCH, JSON_PATCH)
        apply = merge_patch(document) if media_type == MERGE_PATCH else json_patch(document)
        return answer(await change.execute(ledger, PatchModel(wanted, apply)))

    @post("/{model_id:str}/test", status_code=200, permission=Permission.CHANGE_MODELS)
    async def test_connection(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        origins: NamedDependency[KeyOrigins],
        tester: NamedDependency[ConnectionTester],
        model_id: FromPath[str],
    ) -> Response[ConnectionReport]:
        """Try a configuration out with one small call, step by step; without a body the one that is saved.

        Nothing is recorded. The configuration keeps the rules of one that is saved.
        """
        wanted = parse_model_id(model_id)
        if await request.body():
            config = await _read_config(request, origins)
        else:
            config = _checked((await views.model(wanted)).config().fields(), origins)
        return Response(await tester.test(wanted, config), headers={"Cache-Control": "no-store"})

    @delete("/{model_id:str}", status_code=200, permission=Permission.CHANGE_MODELS)
    async def delete_model(
        self,
        ledger: NamedDependency[Ledger],
        change: NamedDependency[Change],
        model_id: FromPath[str],
        new_default: FromQuery[str | None] = None,
    ) -> Response[Receipt]:
        """Take a model out of service. 400 for the default one, unless `new_default` takes over."""
        wanted = parse_model_id(model_id)
        successor = None if new_default is None else parse_model_id(new_default, "/new_default")
        return answer(await change.execute(ledger, DeleteModel(wanted, successor)))


class DefaultController(Controller):
    """The default pointer."""

    path = "/api/config/default"
    tags = ("models",)

    @get("/", permission=Permission.READ_MODELS)
    async def read_default(self, views: NamedDependency[Views]) -> Response[DefaultView]:
        """Which model is the default; null when none is."""
        default = await views.default()
        return Response(default, headers={"ETag": etag(default.version), "Cache-Control": "no-store"})

    @put("/", permission=Permission.CHANGE_MODELS)
    async def set_default(
        self,
        request: Request[Any, Any, Any],
        ledger: NamedDependency[Ledger],
        change: NamedDependency[Change],
    ) -> Response[Receipt]:
        """Make another model the default, or with null none."""
        choice = await read_struct(request, DefaultChoice)
        wanted = None if choice.model_id is None else parse_model_id(choice.model_id)
        return answer(await change.execute(ledger, SetDefault(wanted)))


async def _read_config(request: Request[Any, Any, Any], origins: KeyOrigins) -> ModelConfig:
    value, _ = await read_json(request)
    if not isinstance(value, Mapping):
        raise InvalidInput([Problem("", "invalid_type", "a configuration is a JSON object")])
    return _checked(value, origins)


def _checked(fields: Mapping[str, object], origins: KeyOrigins) -> ModelConfig:
    config, problems = check(fields, origins)
    if config is None:
        raise InvalidInput(problems)
    return config
