"""What a provider says of its own answer, for those who trace calls in detail."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from application.telemetry import Answered


class _Choice(Struct):
    finish_reason: str | None = None


class _Object(Struct):
    """A completion or a chunk of one, embeddings, or a response."""

    model: str | None = None
    id: str | None = None
    status: str | None = None
    choices: list[_Choice] = []


class _Event(_Object):
    """The same, or an event that has a response in it."""

    response: _Object | None = None


OBJECT: Final = msgspec.json.Decoder(_Event)


def of_whole(answer: bytes) -> Answered:
    """What a whole answer says of itself."""
    return _answered(_objects([answer]))


def of_stream(lines: bytes) -> Answered:
    """What the last lines of a stream say of it."""
    return _answered(_objects(line[5:] for line in lines.splitlines() if line.startswith(b"data:")))


def _objects(texts: Iterable[bytes]) -> Iterator[_Object]:
    for text in texts:
        try:
            event = OBJECT.decode(text)
        except (ValueError, RecursionError):
            continue
        yield event.response or event


def _answered(objects: Iterable[_Object]) -> Answered:
    model = id_ = None
    reasons: list[str] = []
    for said in objects:
        model, id_ = said.model or model, said.id or id_
        reasons += [choice.finish_reason for choice in said.choices if choice.finish_reason]
        if said.status:
            reasons = [said.status]
    return Answered(model=model, id=id_, finish_reasons=tuple(reasons))
