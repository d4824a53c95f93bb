"""Server-sent events of the chat API: passed on as they arrive, and never ended as if all was well."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final

import msgspec
from litestar.types import HTTPResponseStartEvent, Send
from msgspec import Raw

TYPE: Final = "text/event-stream"
HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
TAIL: Final = 8_192
"""Bytes of a stream's end that tell whether it is complete: more than its last few events."""
LINE_LIMIT: Final = 1_000_000
"""Bytes of an unfinished line that are held back at most."""
LAST_WORD: Final = 1.0
"""Seconds to tell of a failure; the caller may be why it failed, by not reading."""
DONE: Final = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]\s*\Z")
FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
LAST_EVENT: Final = re.compile(rb"(?:\A|[\r\n])data: ?([^\r\n]*)\s*\Z")

Headers = Mapping[str, str]
Fields = dict[str, Raw]


class EventStream:
    """One stream to a caller: begun, relayed or said at once, and failed if it must be."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held = b""
        self._tail = b""
        self.begun = False

    async def relay(self, headers: Headers, chunks: AsyncIterator[bytes]) -> bool:
        """Pass a provider's events on; False when they stopped short, and `fail` has to tell.

        Whole lines go out: half a line could not be followed by anything that a caller understands.
        """
        await self._begin(headers)
        async for chunk in chunks:
            lines = chunk
            if self._held or not chunk.endswith(b"\n"):
                lines = self._whole_lines(chunk)
            if lines:
                self._tail = (self._tail + lines)[-TAIL:]
                await self._pass(lines)
        if not _is_complete(self._tail, self._held):
            return False
        await self._end(self._held)
        return True

    async def say(self, headers: Headers, events: bytes) -> None:
        """Send a stream that is there as a whole."""
        await self._begin(headers)
        await self._end(events)

    def is_complete(self) -> bool:
        """Whether the last event that went out was `[DONE]`, so that nothing can be missing."""
        return bool(DONE.search(self._tail))

    async def close(self) -> None:
        """End a stream that is complete."""
        await self._end(b"")

    async def fail(self, error: bytes) -> None:
        """Tell of a failure and end without `[DONE]`; `error` is the error object as JSON."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self._end(b"\ndata: " + error + b"\n\n")

    def _whole_lines(self, chunk: bytes) -> bytes:
        text = self._held + chunk
        end = text.rfind(b"\n") + 1 if len(text) < LINE_LIMIT else len(text)
        self._held = text[end:]
        return text[:end]

    async def _begin(self, headers: Headers) -> None:
        self.begun = True
        await self._send(start(200, {**headers, **HEADERS}))

    async def _pass(self, lines: bytes) -> None:
        await self._send({"type": "http.response.body", "body": lines, "more_body": True})

    async def _end(self, lines: bytes) -> None:
        await self._send({"type": "http.response.body", "body": lines, "more_body": False})


def start(status: int, headers: Headers) -> HTTPResponseStartEvent:
    """The message that begins an answer."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": encoded}


def as_events(completion: bytes, *, include_usage: bool) -> bytes:
    """A whole completion as a stream: one chunk with all of it, the usage if asked for, `[DONE]`.

    Raises:
        ValueError: it is no chat completion.
    """
    whole = msgspec.json.decode(completion, type=dict[str, Raw])
    choices = [_delta(each) for each in msgspec.json.decode(whole.get("choices", b"[]"), type=list[Fields])]
    if not choices:
        raise ValueError("a completion has a choice")
    usage = whole.pop("usage", Raw(b"null"))
    head: dict[str, object] = {**whole, "object": "chat.completion.chunk"}
    events = [{**head, "choices": choices, **({"usage": None} if include_usage else {})}]
    if include_usage:
        events.append({**head, "choices": [], "usage": usage})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events) + b"data: [DONE]\n\n"


def _delta(choice: Fields) -> dict[str, object]:
    if bytes(choice.get("finish_reason", b"null")) == b"null":
        raise ValueError("a choice without a finish reason is not complete")
    message = msgspec.json.decode(choice.pop("message", b"{}"), type=Fields)
    delta: dict[str, object] = {**message}
    if calls := msgspec.json.decode(message.get("tool_calls", b"null"), type=list[Fields] | None):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return {**choice, "delta": delta}


def _is_complete(tail: bytes, half_line: bytes) -> bool:
    """Whether a stream's end is one: `[DONE]`, else a finish reason, or an error that tells of itself."""
    if DONE.search(tail + half_line):
        return True
    if half_line:
        return False
    last = LAST_EVENT.search(tail)
    try:
        failed = last is not None and "error" in msgspec.json.decode(last[1], type=Fields)
    except ValueError:
        failed = False
    return failed or bool(FINISH.search(tail))
