"""A proxy in front of PostgreSQL that breaks connections on order.

    with ChaosProxy(databases.app_url(name)) as proxy:
        pool = Database(proxy.url).pool(4)
        proxy.cut_after(700)        # the connections break as soon as so many more bytes went through
        proxy.black_hole()          # nothing goes through any more, and nobody is told
        proxy.refuse()              # nobody is there, as when the server is stopped
        proxy.heal()

Clients come by TCP on loopback; the server is reached where the given address says, by its Unix socket or by
TCP. The proxy has a thread and an event loop of its own, as its faults must not wait for what a test does.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from threading import Thread
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: what is not yet sent is dropped, and the other end gets a reset."""
READ: Final = 65_536
NOTIFICATION: Final = b"A"
"""NotificationResponse, of PostgreSQL's protocol 3.0."""


class ChaosProxy:
    """Stands between clients and the server from entering the context to leaving it."""

    def __init__(self, url: str) -> None:
        """`url` is the server's address; that of the proxy differs in host and port alone."""
        self._server = url
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._deaf = False
        self._silent = False
        self._left: int | None = None
        self._port = 0
        self.accepted = 0
        """Connections that clients have opened so far."""
        self.forwarded = 0
        """Bytes that went through so far, in both directions together."""

    @property
    def url(self) -> str:
        """The same database, by way of the proxy."""
        return self.by_way(self._server)

    def by_way(self, url: str) -> str:
        """Another address on the same server, by way of the proxy."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return f"postgresql://{user}@127.0.0.1:{self._port}{parts.path}?sslmode=disable"

    @property
    def open_links(self) -> int:
        """Connections that are open now, black-holed ones included."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every open connection; new ones are welcome."""
        self._do(self._cut)

    def cut_after(self, count: int) -> None:
        """Reset every open connection as soon as `count` more bytes went through, in either direction."""

        def arm() -> None:
            self._left = count

        self._do(arm)

    def black_hole(self, *, existing_only: bool = False) -> None:
        """Forward nothing more, without closing anything.

        New connections are accepted and get no answer either, unless `existing_only`.
        """

        def sink() -> None:
            self._deaf = not existing_only
            for link in self._links:
                link.deaf.set()

        self._do(sink)

    def refuse(self) -> None:
        """Reset every open connection, and listen no more."""

        def leave() -> None:
            self._listener.close()
            self._cut()

        self._do(leave)

    def swallow_notifications(self) -> None:
        """Forward everything but notifications, on all connections, as a pooler between two LISTENs does."""

        def silence() -> None:
            self._silent = True

        self._do(silence)

    @property
    def silent(self) -> bool:
        """Whether notifications are swallowed."""
        return self._silent

    def heal(self) -> None:
        """Work for new connections again, and drop the black-holed ones; a cut that did not come is off."""

        def heal() -> None:
            self._deaf, self._silent, self._left = False, False, None
            for link in list(self._links):
                if link.deaf.is_set():
                    link.reset()

        self._do(heal)
        if not self._listener.is_serving():
            self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._loop.run_forever, name="chaos proxy")
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self._listener = listening.result(5)
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Callable[[], None]) -> None:
        """Run it in the proxy's loop; it is done when this returns."""

        async def run() -> None:
            work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _close(self) -> None:
        self._listener.close()
        self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=3)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        self._links.add(link)
        try:
            if self._deaf:
                link.deaf.set()
                await link.closed.wait()
                return
            back, forth = await self._connect()
            link.writers.append(forth)
            ways = [
                asyncio.create_task(self._forward(link, reader, forth)),
                asyncio.create_task(self._forward(link, _Messages(back, self), writer)),
                asyncio.create_task(link.closed.wait()),
            ]
            # One side that closes closes the other: PostgreSQL knows no half-closed connections.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the server is not there: the client finds its connection closed
        finally:
            self._links.discard(link)
            link.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._server)
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        host = options.get("host", parts.hostname or "127.0.0.1")
        port = int(options.get("port", parts.port or 5432))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _forward(
        self, link: "_Link", reader: "asyncio.StreamReader | _Messages", writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(READ):
            if link.deaf.is_set():
                await link.closed.wait()
                return
            last = self._left is not None and len(data) >= self._left
            data = data[: self._left]
            writer.write(data)
            self.forwarded += len(data)
            if last:
                await writer.drain()
                self._left = None
                self._cut()
                return
            if self._left is not None:
                self._left -= len(data)
            await writer.drain()

    def _cut(self) -> None:
        for link in list(self._links):
            link.reset()


class _Messages:
    """What a server sends, cut into whole messages: a type, a length that counts itself, and the rest."""

    def __init__(self, reader: asyncio.StreamReader, proxy: ChaosProxy) -> None:
        self._reader = reader
        self._proxy = proxy
        self._buffer = b""

    async def read(self, count: int) -> bytes:
        """Some whole messages, but no notification that is to be swallowed; nothing at the end."""
        while data := await self._reader.read(count):
            self._buffer += data
            wanted = b"".join(self._whole())
            if wanted:
                return wanted
        return b""

    def _whole(self) -> Iterator[bytes]:
        while len(self._buffer) >= 5:
            length = 1 + int.from_bytes(self._buffer[1:5])
            if len(self._buffer) < length:
                return
            message, self._buffer = self._buffer[:length], self._buffer[length:]
            if not (self._proxy.silent and message.startswith(NOTIFICATION)):
                yield message


class _Link:
    """One client's connection, and the one to the server that was made for it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.deaf = asyncio.Event()
        self.closed = asyncio.Event()

    def reset(self) -> None:
        """End both without a farewell; what was written before still arrives at the server."""
        client, *server = self.writers
        client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.transport.abort()
        for writer in server:
            writer.close()
        self.closed.set()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
        self.closed.set()
