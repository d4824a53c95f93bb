"""The top-level fields of a request, and the few that the gateway itself looks into."""

import json
import re
from typing import Final

import msgspec
from msgspec import Raw

from domain.shaping import Fields
from web.gateway.openai_errors import GatewayRefusal

FULL_ARRAY: Final = re.compile(rb"\[\s*[^\]\s]")
BOOLEANS: Final = frozenset({b"true", b"false", b"null"})
FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


def read_fields(body: bytes) -> Fields:
    """The fields of a JSON object; their values are taken unread.

    Raises:
        GatewayRefusal: 400, the body is no object, or names the model twice.
    """
    try:
        if not body.isascii():
            str(body, "utf-8")
        fields = FIELDS.decode(body)
        if _may_double(body) and _top_level_names(body).count("model") > 1:
            raise GatewayRefusal(400, "'model' stands twice in the body", param="model", code="doubled_key")
    except (ValueError, RecursionError) as error:
        told = f"the body is not understood as a JSON object: {error}"
        raise GatewayRefusal(400, told, code="invalid_json") from None
    return fields


def read_model(fields: Fields) -> str:
    """The model's name.

    Raises:
        GatewayRefusal: 400, it is missing or no string.
    """
    if "model" not in fields:
        raise _missing("model")
    try:
        return msgspec.json.decode(fields["model"], type=str)
    except ValueError:
        raise GatewayRefusal(400, "'model' is a string", param="model", code="invalid_type") from None


def read_stream(fields: Fields) -> bool:
    """Whether a stream is asked for.

    Raises:
        GatewayRefusal: 400, `stream` is no boolean.
    """
    asked = bytes(fields.get("stream", b"false"))
    if asked not in BOOLEANS:
        raise GatewayRefusal(400, "'stream' is a boolean", param="stream", code="invalid_type")
    return asked == b"true"


def check_messages(fields: Fields) -> None:
    """A chat has messages.

    Raises:
        GatewayRefusal: 400, they are missing, or no array with something in it.
    """
    messages = fields.get("messages")
    if messages is None:
        raise _missing("messages")
    if not FULL_ARRAY.match(messages):
        raise GatewayRefusal(400, "'messages' is a non-empty array", param="messages", code="invalid_value")


def check_input(fields: Fields) -> None:
    """Embeddings are of something.

    Raises:
        GatewayRefusal: 400, it is missing.
    """
    if "input" not in fields:
        raise _missing("input")


def check_nothing(_: Fields) -> None:
    """All of it is the provider's to judge."""


def _missing(param: str) -> GatewayRefusal:
    told = f"missing required parameter: {param!r}"
    return GatewayRefusal(400, told, param=param, code="missing_required_parameter")


def _may_double(body: bytes) -> bool:
    # Cheap, and wrong on one side only: the name may stand deeper, or in text. Escapes can hide letters.
    return body.count(b'"model"') != 1 or b"\\u006" in body


def _top_level_names(body: bytes) -> list[str]:
    pairs: list[tuple[str, object]] = json.loads(body, object_pairs_hook=list)
    return [name for name, _ in pairs]
