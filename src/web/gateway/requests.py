"""A request for a model's answer, read and checked."""

from typing import Any, Final

from litestar import Request
from msgspec import Struct

from application.ports import Caller
from domain.shaping import Fields
from domain.values import Actor
from web.gateway.openai_errors import GatewayRefusal
from web.gateway.operations import GatewayOperation
from web.gateway.request_fields import read_fields, read_model, read_stream

JSON: Final = "application/json"


class GatewayRequest(Struct, frozen=True):
    """A request as it was asked."""

    operation: GatewayOperation
    caller: Actor
    model: str
    """The name that stands in it: an id or an alias."""
    fields: Fields
    stream: bool
    """Whether the answer is to come as a stream."""


def refuse_query(request: Request[Any, Any, Any]) -> None:
    """These routes have no query parameters.

    Raises:
        GatewayRefusal: 400, there is one.
    """
    if request.scope["query_string"]:
        names = ", ".join(sorted(request.query_params))[:200]
        raise GatewayRefusal(400, f"unknown query parameters: {names}", code="unknown_parameter")


async def read_request(request: Request[Caller, Any, Any], operation: GatewayOperation) -> GatewayRequest:
    """Read the body and check it.

    Raises:
        GatewayRefusal: 415 for another content type, 400 for a body that is not understood.
    """
    refuse_query(request)
    sent = request.headers.get("content-type", "")
    if sent != JSON and sent.partition(";")[0].strip().lower() != JSON:
        raise GatewayRefusal(415, f"send the body as {JSON}, not as {sent[:100] or 'nothing'}")
    fields = read_fields(await request.body())
    model = read_model(fields)
    operation.check(fields)
    stream = operation.form is not None and read_stream(fields)
    return GatewayRequest(operation, request.user.actor, model, fields, stream)
