"""What a model's configuration makes of one call: its address, time, tries, and the fields that pass.

One rule for what callers may ask, applied to every call and told in the answer's headers:

- a token limit above `max_tokens` becomes `max_tokens`; a call that names none gets none;
- a reasoning model takes its limit as `max_completion_tokens`, never as `max_tokens`;
- a model without temperature gets none of `SAMPLING`, as its provider would refuse them;
- a model that cannot stream is asked for the whole answer at once.
"""

import re
from collections.abc import Mapping
from math import inf
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct

from domain.configuration import ModelConfig
from domain.values import ModelId

O_SERIES: Final = re.compile(r"o[0-9]")
RETRIES: Final = 3
BYTES_PER_TOKEN: Final = 4
SAMPLING: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "logit_bias",
)
LIMITS: Final = ("max_tokens", "max_completion_tokens")


class Shaped(Struct, frozen=True):
    """A request as the provider gets it; `adjusted` names each field that differs from what was asked."""

    fields: Mapping[str, Raw]
    adjusted: Mapping[str, str]
    limit: int | None
    """The call's own token limit after the ceiling; None when it names none."""
    stream: bool
    """Whether the provider is asked for a stream."""


def deployment(model_id: ModelId, config: ModelConfig) -> str:
    """The provider's name for the model."""
    return model_id if config.deployment is UNSET else config.deployment


def is_reasoning(model_id: ModelId, config: ModelConfig) -> bool:
    """Whether the reasoning rules hold: as configured, else derived from the id and the temperature flag."""
    if config.reasoning is not UNSET:
        return config.reasoning
    return bool(O_SERIES.match(model_id)) or not config.supports_temperature


def retries(model_id: ModelId, config: ModelConfig, o_series: int) -> int:
    """Tries after the first one; `o_series` is the installation's figure for reasoning models."""
    if config.max_retries is not UNSET:
        return config.max_retries
    return o_series if is_reasoning(model_id, config) else RETRIES


def timeout(config: ModelConfig, prompt_bytes: int, limit: int | None) -> float:
    """Seconds that a call may take, over all its tries."""
    tokens = prompt_bytes / BYTES_PER_TOKEN + (config.max_tokens if limit is None else max(limit, 0))
    return float(min(config.max_timeout, config.base_timeout + config.token_factor * tokens))


def shape(model_id: ModelId, config: ModelConfig, asked: Mapping[str, Raw]) -> Shaped:
    """Apply the rule above to a chat completion's fields; values that are kept stay byte for byte.

    Args:
        model_id: the model that was named.
        config: its configuration.
        asked: the top-level fields as JSON; `stream` is a boolean or null if it is there.
    """
    fields = {**asked, "model": _json(deployment(model_id, config))}
    adjusted: dict[str, str] = {}
    limit = _limit(fields, config, adjusted, reasoning=is_reasoning(model_id, config))
    if not config.supports_temperature:
        for name in SAMPLING:
            if fields.pop(name, None) is not None:
                adjusted[name] = "dropped"
    stream = bytes(fields.get("stream", b"")).strip() == b"true"
    if stream and not config.supports_streaming:
        stream = False
        adjusted["stream"] = "whole"
        fields.pop("stream_options", None)
        del fields["stream"]
    return Shaped(fields, adjusted, limit, stream)


def _limit(
    fields: dict[str, Raw], config: ModelConfig, adjusted: dict[str, str], *, reasoning: bool
) -> int | None:
    """Clamp the limits; what is no number is left for the provider to judge.

    `adjusted` goes into a header: it takes names, words and whole numbers, never what a caller wrote.
    """
    if reasoning and "max_tokens" in fields:
        named = fields.pop("max_tokens")
        adjusted["max_tokens"] = "dropped" if "max_completion_tokens" in fields else "max_completion_tokens"
        fields.setdefault("max_completion_tokens", named)
    limits = []
    for name in LIMITS:
        asked = _number(fields.get(name))
        if asked is None:
            continue
        if asked > config.max_tokens:
            asked = config.max_tokens
            fields[name] = _json(asked)
            adjusted[name] = str(asked)
        limits.append(int(asked))
    return min(limits, default=None)


def _number(value: Raw | None) -> int | float | None:
    """A number, also one in a string: there are providers that take `"4096"` for one."""
    if value is None:
        return None
    try:
        number = msgspec.json.decode(value, type=int | float, strict=False)
    except msgspec.DecodeError:
        return None
    return number if number > -inf else None  # neither nan nor -inf is


def _json(value: str | int) -> Raw:
    return Raw(msgspec.json.encode(value))
