"""Models as the gateway serves them."""

from datetime import UTC, datetime
from typing import Any

from application.ports import LiveModel
from domain.configuration import ModelConfig
from domain.values import ModelId

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def live_model(model_id: str = "gpt-4", version: int = 7, **changes: Any) -> LiveModel:
    """A model of an Azure resource, with changes to its configuration."""
    fields = {
        "name": "GPT-4",
        "max_tokens": 4096,
        "supports_streaming": True,
        "supports_temperature": True,
        "api_version": "2025-01-01-preview",
        "azure_endpoint": "https://north.openai.azure.com",
        **changes,
    }
    return LiveModel(ModelId(model_id), ModelConfig(**fields), version, 100 + version, NOON)
