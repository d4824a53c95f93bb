"""The SDK's client of a route: the authority for addresses, headers and authentication.

It builds each kind of request once, and nothing is ever sent by it: what it built is kept as bytes, as
building it anew would cost every call more than all the rest of its way.
"""

from typing import Final

import httpx2
from msgspec import Struct
from openai import AsyncAzureOpenAI, AsyncOpenAI, Omit

from application.ports import LiveModel
from domain.calls import deployment
from domain.values import Origin, parse_endpoint

V1_PATH: Final = "/openai/v1"
"""Azure's API that needs no version and names the deployment in the body."""
NO_KEY: Final = "no-key"
"""Stands where the SDK insists on a key; `NO_AUTHENTICATION` leaves out the headers that would carry it."""
NO_AUTHENTICATION: Final = {"Authorization": Omit(), "api-key": Omit()}
TOKEN: Final = "token-of-entra-id"  # noqa: S105 - none; it is replaced
"""Stands in a head where each call puts its own token."""
PER_CALL: Final = frozenset(
    {"content-length", "connection", "x-stainless-retry-count", "x-stainless-read-timeout"}
)
"""Headers of a connection, of one body, or of the SDK's own tries and time limits, which are not ours."""


class WrongOrigin(Exception):
    """A request was to leave for another origin than its client is bound to."""


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


def sdk_client(route: Route, key: str | None) -> AsyncOpenAI:
    """The SDK's client; it takes nothing from the environment and reaches no network.

    Args:
        route: where it would send.
        key: what it would send along; `TOKEN` for calls that bring a token of Entra ID, None for none.
    """
    client: AsyncOpenAI
    if route.deployment is None:
        client = AsyncOpenAI(
            base_url=route.url,
            api_key=key or NO_KEY,
            admin_api_key="",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=UNSENT, trust_env=False),
        )
    else:
        client = AsyncAzureOpenAI(
            azure_endpoint=route.url,
            azure_deployment=route.deployment,
            api_version=route.api_version,
            api_key=None if key is TOKEN else key or NO_KEY,
            azure_ad_token=TOKEN if key is TOKEN else None,
            admin_api_key="",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=UNSENT, trust_env=False),
        )
    # What the SDK has read from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and would send.
    client.organization = client.project = None
    client._custom_headers = {}  # noqa: SLF001 - there is no other way to refuse them
    return client


async def request_head(client: AsyncOpenAI, path: str, origin: Origin, *, key: bool) -> bytes:
    """The first line and the headers of every request to that path, up to those of a single call.

    Args:
        client: made by `sdk_client`.
        path: below the API's base, as `ProviderCall.path`.
        origin: where it may go.
        key: whether it carries one.

    Raises:
        WrongOrigin: the client would send it elsewhere.
    """
    # Identity: what passes untouched must be readable by a caller who asked for no encoding.
    headers: dict[str, str | Omit]
    headers = {"Accept-Encoding": "identity", **({} if key else NO_AUTHENTICATION)}
    response = await client.post(path, cast_to=httpx2.Response, content=b"", options={"headers": headers})
    request = response.request
    if parse_endpoint(f"{request.url.scheme}://{request.url.netloc.decode()}").origin != origin:
        raise WrongOrigin(f"this client sends to {origin} only")
    lines = [b"POST %b HTTP/1.1" % request.url.raw_path]
    lines += [b"%b: %b" % pair for pair in request.headers.raw if pair[0].decode().lower() not in PER_CALL]
    return b"\r\n".join([*lines, b""])


UNSENT: Final = httpx2.MockTransport(lambda _: httpx2.Response(200))
"""Takes a request as it would be sent, and sends nothing."""
