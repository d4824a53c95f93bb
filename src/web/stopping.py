"""From the signal to stop to the end, in a worker.

    serving ──signal──> leaving ──delay──> draining ──drain──> ending ──> gone
                        /readyz: 503       no new            calls that
                        all is served      connections       still run are told

A second Ctrl-C ends it at once.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

from msgspec import Struct

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any] | int | None
"""As `signal.getsignal` tells it."""


class Patience(Struct, frozen=True):
    """How long a stop waits, in seconds."""

    delay: int = 0
    """For load balancers to notice, while everything is still served."""
    drain: int = 20
    """For answers under way."""


class Stopped(Exception):
    """The server ends, and with it the work that was under way."""


class Stopping:
    """What is known of the stop, and the work that it will end."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._running: set[UntilStopped] = set()
        self._handlers: Mapping[int, Handler] = {}
        self._draining = False
        self._ending = False
        self.begun = False
        """Whether the signal came."""

    def until(self) -> "UntilStopped":
        """A context for work that is to be told of its end."""
        return UntilStopped(self._running, is_late=self._ending)

    def end(self) -> None:
        """End all work that is still under way."""
        self._ending = True
        for each in [*self._running]:
            each.cancel()

    @contextmanager
    def heeding(self, callback: Callable[[], None]) -> Iterator[None]:
        """Heed the signals to stop; the callback ends at once what has no end of its own.

        The server's own handlers stay in force: they are called when the delay is over. The server then waits
        for open responses.
        """
        loop = asyncio.get_running_loop()
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

        def handle(number: int, _: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._heed, number, callback)

        try:
            for number in SIGNALS:
                signal.signal(number, handle)
        except ValueError:
            yield  # not the main thread: no signal comes here
            return
        yield

    def _heed(self, number: int, callback: Callable[[], None]) -> None:
        if self.begun:  # no patience
            self._drain(number)
            self.end()
            self._tell_server(number)
            return
        self.begun = True
        callback()
        if self._patience.delay:
            asyncio.get_running_loop().call_later(self._patience.delay, self._drain, number)
        else:
            self._drain(number)

    def _drain(self, number: int) -> None:
        if not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_later(self._patience.drain, self.end)
            self._tell_server(number)

    def _tell_server(self, number: int) -> None:
        handler = self._handlers[number]
        if callable(handler):
            handler(number, None)


class UntilStopped:
    """A context that is cancelled when the server ends, and then raises `Stopped`.

    It works as `asyncio.timeout` does, so that one can stand inside the other.
    """

    def __init__(self, running: "set[UntilStopped]", *, is_late: bool) -> None:
        self._running = running
        self._is_late = is_late
        self._is_cancelled = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "there is no await without a task"  # noqa: S101 - for the type checker
        if self._is_late:
            raise Stopped
        self._task = task
        self._cancelling = task.cancelling()
        self._running.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.discard(self)
        if not self._is_cancelled:
            return
        remaining = self._task.uncancel()
        if kind is asyncio.CancelledError and remaining <= self._cancelling:
            raise Stopped from error

    def cancel(self) -> None:
        """Have it end; to be called from outside of its task."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()
