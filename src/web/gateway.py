"""The gateway: what the OpenAI SDKs expect below /v1, answered by the models of the ledger."""

from typing import Any, Final, Literal

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from application.ports import Clients, LiveModel, ProviderFailed
from domain.access import Permission
from domain.errors import ModelNotFound
from web.chat_answers import ChatAnswer
from web.chat_requests import read_chat_request, refuse_query
from web.openai_errors import GatewayRefusal, openai_failure

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


def _answer_failure(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return openai_failure(error)


class GatewayController(Controller):
    """The routes below /v1."""

    path = "/v1"
    tags = ("gateway",)
    exception_handlers = {GatewayRefusal: _answer_failure, ProviderFailed: _answer_failure}  # noqa: RUF012

    @get("/models", permission=Permission.CALL_MODELS)
    async def list_models(
        self, request: Request[Any, Any, Any], clients: NamedDependency[Clients]
    ) -> Response[ModelList]:
        """Every model that can be called now, by id."""
        refuse_query(request)
        return Response(ModelList("list", [_card(model) for model in clients.models()]))

    @get("/models/{model_id:str}", permission=Permission.CALL_MODELS)
    async def read_model(
        self, request: Request[Any, Any, Any], clients: NamedDependency[Clients], model_id: FromPath[str]
    ) -> Response[ModelCard]:
        """One model."""
        refuse_query(request)
        for model in clients.models():
            if model.model_id == model_id:
                return Response(_card(model))
        raise ModelNotFound(model_id)

    @post(
        "/chat/completions",
        permission=Permission.CALL_MODELS,
        status_code=200,
        request_max_body_size=BODY_LIMIT,
    )
    async def complete_chat(
        self, request: Request[Any, Any, Any], clients: NamedDependency[Clients]
    ) -> ChatAnswer:
        """A chat completion, plain or streamed. Fields that the gateway does not know pass untouched."""
        refuse_query(request)
        return ChatAnswer(clients, await read_chat_request(request))


def _card(model: LiveModel) -> ModelCard:
    return ModelCard(model.model_id, "model", int(model.recorded_at.timestamp()), "model-ledger")
