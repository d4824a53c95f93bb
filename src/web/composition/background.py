"""Work beside the requests, for as long as a worker lives."""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack

logger = logging.getLogger(__name__)


async def in_background(stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    """Have it done until the stack ends."""
    task = asyncio.create_task(work)
    task.add_done_callback(_complain)

    async def end() -> None:
        while not task.done():  # more than once: what is just being connected may miss it
            task.cancel()
            await asyncio.wait([task], timeout=1)

    stack.push_async_callback(end)


def _complain(task: asyncio.Task[None]) -> None:
    """Say at once that work ended which never should; else only the end of the process would tell."""
    if not task.cancelled() and (error := task.exception()):
        logger.critical("work in the background failed", exc_info=error)


def stop_with_parent() -> None:
    """A worker whose supervisor was killed must not go on alone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop, sentinel = asyncio.get_running_loop(), parent.sentinel

        def stop() -> None:
            loop.remove_reader(sentinel)  # it stays readable, and once is enough
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(sentinel, stop)
