"""The demo upstream's process: it runs while a live model points at it."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from application.ports import LiveModel
from domain.values import Origin
from infrastructure.live import Live

logger = logging.getLogger(__name__)

CHECK: Final = 1.0
"""Seconds between looks at a process that should run, and that an answer at its port may take."""
STOP_TIMEOUT: Final = 5.0


class DemoProcess:
    """Starts and stops the process as the ledger asks for it; starts it again when it ends."""

    def __init__(self, origin: Origin, key: str, command: Sequence[str]) -> None:
        """`command` serves the demo; it reads its key from standard input and ends with it."""
        self._origin = origin
        self._address = urlsplit(origin)
        self._key = key
        self._command = command
        self._wanted = False
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._has_complained = False

    async def reconcile(self, live: Live) -> None:
        """Take note of the live models; a subscriber of the follower."""
        self._wanted = any(self._is_here(model) for model in live.models.values())
        self._changed.set()

    async def run(self) -> None:
        """Keep the process as it is wanted, until cancelled; then end it."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK):
                        await self._changed.wait()
                self._changed.clear()
                running = self._process is not None and self._process.returncode is None
                if self._wanted and not running and not await self._is_served():
                    self._complain()
                    await self._start()
                elif running and not self._wanted:
                    await self._stop()
        finally:
            await self._stop()

    def _is_here(self, model: LiveModel) -> bool:
        try:
            return model.config.endpoint().origin == self._origin
        except ValueError:
            return False  # recorded under other rules than today's

    def _complain(self) -> None:
        """Say once that it ended by itself: it is started again each second, for as long as that takes."""
        if self._process is not None and not self._has_complained:
            self._has_complained = True
            logger.warning(
                "the demo upstream at %s ended with status %s; is that port taken? It is tried again",
                self._origin,
                self._process.returncode,
            )

    async def _is_served(self) -> bool:
        """Whether the port is taken; as a rule by the demo of another start on the same ledger."""
        try:
            async with asyncio.timeout(CHECK):
                _, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # its own complaint would repeat for ever
            process_group=0,  # Ctrl-C is not for it: calls that still run would lose their provider
        )
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(f"{self._key}\n".encode())
                await self._process.stdin.drain()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
