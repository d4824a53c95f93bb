"""Requests as our own page makes them: with the session's cookie, and the headers that a browser adds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from service import Api, Service

COOKIE = "model_ledger_session"


@asynccontextmanager
async def page(service: Service) -> AsyncIterator[Api]:
    """Our page in a browser of its own, signed out; each request may reach another worker."""
    headers = {
        "Authorization": "",
        "Origin": service.url,
        "Sec-Fetch-Site": "same-origin",
        "X-Model-Ledger-Request": "1",
    }
    # Without connections that are kept: a later request would always reach the same worker.
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with service.api(headers=headers, limits=limits) as api:
        yield api


@asynccontextmanager
async def signed_in(service: Service) -> AsyncIterator[Api]:
    """The same, signed in with the administrator's token."""
    async with page(service) as api:
        answer = await sign_in(api, token=service.token)
        assert answer.status_code == 204, answer.text
        yield api


async def sign_in(api: Api, **proof: Any) -> httpx2.Response:
    return await api.http.post("/api/session", json=proof)


def secret(api: Api) -> str:
    """What the browser's cookie holds."""
    found: str = api.http.cookies[COOKIE]
    return found


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is true."""
    async with asyncio.timeout(10):
        while not await check():  # noqa: ASYNC110 - as of another process
            await asyncio.sleep(0.01)
