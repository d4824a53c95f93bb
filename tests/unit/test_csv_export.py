"""The export for spreadsheets: what a program reads back, and what no spreadsheet executes."""

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from application.views import Entry
from domain.changes import FieldChange
from domain.values import Actor
from web.csv_export import COLUMNS, FORMULA, csv_head, csv_lines

ENTRY = Entry(
    position=7,
    model_id="gpt-4",
    version=2,
    type="model.updated",
    actor=Actor("token:ci", "CI", "token"),
    source="api",
    at=datetime(2026, 11, 22, 12, tzinfo=UTC),
    reason="too slow",
    request_id="r-1",
    changes=[FieldChange("max_tokens", "changed", 1, 2), FieldChange("reasoning", "added", new=True)],
    config=None,
    hash="ab" * 32,
)


def read(*entries: Entry) -> list[dict[str, str]]:
    text = (csv_head() + csv_lines(entries)).decode()
    return [*csv.DictReader(io.StringIO(text, newline=""))]


def test_an_entry_is_one_row_of_named_columns() -> None:
    [row] = read(ENTRY)
    assert row == {
        "position": "7",
        "at": "2026-11-22T12:00:00+00:00",
        "model_id": "gpt-4",
        "version": "2",
        "type": "model.updated",
        "to_version": "",
        "changes": "max_tokens: 1 -> 2; reasoning: -> true",
        "reason": "too slow",
        "actor_id": "token:ci",
        "actor_name": "CI",
        "actor_kind": "token",
        "source": "api",
        "request_id": "r-1",
        "hash": "ab" * 32,
    }


def test_what_there_is_not_is_an_empty_cell() -> None:
    removed = [FieldChange("reasoning", "removed", old=False)]
    [row] = read(replace(ENTRY, model_id=None, reason=None, to_version=3, changes=removed))
    assert (row["model_id"], row["reason"], row["to_version"]) == ("", "", "3")
    assert row["changes"] == "reasoning: false ->"
    assert read(replace(ENTRY, changes=[], to_version=UNSET))[0]["changes"] == ""


@pytest.mark.parametrize("begin", FORMULA)
def test_no_text_becomes_a_formula(begin: str) -> None:
    text = f'{begin}HYPERLINK("http://evil")'
    actor = Actor("token:x", text, "token")
    [row] = read(replace(ENTRY, reason=text, actor=actor))
    assert row["reason"] == row["actor_name"] == f"'{text}"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_the_texts_are_each_entry_stays_one_row(reason: str, name: str) -> None:
    changes = [FieldChange("name", "changed", name, reason)]
    rows = read(replace(ENTRY, reason=reason, changes=changes), ENTRY)
    assert [row["position"] for row in rows] == ["7", "7"]
    assert rows[0]["reason"].removeprefix("'") == reason.removeprefix("'")
    assert all(row.keys() == COLUMNS.keys() for row in rows)
    assert not any(cell.startswith(FORMULA) for row in rows for cell in row.values())
