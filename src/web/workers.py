"""The workers: one in this process, or several in processes of their own that are kept running.

    started ──> serving ──(SIGTERM from the supervisor, or its end)──> draining ──> ended
                   └─────(ends by itself)─────> replaced by another one

All of them accept connections from the same listener.
"""

import logging
import multiprocessing
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Final

import uvicorn

from web.composition.app import create_app
from web.composition.worker import Worker
from web.listening import BACKLOG
from web.stopping import Patience

logger = logging.getLogger(__name__)

STOP: Final = (signal.SIGINT, signal.SIGTERM)
LAST_WORD: Final = 1
"""Seconds that calls which are ended have to tell their callers."""
LONGEST_END: Final = 5.0
"""Seconds that a worker may take to end after that."""
LOOK: Final = 0.2
"""Seconds between looks at what a signal asks for."""
PAUSE: Final = 0.5
"""Seconds before a worker that ended is replaced."""
STARTUP_FAILURE: Final = 3
"""uvicorn's exit status when the application did not start."""


def log_to_stderr() -> None:
    """Have warnings and errors written, in this process."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def work(worker: Worker, listener: socket.socket, number: int = 0) -> None:
    """Serve, until SIGINT or SIGTERM; see `web.stopping`. Workers are numbered from 0."""
    log_to_stderr()
    config = uvicorn.Config(
        partial(create_app, worker, number),
        factory=True,
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=worker.patience.drain + LAST_WORD,
        timeout_keep_alive=75,
        backlog=BACKLOG,
    )
    uvicorn.Server(config).run(sockets=[listener])


def keep_workers(number: int, worker: Worker, listener: socket.socket) -> None:
    """Keep that many processes working until an exception, such as a signal's, ends them all."""
    processes: dict[int, SpawnProcess] = {}
    resource_tracker.ensure_running()  # when it starts with a process, it unblocks what `_undisturbed` blocks
    try:
        while True:
            for each in [each for each, process in processes.items() if not process.is_alive()]:
                _tell_end(processes.pop(each))
                if worker.metrics is not None:
                    worker.metrics.forget(each)
            for each in range(number):
                if each not in processes:
                    with _undisturbed():
                        processes[each] = _start(worker, listener, each)
            # Never for long: a signal that another thread takes wakes nobody here.
            if wait([process.sentinel for process in processes.values()], timeout=LOOK):
                time.sleep(PAUSE)
    finally:
        _end([*processes.values()], worker.patience, listener)


def _start(worker: Worker, listener: socket.socket, number: int) -> SpawnProcess:
    # A daemon, which multiprocessing ends if nobody else does.
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=(worker, listener, number), daemon=True
    )
    process.start()
    return process


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off the signals to stop: a worker that is told only half of what it needs would complain.

    A process that is started meanwhile never gets SIGINT: Ctrl-C reaches the whole terminal, and only the
    supervisor heeds it, also while a worker still imports.
    """
    came: list[int] = []
    # Any thread may take a signal, so that a mask alone does not keep its handler from running in this one.
    handlers = {number: signal.signal(number, lambda taken, _: came.append(taken)) for number in STOP}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _tell_end(process: SpawnProcess) -> None:
    if process.exitcode == STARTUP_FAILURE:
        sys.exit(1)  # it said why, and the next one would say the same
    logger.warning("worker %s ended with status %s and is replaced", process.pid, process.exitcode)


def _end(processes: list[SpawnProcess], patience: Patience, listener: socket.socket) -> None:
    try:
        for process in processes:
            process.terminate()
        _join(processes, patience.delay)
        listener.close()  # else connections would still be made, which nobody accepts any more
        _join(processes, patience.drain + LAST_WORD + LONGEST_END)
    except KeyboardInterrupt:
        pass  # once more: no patience
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _join(processes: list[SpawnProcess], timeout: float) -> None:
    """Wait for the end of all of them, for so many seconds at most."""
    deadline = time.monotonic() + timeout
    while running := [process.sentinel for process in processes if process.is_alive()]:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        wait(running, timeout=min(left, LOOK))
