"""A caller who leaves ends the work that is done for them."""

import asyncio
from types import TracebackType
from typing import Final, Self

from litestar.types import Receive

PATIENCE: Final = 0.2
"""Seconds before a caller is watched. Calls that end sooner are spared a task and a timer each, and who
leaves sooner is missed only a little later."""


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class WhileConnected:
    """A context that is cancelled when the caller leaves, and then raises `CallerLeft`.

    Enter it when the request's body has been read. It works as `asyncio.timeout` does, so that one can
    stand inside the other: a cancellation from elsewhere passes, its own ends here.
    """

    __slots__ = ("_cancelling", "_left", "_receive", "_task", "_unwatched", "_watching")

    def __init__(self, receive: Receive, unwatched: "Unwatched") -> None:
        self._receive = receive
        self._unwatched = unwatched
        self._left = False
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "there is no await without a task"  # noqa: S101 - for the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self._unwatched.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unwatched.discard(self)
        if self._watching is not None:
            self._watching.cancel()
        if not self._left:
            return
        remaining = self._task.uncancel()
        if kind is asyncio.CancelledError and remaining <= self._cancelling:
            raise CallerLeft from error

    def watch(self) -> None:
        """Begin to look whether the caller leaves."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # Nothing is awaited between here and the end of this task, so leaving cannot come in between.
        self._left = True
        self._task.cancel()


class Unwatched:
    """The calls of one event loop that are younger than `PATIENCE`, with one timer for all of them."""

    def __init__(self) -> None:
        self._since: dict[WhileConnected, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: WhileConnected) -> None:
        """Watch it when its time has come."""
        loop = asyncio.get_running_loop()
        self._since[call] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(PATIENCE, self._look)

    def discard(self, call: WhileConnected) -> None:
        """It has ended, or is watched already."""
        self._since.pop(call, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() - PATIENCE
        while self._since:
            call, since = next(iter(self._since.items()))  # the oldest
            if since > due:
                self._timer = loop.call_at(since + PATIENCE, self._look)
                return
            del self._since[call]
            call.watch()
        self._timer = None
