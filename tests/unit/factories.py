"""Configurations: made up where a test does not care, by the rules or by the types alone."""

from random import Random

from msgspec import UNSET
from polyfactory import PostGenerated, Use
from polyfactory.factories.msgspec_factory import MsgspecFactory

from domain.catalog import Change
from domain.configuration import ENVIRONMENT, ModelConfig
from domain.default import DefaultChanged
from domain.model import ModelEvent
from domain.values import DEFAULT_STREAM, ModelId, Origin, model_stream

AZURE = ("https://north.openai.azure.com", "https://south.openai.azure.com/")
OPENAI = ("https://api.openai.com/v1", "http://127.0.0.1:8080/v1")
ORIGINS = frozenset(
    Origin(origin)
    for origin in (
        "https://north.openai.azure.com",
        "https://south.openai.azure.com",
        "https://api.openai.com",
        "http://127.0.0.1:8080",
    )
)
"""Where the environment's key may be sent to in these tests."""


CHANCE = Random(1)


class AnyConfigFactory(MsgspecFactory[ModelConfig]):
    """Configurations that keep the types and, most of them, no other rule: what an old ledger may hold."""

    __random_seed__ = 1


class AzureConfigFactory(MsgspecFactory[ModelConfig]):
    """Configurations for Azure that keep today's rules under `ORIGINS`."""

    __random_seed__ = 2

    name = Use(CHANCE.choice, ["GPT-4", "Ünïcödé 模型", "o3 (team A)"])
    max_tokens = Use(CHANCE.randint, 1, 10_000_000)
    provider = "azure"
    api_version = Use(CHANCE.choice, ["2024-10-21", "2025-01-01-preview", "v1"])
    azure_endpoint = Use(CHANCE.choice, AZURE)
    base_url = Use(CHANCE.choice, [UNSET])
    deployment = Use(CHANCE.choice, [UNSET, "team-a.chat"])
    description = Use(CHANCE.choice, ["", "For the chat of team A."])
    base_timeout = Use(CHANCE.choice, [1, 0.5, 120, 120.0, 86_400])
    max_timeout = PostGenerated(lambda _, values: values["base_timeout"])
    token_factor = Use(CHANCE.choice, [0, 0.05, 1])
    credential = Use(CHANCE.choice, [ENVIRONMENT, None])
    max_retries = Use(CHANCE.choice, [UNSET, 0, 10])
    enabled = True
    aliases = Use(CHANCE.choice, [UNSET, ()])
    fallbacks = Use(CHANCE.choice, [UNSET, ()])


class OpenAIConfigFactory(AzureConfigFactory):
    """Configurations for OpenAI-compatible servers that keep today's rules under `ORIGINS`."""

    __random_seed__ = 3

    provider = "openai"
    api_version = Use(CHANCE.choice, [UNSET])
    azure_endpoint = Use(CHANCE.choice, [UNSET])
    base_url = Use(CHANCE.choice, OPENAI)


def on(model_id: ModelId, event: ModelEvent) -> Change:
    """An event in its model's stream."""
    return Change(model_stream(model_id), event)


def default_is(model_id: ModelId | None) -> Change:
    """An event in the default pointer's stream."""
    return Change(DEFAULT_STREAM, DefaultChanged(model_id))
