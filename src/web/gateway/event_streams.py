"""Server-sent events: passed on as they arrive, and never ended as if all was well."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Final, Literal

from litestar.types import HTTPResponseStartEvent, Send
from msgspec import Struct

from domain.shaping import Fields
from web.gateway.openai_errors import ErrorObject
from web.gateway.provider_errors import ANSWER_LIMIT, cut, too_large

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
PING: Final = b": ping\n\n"
"""A comment, which keeps proxies from closing a stream on which nothing happens."""
TAIL: Final = 8_192
"""Bytes of a stream's end that are kept to judge it: more than its last few events."""
DONE: Final = b"[DONE]"
"""The data of a last line that is no event."""
LAST_WORD: Final = 1.0
"""Seconds to tell of a failure; the caller may be why it failed, by not reading."""

Headers = Mapping[str, str]
Ending = Literal["done", "enough", "failed", "cut"]
"""What a stream's end says of it: nothing can follow; it is complete, though more could follow; it tells of
an error itself; it stopped short."""


class EventForm(Struct, frozen=True):
    """How an operation's streams end, fail, and are made of a whole answer."""

    is_error: Callable[[bytes], bool]
    """Whether an event's data tells of an error, after which nothing may look like an end."""
    ending: Callable[[bytes, bytes], Ending]
    """Of the last whole lines, and of the half line after them."""
    error: Callable[[ErrorObject, bytes], bytes]
    """The event that tells of an error, after those lines."""
    from_whole: Callable[[bytes, Fields], bytes]
    """The events of a whole answer to those fields; a ValueError when it is none."""


class EventStream:
    """One stream to a caller: begun, relayed or said at once, and failed if it must be.

    Whole lines go out: half a line could not be followed by anything that a caller understands.
    """

    def __init__(self, send: Send, form: EventForm) -> None:
        self._send = send
        self._form = form
        self._held = bytearray()
        self._recent: list[bytes] = []
        self._recent_size = 0
        self._most_recent = 2 * TAIL
        self.begun = False
        self.first_at: float | None = None
        """When the first bytes came, by `time.perf_counter`."""

    @property
    def lines(self) -> bytes:
        """The last ones that went out, from the beginning of a line."""
        return b"".join(self._recent)

    def ending(self) -> Ending:
        """What it says of itself so far."""
        return self._form.ending(self.lines, bytes(self._held))

    async def relay(self, headers: Headers, chunks: AsyncIterator[bytes]) -> None:
        """Pass a provider's events on, up to one that tells of an error, and leave the stream open.

        Raises:
            ProviderRefusal: a line is larger than `ANSWER_LIMIT`.
        """
        await self._begin(headers)
        send = self._send
        async for chunk in chunks:
            if not chunk:
                await self._ping()
            elif lines := self._whole_lines(chunk):
                failed = b'"error"' in lines and self._failed_at(lines)
                if failed:
                    lines = lines[:failed] + b"\n"
                    self._held.clear()
                self._note(lines)
                await send({"type": "http.response.body", "body": lines, "more_body": True})
                if failed:
                    return

    async def say(self, headers: Headers, whole: bytes, asked: Fields) -> None:
        """Send a whole answer to those fields as a stream.

        Raises:
            ProviderRefusal: it is none, or not complete; nothing was sent.
        """
        try:
            events = self._form.from_whole(whole, asked)
        except (ValueError, RecursionError):
            raise cut() from None
        await self._begin(headers)
        await self._end(events)

    async def close(self) -> None:
        """End a stream that is complete."""
        await self._end(bytes(self._held))

    async def fail(self, error: ErrorObject) -> None:
        """Tell of a failure as the last event, and end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self._end(b"\n" + self._form.error(error, self.lines))

    def _failed_at(self, lines: bytes) -> int:
        """Where the first event ends that tells of an error; 0 without one."""
        end = 0
        for line in lines.splitlines(keepends=True):
            end += len(line)
            if line.startswith(b"data:") and self._form.is_error(line[5:].strip()):
                return end
        return 0

    def _whole_lines(self, chunk: bytes) -> bytes:
        held = self._held
        if not held and chunk.endswith(b"\n"):
            return chunk
        end = chunk.rfind(b"\n") + 1
        lines = bytes(held) + chunk[:end] if end else b""
        if end:
            held.clear()
        held += chunk[end:]
        if len(held) > ANSWER_LIMIT:
            raise too_large()
        return lines

    def _note(self, lines: bytes) -> None:
        if self.first_at is None:
            self.first_at = perf_counter()
        self._recent.append(lines)
        self._recent_size += len(lines)
        if self._recent_size > self._most_recent:
            last = self.lines
            last = last[last.rfind(b"\n", 0, -TAIL) + 1 :]
            self._recent, self._recent_size = [last], len(last)
            self._most_recent = 2 * max(TAIL, len(last))

    async def _ping(self) -> None:
        lines = self.lines
        if not self._held and (not lines or lines.endswith((b"\n\n", b"\r\n\r\n"))):
            await self._send({"type": "http.response.body", "body": PING, "more_body": True})

    async def _begin(self, headers: Headers) -> None:
        self.begun = True
        await self._send(start(200, {**headers, **HEADERS}))

    async def _end(self, lines: bytes) -> None:
        await self._send({"type": "http.response.body", "body": lines, "more_body": False})


def start(status: int, headers: Headers) -> HTTPResponseStartEvent:
    """The message that begins an answer."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": encoded}


def last_data(lines: bytes) -> bytes:
    """What the last `data` line says; empty without one."""
    at = lines.rfind(b"\ndata:")
    if at < 0 and not lines.startswith(b"data:"):
        return b""
    return lines[at + 6 :].partition(b"\n")[0].strip()


def last_event(lines: bytes) -> bytes:
    """The same, with `[DONE]` left out."""
    last = last_data(lines)
    return last_data(lines[: lines.rfind(b"\ndata:") + 1]) if last == DONE else last


def one_line(json: bytes) -> bytes:
    """The same JSON without line breaks, which no event could hold; within strings there are none."""
    return json.translate(None, b"\r\n")
