"""Entries as comma-separated values (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from application.views import Entry
from domain.changes import FieldChange

MEDIA_TYPE: Final = "text/csv"
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula; an apostrophe before it makes it a text."""

COLUMNS: Final[Mapping[str, Callable[[Entry], object]]] = {
    "position": lambda entry: entry.position,
    "at": lambda entry: entry.at.isoformat(),
    "model_id": lambda entry: entry.model_id,
    "version": lambda entry: entry.version,
    "type": lambda entry: entry.type,
    "to_version": lambda entry: None if entry.to_version is UNSET else entry.to_version,
    "changes": lambda entry: "; ".join(map(_told, entry.changes)),
    "reason": lambda entry: entry.reason,
    "actor_id": lambda entry: entry.actor.id,
    "actor_name": lambda entry: entry.actor.name,
    "actor_kind": lambda entry: entry.actor.kind,
    "source": lambda entry: entry.source,
    "request_id": lambda entry: entry.request_id,
    "hash": lambda entry: entry.hash,
}


def csv_head() -> bytes:
    """The line that names the columns."""
    return _rows([[*COLUMNS]])


def csv_lines(entries: Iterable[Entry]) -> bytes:
    """One line an entry."""
    return _rows([_cell(read(entry)) for read in COLUMNS.values()] for entry in entries)


def _rows(rows: Iterable[list[object] | list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _told(change: FieldChange) -> str:
    """A change such as `max_tokens: 1 -> 2`, values as JSON."""
    old = "" if change.old is UNSET else f"{msgspec.json.encode(change.old).decode()} "
    new = "" if change.new is UNSET else f" {msgspec.json.encode(change.new).decode()}"
    return f"{change.field}: {old}->{new}"
