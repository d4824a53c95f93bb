"""The audit log across everything, and the live stream of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Literal

import msgspec
from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream

from application.ports import Source
from application.views import Entry, EventFilter, Page, Views
from domain.access import Permission
from domain.errors import InvalidInput, Problem, StoreUnavailable
from domain.values import parse_model_id
from web.csv_export import MEDIA_TYPE as CSV
from web.csv_export import csv_head, csv_lines
from web.feed import Feed
from web.identity import Gate
from web.instants import parse_instant
from web.paging import LARGEST_PAGE, next_link, read_cursor, read_limit

JSON_LINES: Final = "application/jsonl"
DOWNLOAD: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": 'attachment; filename="model-ledger-events.csv"',
}
STREAM_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventController(Controller):
    """Every recorded event."""

    path = "/api/config/events"
    tags = ("history",)

    @get("/", permission=Permission.READ_HISTORY)
    async def events(
        self,
        request: Request[Any, Any, Any],
        views: NamedDependency[Views],
        model: FromQuery[str | None] = None,
        actor: FromQuery[str | None] = None,
        type: FromQuery[str | None] = None,  # noqa: A002 - the parameter's public name
        source: FromQuery[Source | None] = None,
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        text: FromQuery[str | None] = None,
        cursor: FromQuery[str | None] = None,
        limit: FromQuery[int] = 50,
        format: FromQuery[Literal["json", "jsonl", "csv"]] = "json",  # noqa: A002 - likewise
    ) -> Response[Page] | Stream:
        """The audit log, newest first; as JSON Lines or CSV all that matches, in one answer."""
        wanted = EventFilter(
            model_id=None if model is None else parse_model_id(model, "/model"),
            actor=_plain(actor, "actor"),
            type=_plain(type, "type"),
            source=source,
            since=None if since is None else parse_instant(since, "since"),
            until=None if until is None else parse_instant(until, "until"),
            text=_plain(text, "text"),
        )
        before, size = read_cursor(cursor), read_limit(limit)
        accepted = request.headers.get("accept", "")
        if format == "jsonl" or (format == "json" and JSON_LINES in accepted):
            lines = _export(views, wanted, before, b"", _json_lines)
            return Stream(lines, media_type=JSON_LINES, headers={"Cache-Control": "no-store"})
        if format == "csv" or CSV in accepted:
            lines = _export(views, wanted, before, csv_head(), csv_lines)
            return Stream(lines, media_type=CSV, headers=DOWNLOAD)
        page = await views.events(wanted, before=before, limit=size)
        return Response(page, headers=next_link(request, page.next_cursor))

    @get("/stream", permission=Permission.READ_HISTORY)
    async def stream(
        self,
        request: Request[Any, Any, Any],
        feed: NamedDependency[Feed],
        gate: NamedDependency[Gate],
        after: FromQuery[int | None] = None,
    ) -> Stream:
        """New events as they are committed (server-sent events); `Last-Event-ID` resumes."""
        last = request.headers.get("last-event-id")
        position = after if last is None else read_cursor(last, "/last-event-id")
        if position is not None and position < 0:
            raise InvalidInput([Problem("/after", "invalid_value", "a position is 0 or more")])
        events = _while_known(feed.stream(position), partial(gate.still_knows, request))
        return Stream(events, media_type="text/event-stream", headers=STREAM_HEADERS)


async def _while_known(
    messages: AsyncGenerator[bytes], known: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Pass messages on until their reader's token is revoked or session is over; heartbeats are some, too."""
    async with aclosing(messages):
        async for message in messages:
            try:
                if not await known():
                    return
            except StoreUnavailable:
                return  # who watches comes back by itself, and is asked again
            yield message


async def _export(
    views: Views,
    wanted: EventFilter,
    before: int | None,
    head: bytes,
    write: Callable[[Sequence[Entry]], bytes],
) -> AsyncIterator[bytes]:
    """All that matches, a page at a time."""
    yield head
    while True:
        page = await views.events(wanted, before=before, limit=LARGEST_PAGE)
        yield write(page.data)
        if page.next_cursor is None:
            return
        before = int(page.next_cursor)


def _json_lines(entries: Sequence[Entry]) -> bytes:
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)


def _plain(text: str | None, field: str) -> str | None:
    """A filter's text; PostgreSQL takes no NUL."""
    if text is not None and ("\x00" in text or len(text) > 500):
        raise InvalidInput([Problem(f"/{field}", "invalid_text", "at most 500 characters, none of them NUL")])
    return text
