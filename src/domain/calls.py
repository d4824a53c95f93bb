"""What a model's configuration makes of one call: its address, its time and its tries."""

import re
from typing import Final

from msgspec import UNSET

from domain.configuration import ModelConfig
from domain.values import ModelId

O_SERIES: Final = re.compile(r"o[0-9]")
RETRIES: Final = 3
BYTES_PER_TOKEN: Final = 4


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
    """Seconds that a call may take, over all its tries; a `limit` of None counts as `max_tokens`."""
    tokens = prompt_bytes / BYTES_PER_TOKEN + (config.max_tokens if limit is None else max(limit, 0))
    return float(min(config.max_timeout, config.base_timeout + config.token_factor * tokens))
