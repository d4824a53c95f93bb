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

from web.composition.start import Prepared, database_urls, keep_beside, prepare, prepare_later
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
        stack.enter_context(_beside(settings, prepared, data, listener))
        if settings.workers == 1:
            work(prepared.worker, listener)
        else:
            keep_workers(settings.workers, prepared.worker, listener)


@contextlib.contextmanager
def _beside(
    settings: Settings, prepared: Prepared, data: Path | None, listener: socket.socket
) -> Iterator[None]:
    """Do all but serve, in a thread of its own, and say when the service is ready."""
    announcement = _Announcement(settings, data, prepared)
    loop = asyncio.new_event_loop()
    task = loop.create_task(_keep(prepared, announcement, *listener.getsockname()[:2]))

    def work() -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        finally:
            loop.close()
            if announcement.new_token:  # nobody would see it again, however early the start ends
                announcement.make()

    thread = threading.Thread(target=work, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        while thread.is_alive():  # more than once: what is just being connected may miss it
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            thread.join(1)


async def _keep(prepared: Prepared, announcement: "_Announcement", host: str, port: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_beside(prepared))
        tasks.create_task(_announce(announcement, host, port))
        if token := await prepare_later(prepared):  # the database is another one than that of the snapshot
            announcement.new_token = token
            announcement.make()


async def _announce(announcement: "_Announcement", host: str, port: int) -> None:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    while not await _answers(reachable, port):  # noqa: ASYNC110 - as of another process
        await asyncio.sleep(0.02)
    announcement.make()


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


class _Announcement:
    """The line that tells where the service is, and how to sign in."""

    def __init__(self, settings: Settings, data: Path | None, prepared: Prepared) -> None:
        self._settings = settings
        self._data = data
        self._sign_in_code = prepared.sign_in_code
        self.new_token = prepared.new_token
        """The administrator's token, if it was made just now and nobody was told."""

    def make(self) -> None:
        settings, data, new_token = self._settings, self._data, self.new_token
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        if new_token is not None:
            sign_in = f"sign in with this administrator token, shown only now: {new_token}"
        elif settings.admin_token is not None:
            sign_in = "sign in with the token in MODEL_LEDGER_ADMIN_TOKEN"
        else:
            sign_in = (
                "sign in with the administrator token of the first start "
                "(lost? start once with a new MODEL_LEDGER_ADMIN_TOKEN)"
            )
        where = f"data in {data}" if data else "data in the database of DATABASE_URL"
        address = f"http://{host}:{settings.port}"
        told = f"Model Ledger is at {address}, {where}; {sign_in}\n"
        # Elsewhere, whoever reads this output may do so from afar, and later.
        if self._sign_in_code and settings.host in LOOPBACK and not settings.public_url:
            # In the fragment, which browsers keep to themselves.
            link = f"{address}/sign-in#{self._sign_in_code}"
            told += f"Open {link} to sign in with a browser (once, within 24 hours)\n"
        sys.stdout.write(told)
        sys.stdout.flush()
        self.new_token = None
