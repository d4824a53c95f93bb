"""A whole answer of the Responses API as the stream that it could have come as.

Programs put a response together from these events, so that all are there: each item, part and text is
added empty, filled by one delta, and done.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from web.gateway.event_streams import one_line

Object = dict[str, Raw]
Place = Mapping[str, object]

TERMINAL: Final = {
    # status of a response: its last event
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}
TEXTS: Final = {
    # type of an item or part: the field with its text, and the events that carry it
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
    "reasoning_text": ("text", "response.reasoning_text"),
    "summary_text": ("text", "response.reasoning_summary_text"),
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
    "mcp_call": ("arguments", "response.mcp_call_arguments"),
}
PARTS: Final = {
    # field of an item: the name of a part's place in it, and the events of the part
    "content": ("content_index", "response.content_part"),
    "summary": ("summary_index", "response.reasoning_summary_part"),
}
OUTCOME: Final = frozenset({"usage", "error", "incomplete_details", "completed_at"})
"""Fields of a response that are null until it ends."""
IN_PARTS: Final = frozenset({"message", "reasoning"})
"""Types of items that come in parts."""
IN_PROGRESS: Final = Raw(b'"in_progress"')
EMPTY_LIST: Final = Raw(b"[]")
EMPTY_TEXT: Final = Raw(b'""')
NOTHING: Final = Raw(b"null")


def as_events(answer: bytes) -> bytes:
    """The events of a whole response.

    Raises:
        ValueError: it is no response, or none that has come to its end.
    """
    whole = msgspec.json.decode(one_line(answer), type=Object)
    last = TERMINAL.get(_word(whole, "status"))
    if last is None:
        raise ValueError("a response that still goes on is not complete")
    begun: dict[str, object]
    begun = {**whole, **dict.fromkeys(OUTCOME & whole.keys()), "status": "in_progress", "output": []}
    events = _Events()
    events.add("response.created", response=begun)
    events.add("response.in_progress", response=begun)
    for index, item in enumerate(msgspec.json.decode(whole.get("output", EMPTY_LIST), type=list[Object])):
        _add_item(events, item, {"output_index": index})
    events.add(last, response=whole)
    return b"".join(events.spelled)


def spelled(kind: str, event: Mapping[str, object]) -> bytes:
    """One event of that type."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))


class _Events:
    """Events in their order, numbered."""

    def __init__(self) -> None:
        self.spelled: list[bytes] = []

    def add(self, kind: str, **fields: object) -> None:
        event = {"type": kind, "sequence_number": len(self.spelled), **fields}
        self.spelled.append(spelled(kind, event))


def _add_item(events: _Events, item: Object, place: Place) -> None:
    within = {"item_id": item.get("id", EMPTY_TEXT), **place}
    names = PARTS.keys() & item.keys() if _word(item, "type") in IN_PARTS else ()
    parts = {name: _objects(item, name) for name in sorted(names, reverse=True)}
    begun = {**_emptied(item), **dict.fromkeys(parts, EMPTY_LIST)}
    events.add("response.output_item.added", item=begun, **place)
    _add_text(events, item, within)
    for name, found in parts.items():
        index, kind = PARTS[name]
        for number, part in enumerate(found):
            here = {**within, index: number}
            events.add(f"{kind}.added", part=_emptied(part), **here)
            _add_text(events, part, here)
            events.add(f"{kind}.done", part=part, **here)
    events.add("response.output_item.done", item=item, **place)


def _add_text(events: _Events, said: Object, place: Place) -> None:
    field, kind = TEXTS.get(_word(said, "type"), ("", ""))
    if field not in said:
        return
    extra = {"logprobs": _list(said, "logprobs")} if kind == "response.output_text" else {}
    events.add(f"{kind}.delta", delta=said[field], **place, **extra)
    for number, annotation in enumerate(msgspec.json.decode(_list(said, "annotations"), type=list[Raw])):
        events.add(
            "response.output_text.annotation.added",
            annotation=annotation,
            annotation_index=number,
            **place,
        )
    events.add(f"{kind}.done", **{field: said[field]}, **place, **extra)


def _emptied(said: Object) -> Object:
    """An item or a part before its text came."""
    field, _ = TEXTS.get(_word(said, "type"), ("", ""))
    empty = {field: EMPTY_TEXT, "annotations": EMPTY_LIST, "logprobs": EMPTY_LIST, "status": IN_PROGRESS}
    return {name: empty.get(name, value) for name, value in said.items()}


def _word(said: Object, name: str) -> str:
    return msgspec.json.decode(said.get(name, EMPTY_TEXT), type=str)


def _list(said: Object, name: str) -> Raw:
    found = said.get(name, NOTHING)
    return EMPTY_LIST if bytes(found) == b"null" else found


def _objects(said: Object, name: str) -> list[Object]:
    return msgspec.json.decode(_list(said, name), type=list[Object])
