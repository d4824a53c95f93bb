"""Streams of the chat API: chunks, and `[DONE]` as the last word."""

import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from domain.shaping import Fields
from web.gateway.event_streams import DONE, Ending, EventForm, last_data, last_event, one_line
from web.gateway.openai_errors import ErrorObject

FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')


class _Event(Struct):
    error: Raw = Raw(b"null")


def ending(lines: bytes, half_line: bytes) -> Ending:
    """What a stream's end says: `[DONE]`, else a finish reason, or an error that tells of itself."""
    done = last_data(lines + half_line) == DONE
    if half_line and not done:
        return "cut"
    if _is_error(last_event(lines)):
        return "failed"
    if done:
        return "done"
    return "enough" if FINISH.search(lines) else "cut"


def _is_error(data: bytes) -> bool:
    try:
        return bytes(msgspec.json.decode(data, type=_Event).error) != b"null"
    except (ValueError, RecursionError):
        return False


def error_event(error: ErrorObject, _: bytes) -> bytes:
    """A failure, as the last event of a stream."""
    return b"data: %b\n\n" % msgspec.json.encode({"error": error})


def from_whole(answer: bytes, asked: Fields) -> bytes:
    """A whole completion as a stream: one chunk with all of it, the usage if asked for, `[DONE]`.

    Raises:
        ValueError: it is no chat completion.
    """
    whole = msgspec.json.decode(one_line(answer), type=dict[str, Raw])
    choices = [
        _delta(each) for each in msgspec.json.decode(whole.get("choices", b"[]"), type=list[dict[str, Raw]])
    ]
    if not choices:
        raise ValueError("a completion has a choice")
    usage = whole.pop("usage", Raw(b"null"))
    include_usage = _include_usage(asked)
    head: dict[str, object] = {**whole, "object": "chat.completion.chunk"}
    chunks = [{**head, "choices": choices, **({"usage": None} if include_usage else {})}]
    if include_usage:
        chunks.append({**head, "choices": [], "usage": usage})
    return b"".join(
        [*(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks), b"data: [DONE]\n\n"]
    )


def _delta(choice: dict[str, Raw]) -> dict[str, object]:
    if bytes(choice.get("finish_reason", b"null")) == b"null":
        raise ValueError("a choice without a finish reason is not complete")
    message = msgspec.json.decode(choice.pop("message", b"{}"), type=dict[str, Raw])
    delta: dict[str, object] = {**message}
    if calls := msgspec.json.decode(message.get("tool_calls", b"null"), type=list[dict[str, Raw]] | None):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return {**choice, "delta": delta}


class _StreamOptions(Struct):
    include_usage: bool = False


def _include_usage(asked: Fields) -> bool:
    try:
        options = msgspec.json.decode(asked.get("stream_options", b"{}"), type=_StreamOptions)
    except msgspec.DecodeError:
        return False
    return options.include_usage


CHAT_EVENTS: Final = EventForm(_is_error, ending, error_event, from_whole)
