"""Streams of the Responses API: numbered events, of which one of `TERMINAL` or an error is the last word."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from web.gateway.event_streams import Ending, EventForm, last_event
from web.gateway.openai_errors import ErrorObject
from web.gateway.whole_responses import TERMINAL, as_events, spelled

NOTHING: Final = Raw(b"null")


class _Event(Struct):
    type: str = ""
    sequence_number: int = -1
    error: Raw = NOTHING


def ending(lines: bytes, half_line: bytes) -> Ending:
    """What a stream's end says; the type within the data counts, as it does for the SDKs."""
    event = _last_event(lines)
    if event.type in {"error", "response.failed"} or bytes(event.error) != b"null":
        return "failed"
    return "cut" if half_line or event.type not in TERMINAL.values() else "done"


def error_event(error: ErrorObject, lines: bytes) -> bytes:
    """A failure, as the last event of a stream: the API's own `error`.

    The SDKs raise for what stands under `error`; an event without it is one more event to them.
    """
    event = {
        "type": "error",
        "sequence_number": _last_event(lines).sequence_number + 1,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "error": error,
    }
    return spelled("error", event)


def _last_event(lines: bytes) -> _Event:
    try:
        return msgspec.json.decode(last_event(lines), type=_Event)
    except (ValueError, RecursionError):
        return _Event()


RESPONSE_EVENTS: Final = EventForm(
    lambda _: False,  # its errors are its last events, and no other word follows
    ending,
    error_event,
    lambda answer, _: as_events(answer),
)
