"""The SDK's client of a route: the authority for addresses, headers and authentication."""

from typing import Final

import httpx2
from msgspec import Struct
from openai import AsyncAzureOpenAI, AsyncOpenAI, Omit

from application.ports import LiveModel
from domain.calls import deployment

V1_PATH: Final = "/openai/v1"
"""Azure's API that needs no version and names the deployment in the body."""
NO_KEY: Final = "no-key"
"""Stands where the SDK insists on a key; `NO_AUTHENTICATION` leaves out the headers that would carry it."""
NO_AUTHENTICATION: Final = {"Authorization": Omit(), "api-key": Omit()}


class Route(Struct, frozen=True):
    """All of a configuration that the SDK's client depends on."""

    url: str
    deployment: str | None
    """In the path (classic Azure); None when the body names it."""
    api_version: str
    credential: str | None


def route_of(model: LiveModel) -> Route:
    """The way to a model's provider.

    Raises:
        ValueError: the address breaks a rule of `parse_endpoint`.
    """
    config, endpoint = model.config, model.config.endpoint()
    if config.provider == "openai" or endpoint.path.endswith(V1_PATH):
        return Route(endpoint.url, None, "", config.credential)
    named = deployment(model.model_id, config)
    return Route(endpoint.url, named, config.api_version or "", config.credential)


def sdk_client(route: Route, key: str | None, http_client: httpx2.AsyncClient) -> AsyncOpenAI:
    """The SDK's client; it takes nothing from the environment and tries nothing twice."""
    client: AsyncOpenAI
    if route.deployment is None:
        client = AsyncOpenAI(
            base_url=route.url,
            api_key=key or NO_KEY,
            admin_api_key="",
            max_retries=0,
            http_client=http_client,
        )
    else:
        client = AsyncAzureOpenAI(
            azure_endpoint=route.url,
            azure_deployment=route.deployment,
            api_version=route.api_version,
            api_key=key or NO_KEY,
            admin_api_key="",
            max_retries=0,
            http_client=http_client,
        )
    # What the SDK has read from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and would send.
    client.organization = client.project = None
    client._custom_headers = {}  # noqa: SLF001 - there is no other way to refuse them
    return client
