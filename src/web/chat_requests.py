"""What the gateway itself asks of a chat completion; everything else is the provider's to judge."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Request
from msgspec import Raw, Struct

from web.openai_errors import GatewayRefusal

JSON: Final = "application/json"
FULL_ARRAY: Final = re.compile(rb"\[\s*[^\]\s]")
FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


class ChatRequest(Struct, frozen=True):
    """A chat completion as it was asked for."""

    model: str
    fields: Mapping[str, Raw]
    """The top-level fields; the values byte for byte."""

    def include_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        try:
            options = msgspec.json.decode(self.fields.get("stream_options", b"{}"), type=_StreamOptions)
        except msgspec.DecodeError:
            return False
        return options.include_usage


class _StreamOptions(Struct):
    include_usage: bool = False


def refuse_query(request: Request[Any, Any, Any]) -> None:
    """These routes have no query parameters.

    Raises:
        GatewayRefusal: 400, there is one.
    """
    if request.scope["query_string"]:
        names = ", ".join(sorted(request.query_params))[:200]
        raise GatewayRefusal(400, f"unknown query parameters: {names}", code="unknown_parameter")


async def read_chat_request(request: Request[Any, Any, Any]) -> ChatRequest:
    """Read the body and check it.

    Raises:
        GatewayRefusal: 415 for another content type, 400 for a body that is not understood.
    """
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != JSON:
        raise GatewayRefusal(415, f"send the body as {JSON}, not as {sent[:100] or 'nothing'}")
    body = await request.body()
    try:
        str(body, "utf-8")  # values are taken unread
        fields = FIELDS.decode(body)
        if _may_double(body) and _top_level_names(body).count("model") > 1:
            raise GatewayRefusal(400, "'model' stands twice in the body", param="model", code="doubled_key")
    except (ValueError, RecursionError) as error:
        told = f"the body is not understood as a JSON object: {error}"
        raise GatewayRefusal(400, told, code="invalid_json") from None
    return ChatRequest(_model(fields), _checked(fields))


def _checked(fields: dict[str, Raw]) -> dict[str, Raw]:
    messages = fields.get("messages")
    if messages is None:
        raise _missing("messages")
    if not FULL_ARRAY.match(messages):
        raise GatewayRefusal(400, "'messages' is a non-empty array", param="messages", code="invalid_value")
    if bytes(fields.get("stream", b"false")) not in {b"true", b"false", b"null"}:
        raise GatewayRefusal(400, "'stream' is a boolean", param="stream", code="invalid_type")
    return fields


def _model(fields: dict[str, Raw]) -> str:
    if "model" not in fields:
        raise _missing("model")
    try:
        return msgspec.json.decode(fields["model"], type=str)
    except ValueError:
        raise GatewayRefusal(400, "'model' is a string", param="model", code="invalid_type") from None


def _missing(param: str) -> GatewayRefusal:
    told = f"missing required parameter: {param!r}"
    return GatewayRefusal(400, told, param=param, code="missing_required_parameter")


def _may_double(body: bytes) -> bool:
    # Cheap, and wrong on one side only: the name may stand deeper, or in text. Escapes can hide letters.
    return body.count(b'"model"') != 1 or b"\\u006" in body


def _top_level_names(body: bytes) -> list[str]:
    pairs: list[tuple[str, object]] = json.loads(body, object_pairs_hook=list)
    return [name for name, _ in pairs]
