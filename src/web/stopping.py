"""The moment between the signal to stop and the end: what must end first ends first."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop(callback: Callable[[], None]) -> Iterator[None]:
    """Have the callback run in the loop as soon as a signal asks the server to stop.

    The server's own handlers stay in force. It waits for open responses before the lifespan ends, so
    that endless ones must be ended here.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    try:
        for number in SIGNALS:
            signal.signal(number, handle)
    except ValueError:
        yield  # not the main thread: no signal comes here
        return
    yield
