"""The fields of a request, as a model's configuration lets its provider get them.

One rule for what callers may ask, applied to every call and told in the answer's headers:

- the model's name becomes its deployment;
- a token limit above `max_tokens` becomes `max_tokens`; a call that names none gets none;
- a reasoning model takes a chat's limit as `max_completion_tokens`, never as `max_tokens`;
- a reasoning model gets no `system` message beside a `developer` one: where both stand, all are `developer`;
- a model without temperature gets no field of its kin, as its provider would refuse them;
- a model that cannot stream is asked for the whole answer at once.

What is kept stays byte for byte.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

import msgspec
from msgspec import Raw, Struct

from domain.calls import deployment, is_reasoning
from domain.configuration import ModelConfig
from domain.values import ModelId

Fields = Mapping[str, Raw]
"""A request's top-level fields, each value as JSON."""

CHAT_LIMITS: Final = ("max_tokens", "max_completion_tokens")
CHAT_SAMPLING: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "logit_bias",
)
RESPONSES_LIMITS: Final = ("max_output_tokens",)
RESPONSES_SAMPLING: Final = ("temperature", "top_p", "top_logprobs")
DEVELOPER: Final = b'"developer"'
SYSTEM: Final = b'"system"'


class Shaped(Struct, frozen=True):
    """A request as the provider gets it; `adjusted` names each field that differs from what was asked.

    `adjusted` goes into a header: it has names, words and whole numbers, never what a caller wrote.
    """

    fields: Fields
    adjusted: Mapping[str, str]
    limit: int | None
    """Tokens that the answer may have; None when the call names no limit."""
    stream: bool
    """Whether the provider is asked for a stream."""


def shape_chat(model_id: ModelId, config: ModelConfig, asked: Fields) -> Shaped:
    """Apply the rule to a chat completion; `stream` is a boolean or null if it is there."""
    fields, adjusted = _addressed(model_id, config, asked), dict[str, str]()
    if is_reasoning(model_id, config):
        _rename_limit(fields, adjusted)
        _unite_roles(fields, "messages", adjusted)
    limit = _clamp(fields, CHAT_LIMITS, config.max_tokens, adjusted)
    if not config.supports_temperature:
        _drop(fields, CHAT_SAMPLING, adjusted)
    return Shaped(fields, adjusted, limit, _streams(fields, config, adjusted))


def shape_responses(model_id: ModelId, config: ModelConfig, asked: Fields) -> Shaped:
    """Apply the rule to a call of the Responses API; `stream` is a boolean or null if it is there."""
    fields, adjusted = _addressed(model_id, config, asked), dict[str, str]()
    if is_reasoning(model_id, config):
        _unite_roles(fields, "input", adjusted)
    limit = _clamp(fields, RESPONSES_LIMITS, config.max_tokens, adjusted)
    if not config.supports_temperature:
        _drop(fields, RESPONSES_SAMPLING, adjusted)
    return Shaped(fields, adjusted, limit, _streams(fields, config, adjusted))


def shape_embeddings(model_id: ModelId, config: ModelConfig, asked: Fields) -> Shaped:
    """Apply the rule to a request for embeddings, which has no output tokens and no stream."""
    return Shaped(_addressed(model_id, config, asked), {}, 0, stream=False)


def _addressed(model_id: ModelId, config: ModelConfig, asked: Fields) -> dict[str, Raw]:
    return {**asked, "model": _json(deployment(model_id, config))}


def _rename_limit(fields: dict[str, Raw], adjusted: dict[str, str]) -> None:
    named = fields.pop("max_tokens", None)
    if named is not None:
        adjusted["max_tokens"] = "dropped" if "max_completion_tokens" in fields else "max_completion_tokens"
        fields.setdefault("max_completion_tokens", named)


def _clamp(
    fields: dict[str, Raw], names: Sequence[str], ceiling: int, adjusted: dict[str, str]
) -> int | None:
    """The lowest of the limits, none above the ceiling; what is no number is left for the provider."""
    lowest = None
    for name in names:
        asked = _number(fields.get(name))
        if asked is None:
            continue
        if asked > ceiling:
            asked = ceiling
            fields[name] = _json(asked)
            adjusted[name] = str(asked)
        lowest = int(asked) if lowest is None else min(lowest, int(asked))
    return lowest


def _unite_roles(fields: dict[str, Raw], name: str, adjusted: dict[str, str]) -> None:
    """Have no `system` message beside a `developer` one; what is no list of messages is left as it is."""
    text = bytes(fields.get(name, b""))
    if (
        DEVELOPER not in text or SYSTEM not in text
    ):  # the words may stand elsewhere, but are hardly both there
        return
    try:
        messages = msgspec.json.decode(text, type=list[Raw])
        roles = [msgspec.json.decode(message, type=_Message).role for message in messages]
    except msgspec.DecodeError:
        return
    if "developer" in roles and "system" in roles:
        united = [
            _as_developer(message) if role == "system" else message
            for message, role in zip(messages, roles, strict=True)
        ]
        fields[name] = Raw(msgspec.json.encode(united))
        adjusted[name] = "developer"


class _Message(Struct):
    role: str | None = None


def _as_developer(message: Raw) -> dict[str, Raw]:
    return {**msgspec.json.decode(message, type=dict[str, Raw]), "role": Raw(DEVELOPER)}


def _drop(fields: dict[str, Raw], names: Sequence[str], adjusted: dict[str, str]) -> None:
    for name in names:
        if fields.pop(name, None) is not None:
            adjusted[name] = "dropped"


def _streams(fields: dict[str, Raw], config: ModelConfig, adjusted: dict[str, str]) -> bool:
    if "stream" not in fields or bytes(fields["stream"]).strip() != b"true":
        return False
    if config.supports_streaming:
        return True
    adjusted["stream"] = "whole"
    fields.pop("stream_options", None)
    del fields["stream"]
    return False


def _number(value: Raw | None) -> int | float | None:
    """A number, also one in a string: there are providers that take `"4096"` for one."""
    if value is None:
        return None
    try:
        number = msgspec.json.decode(value, type=int | float, strict=False)
    except msgspec.DecodeError:  # beyond what a number may be, or with space around it
        try:
            number = float(bytes(value).strip(b' "'))
        except ValueError:
            return None
    return number if number > -inf else None  # neither nan nor -inf is


def _json(value: str | int) -> Raw:
    return Raw(msgspec.json.encode(value))
