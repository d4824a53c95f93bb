"""A caller who leaves ends the work that is done for them."""

import asyncio
from types import TracebackType
from typing import Self

from litestar.types import Receive


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class WhileConnected:
    """A context that is cancelled when the caller leaves, and then raises `CallerLeft`.

    Enter it when the request's body has been read. It works as `asyncio.timeout` does, so that one can
    stand inside the other: a cancellation from elsewhere passes, its own ends here.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "there is no await without a task"  # noqa: S101 - for the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        if not self._left:
            return
        remaining = self._task.uncancel()
        if kind is asyncio.CancelledError and remaining <= self._cancelling:
            raise CallerLeft from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # Nothing is awaited between here and the end of this task, so leaving cannot come in between.
        self._left = True
        self._task.cancel()
