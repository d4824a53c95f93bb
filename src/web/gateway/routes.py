"""The gateway: what the OpenAI SDKs expect below /v1, answered by the models of the ledger."""

from functools import partial
from typing import Any, Final, Literal

from litestar import Controller, Request, Response, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from application.ports import Clients, LiveModel
from domain.access import Permission
from domain.errors import ModelNotFound
from web.gateway.answers import GatewayAnswer
from web.gateway.openai_errors import GatewayRefusal, openai_failure
from web.gateway.operations import CHAT, EMBEDDINGS, RESPONSES, GatewayOperation
from web.gateway.requests import read_request, refuse_query

BODY_LIMIT: Final = 20_000_000
"""Bytes; images travel in the body."""


class ModelCard(Struct, frozen=True):
    """A model as the OpenAI API lists it; `created` is when its configuration was recorded (Unix time)."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["model-ledger"]


class ModelList(Struct, frozen=True):
    """All models that can be called."""

    object: Literal["list"]
    data: list[ModelCard]


class CallRoute(HTTPRouteHandler):
    """A route of calls, on which the framework's own work is kept small.

    It copies a handler for each guard of each request, which is a tenth of a call's way through this
    service; to inject a dependency costs half of that.
    """

    async def authorize_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """See `BaseRouteHandler.authorize_connection`."""
        for guard in self.resolve_guards():
            await guard(connection, self)  # type: ignore[misc]


call = partial(
    CallRoute,
    http_method="POST",
    status_code=200,
    permission=Permission.CALL_MODELS,
    request_max_body_size=BODY_LIMIT,
)


def _answer_failure(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return openai_failure(error)


class GatewayController(Controller):
    """The routes below /v1."""

    path = "/v1"
    tags = ("gateway",)
    exception_handlers = {GatewayRefusal: _answer_failure}  # noqa: RUF012

    @get("/models", permission=Permission.CALL_MODELS)
    async def list_models(
        self, request: Request[Any, Any, Any], clients: NamedDependency[Clients]
    ) -> Response[ModelList]:
        """Every name that can be called now; an alias stands beside the model's id, as a model of its own."""
        refuse_query(request)
        cards = [_card(name, model) for name, model in clients.names().items()]
        return Response(ModelList("list", cards))

    @get("/models/{model_id:path}", permission=Permission.CALL_MODELS)
    async def read_model(
        self, request: Request[Any, Any, Any], clients: NamedDependency[Clients], model_id: FromPath[str]
    ) -> Response[ModelCard]:
        """One model, by its id or an alias; slashes of an alias may be escaped or not."""
        refuse_query(request)
        name = model_id.removeprefix("/")
        model = clients.names().get(name)
        if model is None:
            raise ModelNotFound(name)
        return Response(_card(name, model))

    @call("/chat/completions")
    async def complete_chat(self, request: Request[Any, Any, Any]) -> GatewayAnswer:
        """A chat completion, plain or streamed. Fields that the gateway does not know pass untouched."""
        return await _answer(request, CHAT)

    @call("/embeddings")
    async def embed(self, request: Request[Any, Any, Any]) -> GatewayAnswer:
        """Embeddings of texts. Fields that the gateway does not know pass untouched."""
        return await _answer(request, EMBEDDINGS)

    @call("/responses")
    async def respond(self, request: Request[Any, Any, Any]) -> GatewayAnswer:
        """A response, plain or streamed. Fields that the gateway does not know pass untouched."""
        return await _answer(request, RESPONSES)


async def _answer(request: Request[Any, Any, Any], operation: GatewayOperation) -> GatewayAnswer:
    return GatewayAnswer(request.app.state.gateway, await read_request(request, operation))


def _card(name: str, model: LiveModel) -> ModelCard:
    return ModelCard(name, "model", int(model.recorded_at.timestamp()), "model-ledger")
