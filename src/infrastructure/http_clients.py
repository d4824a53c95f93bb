"""One HTTP client for each origin: it speaks to no other, follows nothing and remembers nothing.

Sharing it saves most of a client's cost, which is its TLS context and its connections.
"""

import ssl
from contextlib import aclosing, suppress
from functools import cache, lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx2

from domain.values import Origin, parse_endpoint

LIMITS: Final = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)
TIMEOUT: Final = httpx2.Timeout(None, connect=5.0)
"""Seconds. All but connecting is bounded by the call's own timeout."""
ERROR_LIMIT: Final = 256 * 1024
"""Bytes of an error's body; the SDK would read all of it."""


class WrongOrigin(Exception):
    """A request was to leave for another origin than its client is bound to."""


class HttpClients:
    """The open clients by origin, each with the number of its users."""

    def __init__(self) -> None:
        self._open: dict[Origin, tuple[httpx2.AsyncClient, int]] = {}

    def take(self, origin: Origin) -> httpx2.AsyncClient:
        """The client of that origin, to be given back once."""
        client, users = self._open.get(origin) or (_client(origin), 0)
        self._open[origin] = (client, users + 1)
        return client

    async def give_back(self, origin: Origin) -> None:
        """Close the client of that origin if this was its last user."""
        client, users = self._open.pop(origin)
        if users > 1:
            self._open[origin] = (client, users - 1)
        else:
            await client.aclose()


class BoundTransport(httpx2.AsyncBaseTransport):
    """Lets requests through to one origin, and reads errors to their end, within a bound."""

    def __init__(self, origin: Origin, inner: httpx2.AsyncBaseTransport) -> None:
        self._origin = origin
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it.

        Raises:
            WrongOrigin: nothing was sent.
        """
        if _origin(request.url.scheme, request.url.netloc) != self._origin:
            raise WrongOrigin(f"this client sends to {self._origin} only")
        response = await self._inner.handle_async_request(request)
        return response if response.is_success else await _read(response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


async def _read(response: httpx2.Response) -> httpx2.Response:
    body = bytearray()
    with suppress(httpx2.TransportError):  # the status tells enough when the body breaks off
        async with aclosing(response.aiter_raw()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > ERROR_LIMIT:
                    break
    # Not decoded: a body in an encoding that was not asked for may be a bomb.
    headers = [each for each in response.headers.multi_items() if each[0].lower() not in _BODY_HEADERS]
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body))


_BODY_HEADERS: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def _client(origin: Origin) -> httpx2.AsyncClient:
    transport = httpx2.AsyncHTTPTransport(verify=_tls(), limits=LIMITS, trust_env=False)
    return httpx2.AsyncClient(
        transport=BoundTransport(origin, transport),
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


@lru_cache(maxsize=1_000)
def _origin(scheme: str, netloc: bytes) -> Origin | None:
    """Where a request goes, by the same rules as what was saved; None breaks them."""
    try:
        return parse_endpoint(f"{scheme}://{netloc.decode()}").origin
    except ValueError:
        return None
