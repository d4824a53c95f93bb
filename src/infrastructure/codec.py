"""Events as they are stored: a type, a schema version, and a body of JSON bytes.

A changed body gets the next schema version of its type, and an upcaster that lifts the one before; a
new field with a default needs neither. A pair of type and schema version is for ever.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from domain.catalog import Event

Body = dict[str, Any]
Upcaster = Callable[[Body], Body]

EVENTS: Final[Mapping[str, type[Event]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Event)}
SCHEMA_VERSIONS: Final[Mapping[str, int]] = dict.fromkeys(EVENTS, 1)
"""The schema version that this release writes, by type."""

UPCASTERS: Final[Mapping[tuple[str, int], Upcaster]] = {}
"""From (type, schema version) to a body of the next schema version."""


class Stored(Struct, frozen=True):
    """An event as the table holds it."""

    type: str
    schema_version: int
    body: str


class UnreadableEvent(Exception):
    """An event that this release cannot read: a newer one wrote it, or its body is damaged."""


def encode(event: Event) -> Stored:
    """The stored form; the bytes of `body` are the ones that the chain proves."""
    body = msgspec.to_builtins(event)
    kind = body.pop("type")
    return Stored(kind, SCHEMA_VERSIONS[kind], msgspec.json.encode(body).decode())


def decode(stored: Stored) -> Event:
    """The event, lifted to today's schema.

    Raises:
        UnreadableEvent: unknown type, newer schema version, or a body of another shape.
    """
    kind = EVENTS.get(stored.type)
    if kind is None or stored.schema_version > SCHEMA_VERSIONS[stored.type]:
        raise UnreadableEvent(f"{stored.type} of schema version {stored.schema_version} is not known here")
    try:
        body: Body = msgspec.json.decode(stored.body)
        for version in range(stored.schema_version, SCHEMA_VERSIONS[stored.type]):
            body = UPCASTERS[stored.type, version](body)
        return msgspec.convert({"type": stored.type, **body}, kind)
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableEvent(f"{stored.type}: {error}") from error
