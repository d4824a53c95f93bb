"""The difference between two configurations, and what two of them make of a third, field by field."""

from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

Value = str | int | float | bool | list[str] | None
Fields = Mapping[str, Value]
"""A configuration as plain values; a field that is not set is absent."""


class FieldChange(Struct, frozen=True, omit_defaults=True):
    """What became of one field; `old` is absent for one that was added, `new` for one removed."""

    field: str
    op: Literal["added", "changed", "removed"]
    old: Value | UnsetType = UNSET
    new: Value | UnsetType = UNSET


class PatchOperation(Struct, frozen=True, omit_defaults=True):
    """One operation of a JSON Patch (RFC 6902)."""

    op: Literal["add", "replace", "remove"]
    path: str
    value: Value | UnsetType = UNSET


class Conflict(Struct, frozen=True, omit_defaults=True):
    """A field that two sides changed differently; a value that is absent is a field that is not set."""

    field: str
    base: Value | UnsetType = UNSET
    theirs: Value | UnsetType = UNSET
    mine: Value | UnsetType = UNSET


def difference(old: Fields, new: Fields) -> list[FieldChange]:
    """The changes that lead from one configuration to the other, in the order of the fields."""
    fields = [*new, *(field for field in old if field not in new)]
    return [change for field in fields if (change := _change(field, old, new))]


def merge(base: Fields, theirs: Fields, mine: Fields) -> tuple[dict[str, Value], list[Conflict]]:
    """Bring both sides' changes of one base together, field by field.

    Where both changed a field, and not to the same, it is a conflict and keeps `theirs`.
    """
    merged = dict(theirs)
    conflicts = []
    for change in difference(base, mine):
        field = change.field
        ours, other = mine.get(field, UNSET), theirs.get(field, UNSET)
        if other == base.get(field, UNSET):
            merged.pop(field, None)
            if not isinstance(ours, UnsetType):
                merged[field] = ours
        elif other != ours:
            conflicts.append(Conflict(field, base.get(field, UNSET), other, ours))
    return merged, conflicts


def as_json_patch(changes: list[FieldChange]) -> list[PatchOperation]:
    """The same changes as a JSON Patch."""
    operations: dict[str, Literal["add", "replace", "remove"]]
    operations = {"added": "add", "changed": "replace", "removed": "remove"}
    return [PatchOperation(operations[change.op], f"/{change.field}", change.new) for change in changes]


def _change(field: str, old: Fields, new: Fields) -> FieldChange | None:
    if field not in old:
        return FieldChange(field, "added", new=new[field])
    if field not in new:
        return FieldChange(field, "removed", old=old[field])
    if old[field] == new[field]:
        return None
    return FieldChange(field, "changed", old[field], new[field])
