"""What the contract tells of the routes below /v1: the fields that the gateway itself looks at, and no more.

All other fields are those of the provider's API, in requests as in answers.
"""

from collections.abc import Mapping
from typing import Final

from web.gateway.event_streams import HEADERS
from web.gateway.operations import CHAT, EMBEDDINGS, RESPONSES, GatewayOperation
from web.gateway.requests import JSON
from web.schemas import Document, ref

EVENT_STREAM: Final = HEADERS["content-type"].partition(";")[0]

MODEL: Final = {"type": "string", "description": "A model's id or one of its aliases."}
STREAM: Final = {"type": ["boolean", "null"], "description": "Whether the answer comes as events."}
LIMIT: Final = {
    "type": ["integer", "null"],
    "description": "Tokens of the answer; at most the model's limit.",
}
SAMPLING: Final = {"type": ["number", "null"], "description": "Dropped where the model does not take it."}

GATEWAY_SCHEMAS: Final[Mapping[str, Document]] = {
    "ChatRequest": {
        "title": "ChatRequest",
        "description": "A chat completion as the OpenAI API has it; fields that are not named here pass.",
        "type": "object",
        "properties": {
            "model": MODEL,
            "messages": {"type": "array", "minItems": 1, "items": {}},
            "stream": STREAM,
            "stream_options": {},
            "max_tokens": LIMIT,
            "max_completion_tokens": LIMIT,
            "temperature": SAMPLING,
            "top_p": SAMPLING,
        },
        "required": ["model", "messages"],
    },
    "EmbeddingsRequest": {
        "title": "EmbeddingsRequest",
        "description": "Embeddings as the OpenAI API has them; fields that are not named here pass.",
        "type": "object",
        "properties": {"model": MODEL, "input": {"description": "A text, texts, or their tokens."}},
        "required": ["model", "input"],
    },
    "ResponseRequest": {
        "title": "ResponseRequest",
        "description": "A response as the OpenAI API has it; fields that are not named here pass.",
        "type": "object",
        "properties": {
            "model": MODEL,
            "input": {"description": "A text or items; may be left out beside a stored prompt."},
            "stream": STREAM,
            "max_output_tokens": LIMIT,
            "temperature": SAMPLING,
            "top_p": SAMPLING,
        },
        "required": ["model"],
    },
    "GatewayError": {
        "title": "GatewayError",
        "description": "An error as the OpenAI API has it.",
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "code": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    },
}
REQUESTS: Final[Mapping[str, tuple[GatewayOperation, str]]] = {
    f"/v1{operation.path}": (operation, name)
    for operation, name in (
        (CHAT, "ChatRequest"),
        (EMBEDDINGS, "EmbeddingsRequest"),
        (RESPONSES, "ResponseRequest"),
    )
}


def tell_gateway(paths: Document) -> None:
    """Complete the routes below /v1."""
    for path, item in paths.items():
        for operation in item.values() if path.startswith("/v1/") else ():
            operation["responses"]["4XX"] = operation["responses"]["5XX"] = {
                "description": "An error",
                "content": {JSON: {"schema": ref("GatewayError")}},
            }
    for path, (operation, name) in REQUESTS.items():
        post = paths[path]["post"]
        body = {JSON: {"schema": ref(name)}}
        post["requestBody"] = {"required": True, "content": body}
        answers = {JSON: {"schema": {"type": "object", "description": "As the provider answers it."}}}
        if operation.form is not None:
            answers[EVENT_STREAM] = {
                "schema": {"type": "string", "description": "The provider's events, as they come."}
            }
        post["responses"]["200"] = {
            "description": "The provider's answer",
            "headers": ANSWER_HEADERS,
            "content": answers,
        }


def _header(kind: str, description: str) -> Document:
    return {"schema": {"type": kind}, "description": description}


ANSWER_HEADERS: Final[Mapping[str, Document]] = {
    "x-model-ledger-model": _header("string", "The model that answered."),
    "x-model-ledger-version": _header("integer", "The version of its configuration."),
    "x-model-ledger-position": _header("integer", "That version's position in the ledger."),
    "x-model-ledger-attempts": _header("integer", "Tries, over all models that were asked."),
    "x-model-ledger-asked": _header("string", "The name in the request, if it is another one."),
    "x-model-ledger-adjusted": _header("string", "Each field that was changed or dropped, and how."),
    "x-provider-request-id": _header("string", "The provider's own id of the request, if it told one."),
}
