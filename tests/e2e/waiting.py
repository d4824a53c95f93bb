"""Waiting for what a service does in its own time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from service import Api

AT_MOST = 5.0
"""Seconds until a change is in use; on a busy machine, as the usual is a hundredth of that."""


async def eventually(check: Callable[[], Awaitable[bool]], *, within: float = AT_MOST) -> float:
    """Ask until it is true; how long it took."""
    began = time.monotonic()
    while not await check():
        assert time.monotonic() - began < within, f"did not happen within {within} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def ready(api: Api) -> dict[str, Any]:
    answer: dict[str, Any] = (await api.http.get("/readyz")).json()
    return answer


async def served_version(api: Api, model_id: str) -> int | None:
    """Which version a caller gets; None for none."""
    answer = await api.chat(model_id)
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-model-ledger-version"])


async def serves(api: Api, model_id: str, version: int | None) -> bool:
    return await served_version(api, model_id) == version
