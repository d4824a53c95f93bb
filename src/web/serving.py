"""The supervising process: the port, the database, the demo, and the workers that serve."""

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from web.main import Prepared, database_urls, keep_demo, prepare
from web.settings import Settings
from web.workers import keep_workers, work

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; then end everything that was started.

    Raises:
        DatabaseUnusable, EmbeddedPostgresError: the message says why and what to do.
    """
    # Whatever a signal interrupts, the stack below still ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A shell that starts us in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), ExitStack() as stack:
        url, owner_url, data = database_urls(settings, stack, create=True)
        prepared = asyncio.run(prepare(settings, url, owner_url))
        stack.enter_context(_beside(prepared, _announcement(settings, prepared, data), listener))
        if settings.workers == 1:
            work(prepared.worker, listener)
        else:
            keep_workers(settings.workers, prepared.worker, listener)


@contextlib.contextmanager
def _beside(prepared: Prepared, announcement: str, listener: socket.socket) -> Iterator[None]:
    """Keep the demo upstream in a thread of its own, and say when the service is ready."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(_keep(prepared, announcement, listener))

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=work, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        while thread.is_alive():  # more than once: what is just being connected may miss it
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            thread.join(1)


async def _keep(prepared: Prepared, announcement: str, listener: socket.socket) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_demo(prepared))
        tasks.create_task(_announce(prepared, announcement, listener))


async def _announce(prepared: Prepared, announcement: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    ready = False
    try:
        while not (ready := await _answers(reachable, port)):  # noqa: ASYNC110 - as of another process
            await asyncio.sleep(0.02)
    finally:
        if ready or prepared.new_token:  # which nobody would see again, however early the start ends
            sys.stdout.write(announcement + "\n")
            sys.stdout.flush()


async def _answers(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def _announcement(settings: Settings, prepared: Prepared, data: Path | None) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if prepared.new_token is not None:
        sign_in = f"sign in with this administrator token, shown only now: {prepared.new_token}"
    elif settings.admin_token is not None:
        sign_in = "sign in with the token in MODEL_LEDGER_ADMIN_TOKEN"
    else:
        sign_in = (
            "sign in with the administrator token of the first start "
            "(lost? start once with a new MODEL_LEDGER_ADMIN_TOKEN)"
        )
    where = f"data in {data}" if data else "data in the database of DATABASE_URL"
    address = f"http://{host}:{settings.port}"
    told = f"Model Ledger is at {address}, {where}; {sign_in}"
    if settings.host not in LOOPBACK or settings.public_url:
        return told  # whoever reads that output may be elsewhere, and later
    # In the fragment, which browsers keep to themselves.
    link = f"{address}/sign-in#{prepared.sign_in_code}"
    return f"{told}\nOpen {link} to sign in with a browser (once, within 24 hours)"
