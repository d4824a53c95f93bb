"""HTTP/1.1 connections to one origin: whole requests out, answers in as they arrive.

    take ──> idle or new ──ask──> head ──> body ──┬─ read to its end ──> idle again
                                                  └─ left early, broken, or told to close ──> closed

This is the hot path of every call, so it does what a call to a provider needs and nothing else; parsing is
httptools' work. docs/decisions/transport.md has the figures of the ways that were tried.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

import httptools
import httpx2
from aiohappyeyeballs import start_connection

from domain.values import Origin

MOST: Final = 4_000
"""Connections of one origin; more calls wait for their turn."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds until a server counts as out of reach. All else is bounded by the call's own timeout."""
NEXT_ADDRESS: Final = 0.25
"""Seconds before the next of a name's addresses is tried beside the one before (RFC 8305)."""
LONGEST_IDLE: Final = 4.5
"""Seconds; many servers close after five, and a call must not meet that."""
HEAD_LIMIT: Final = 64 * 1024
"""Bytes of an answer's head."""
READ_AHEAD: Final = 128 * 1024
"""Bytes of a body that wait for their reader before the server is made to wait."""
SILENCE: Final = 15.0
"""Seconds without a byte until a reader is told by an empty chunk."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


T = TypeVar("T")


class Unreachable(Exception):
    """No connection came about, so nothing was sent."""


class Broken(Exception):
    """A connection ended, or spoke no HTTP, before the answer was complete."""


class Headers(Mapping[str, str]):
    """An answer's headers, looked up without regard to case; of a name that stands twice, the last one."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[bytes, bytes]) -> None:
        """`raw` has its names in lower case."""
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.lower().encode("latin-1")].decode("latin-1")

    def get(self, name: str, default: T = None) -> str | T:  # type: ignore[assignment]
        """As inherited, without the exception that every missing header would cost there."""
        value = self._raw.get(name.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class Connections:
    """The connections to one origin, kept open between calls."""

    def __init__(self, origin: Origin) -> None:
        address = urlsplit(origin)
        self._host = address.hostname or ""
        self._port = address.port or DEFAULT_PORTS[address.scheme]
        self._tls = _tls() if address.scheme == "https" else None
        self._idle: deque[Connection] = deque()
        self._turns = asyncio.Semaphore(MOST)
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self) -> "Connection":
        """A connection for one exchange, to be given back once.

        Raises:
            Unreachable: the server did not take a new one.
        """
        await self._turns.acquire()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        try:
            return await self._connect()
        except BaseException:
            self._turns.release()
            raise

    def give_back(self, connection: "Connection") -> None:
        """Keep it for the next call if its exchange came to a clean end; else close it."""
        self._turns.release()
        if self._closed or not connection.rest():
            connection.abort()
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(LONGEST_IDLE, self._close_idle)

    def close(self) -> None:
        """Close what is idle now, and the rest as it is given back."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self) -> "Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                opened = await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS)
                return await self._dress(opened)
        except (OSError, TimeoutError) as error:  # a handshake's failure is an OSError too
            raise Unreachable(str(error) or "no answer") from error

    async def _dress(self, opened: socket.socket) -> "Connection":
        """Put TLS, if it is wanted, and our protocol on a socket."""
        _keep_alive(opened)
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection, sock=opened, ssl=self._tls, server_hostname=self._host if self._tls else None
            )
        except BaseException:
            opened.close()
            raise
        return connection

    def _close_idle(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        until = loop.time() - LONGEST_IDLE
        while self._idle and self._idle[0].rested_at <= until:
            self._idle.popleft().abort()
        if self._idle:
            self._sweep = loop.call_at(self._idle[0].rested_at + LONGEST_IDLE, self._close_idle)


class Connection(asyncio.Protocol):
    """One connection, and the one exchange that it carries at a time; iterating gives the answer's body.

    An empty chunk says that nothing came for `SILENCE` seconds.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._chunks: list[bytes] = []
        self._raw_headers: dict[bytes, bytes] = {}
        self._size = 0
        self._last_byte = 0.0
        self._busy = self._answering = self._begun = self._complete = False
        self._paused = self._silent = self._until_close = self._reusable = False
        self._problem: str | None = None
        self.secret = b""
        """What no answer may tell; blanked where it stands."""
        self.rested_at = 0.0
        """When its last exchange ended, in the loop's time."""

    # What a call does.

    @property
    def is_open(self) -> bool:
        """Whether the server still holds it, as far as is known."""
        return self._problem is None and not self._transport.is_closing()

    @property
    def status(self) -> int:
        """Of the answer."""
        return self._parser.get_status_code()

    @property
    def headers(self) -> Headers:
        """Of the answer."""
        return Headers(self._raw_headers)

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request, and wait for the answer's head.

        Raises:
            Broken: the connection ended, or its answer is no HTTP.
        """
        self._busy = True
        self._answering = self._begun = self._complete = self._until_close = self._reusable = False
        self._raw_headers, self._size = {}, 0
        if len(body) < 32_768:
            self._transport.write(head + body)  # one packet, where it fits
        else:
            self._transport.write(head)
            self._transport.write(body)
        while not self._begun:
            self._check()
            await self._wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._chunks:
                return self._taken()
            if self._complete:
                raise StopAsyncIteration
            self._check()
            if self._silence is None:
                self._silence = self._loop.call_later(SILENCE, self._note_silence)
            await self._wait()
            if self._silent:
                self._silent = False
                return b""

    def rest(self) -> bool:
        """End the exchange; False when the connection is of no use for another one."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        clean = self._complete and self._reusable and self.is_open
        self._busy = False
        self._chunks = []  # of an error that nobody read
        self.rested_at = self._loop.time()
        return clean

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        self._problem = self._problem or "closed here"
        self._transport.abort()

    # What the event loop tells (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if not self._busy or self._complete:
            self._end("the server spoke unasked")
            self._transport.abort()
            return
        self._last_byte = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # After a complete answer it is not this call's concern; the connection is not used again.
            self._end(str(error))
            self._transport.abort()
        if self._size > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The server says no more."""
        self._end_of_stream()

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed; an error is no end that the server meant."""
        if error is not None:
            self._until_close = False
        self._end_of_stream()

    # What the parser finds.

    def on_message_begin(self) -> None:
        """An answer's beginning."""
        if self._complete:
            raise ValueError("a second answer, which nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head, or a trailer."""
        self._size += len(name) + len(value)
        if self._size > HEAD_LIMIT:
            raise ValueError("the answer's head is too large")
        if not self._begun:  # else it is a trailer
            self._raw_headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head's end."""
        status = self._parser.get_status_code()
        self._answering = status >= 200
        if not self._answering:
            self._raw_headers.clear()  # of an interim answer, 100 or 103
            return
        self._size = 0
        self._begun = True
        headers = self._raw_headers
        self._until_close = b"content-length" not in headers and b"transfer-encoding" not in headers

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._chunks.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        """The answer's end."""
        if self._answering:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()  # asked later, the parser is past it

    # The rest.

    def _taken(self) -> bytes:
        chunks = self._chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self.secret and self.secret in taken:
            taken = taken.replace(self.secret, b"***")
        self._chunks = []
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return taken

    def _check(self) -> None:
        if self._problem is not None:
            raise Broken(self._problem)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _end_of_stream(self) -> None:
        if self._busy and self._begun and self._until_close:
            self._complete = True  # the connection's end is the body's, as in HTTP/1.0
        self._end("the server closed the connection")
        self._wake()

    def _end(self, problem: str) -> None:
        if self._problem is None:
            self._problem = problem

    def _note_silence(self) -> None:
        left = self._last_byte + SILENCE - self._loop.time()
        if left <= 0 and self._waiter is not None:
            self._silent = True
            self._wake()
        self._silence = self._loop.call_later(left if left > 0 else SILENCE, self._note_silence)


def _keep_alive(opened: socket.socket) -> None:
    """Have the system look after a connection that is silent for minutes: a long answer is made meanwhile."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        number: Any = getattr(socket, option, None)  # macOS lacks the first
        if number is not None:
            opened.setsockopt(socket.IPPROTO_TCP, number, value)


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
