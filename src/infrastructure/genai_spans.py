"""The names of OpenTelemetry's conventions for generative AI, as this service uses them.

The conventions are in development, so they are pinned here: those of semantic-conventions-genai as it was in
November 2026, and nothing of a call's content. `docs/operations.md` has the same table for readers.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from application.ports import CallRecord, LiveModel, Operation
from application.telemetry import Answered

SCOPE: Final = "model_ledger.gateway"
SCHEMES: Final = {"http": 80, "https": 443}
LENGTH: Final = 256
"""Characters of a text that a provider chose."""
REASONS: Final = 16
PROVIDERS: Final = {"azure": "azure.ai.openai", "openai": "openai"}

Value = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, Value]

OPERATIONS: Final[Mapping[Operation, Attributes]] = {
    "chat": {"gen_ai.operation.name": "chat", "openai.api.type": "chat_completions"},
    "responses": {"gen_ai.operation.name": "chat", "openai.api.type": "responses"},
    "embeddings": {"gen_ai.operation.name": "embeddings"},
}

DURATION: Final = "gen_ai.client.operation.duration"
FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - no secret
SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS: Final = tuple(4**power for power in range(14))
"""Bounds of the buckets, as the conventions want them."""


class Described(Struct, frozen=True):
    """What is known of a call before it is made."""

    span_name: str
    of_span: Attributes
    of_metrics: Attributes
    of_input: Attributes
    of_output: Attributes


def describe(operation: Operation, model: LiveModel) -> Described:
    """Describe the calls of one model's version."""
    named = OPERATIONS[operation]
    of_metrics: dict[str, Value] = {
        "gen_ai.operation.name": named["gen_ai.operation.name"],
        "gen_ai.provider.name": PROVIDERS[model.config.provider],
        "gen_ai.request.model": model.model_id,
        **_server(model),
    }
    return Described(
        span_name=f"{named['gen_ai.operation.name']} {model.model_id}",
        of_span={**of_metrics, **named, "model_ledger.config.version": model.version},
        of_metrics=of_metrics,
        of_input={**of_metrics, "gen_ai.token.type": "input"},
        of_output={**of_metrics, "gen_ai.token.type": "output"},
    )


def outcome(call: CallRecord, answered: Answered | None) -> Attributes:
    """What is known of a call after it."""
    attributes: dict[str, Value] = {"model_ledger.retries": max(call.attempts - 1, 0)}
    if call.stream:
        attributes["gen_ai.request.stream"] = True
        if call.first_byte is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = call.first_byte
    if call.error is not None:
        attributes["error.type"] = call.error
    if call.tokens is not None:
        attributes["gen_ai.usage.input_tokens"] = call.tokens.input
        attributes["gen_ai.usage.output_tokens"] = call.tokens.output
    return attributes if answered is None else attributes | _of_answer(answered)


def _of_answer(answered: Answered) -> dict[str, Value]:
    """What the provider said, which may be anything, as far as there is room for it."""
    told = {"gen_ai.response.model": answered.model, "gen_ai.response.id": answered.id}
    attributes: dict[str, Value] = {name: text[:LENGTH] for name, text in told.items() if text is not None}
    if answered.finish_reasons:
        reasons = tuple(reason[:LENGTH] for reason in answered.finish_reasons[:REASONS])
        attributes["gen_ai.response.finish_reasons"] = reasons
    return attributes


def _server(model: LiveModel) -> Attributes:
    try:
        address = urlsplit(model.config.endpoint().origin)
    except ValueError:
        return {}
    port = address.port or SCHEMES.get(address.scheme)
    return {"server.address": address.hostname or "", **({"server.port": port} if port else {})}
