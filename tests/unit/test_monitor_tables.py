"""CSV that no spreadsheet executes, JSON that says what the page says."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandamonitor.tables import Table, table_of, to_json
from pandaserver.model.states import JobState


def read(table: Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(table.csv(), newline="")))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_formulas_become_text(start: str) -> None:
    assert read(Table(("name",), [[f"{start}cmd|' /C calc'!A0"]]))[1][0].startswith(f"'{start}")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2))
def test_cells_come_back_and_none_is_a_formula(row: list[str]) -> None:
    (_, cells) = read(Table(("a", "b"), [row]))
    assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n") for cell in cells)
    assert [cell.removeprefix("'") for cell in cells] == [cell.removeprefix("'") for cell in row]


def test_numbers_moments_and_nothing() -> None:
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    table = Table(("a", "b", "c", "d"), [[-3, None, moment, JobState.FAILED]])
    assert read(table)[1] == ["-3", "", "2026-11-22T12:00:00.000Z", "failed"]


@dataclass(frozen=True)
class Thing:
    name: str
    at: datetime
    states: tuple[JobState, ...]
    inner: dict[JobState, int]


def test_json_has_plain_values_only() -> None:
    thing = Thing("<b>", datetime(2026, 1, 2, tzinfo=UTC), (JobState.SENT,), {JobState.SENT: 2})
    told = json.loads(to_json({"things": [thing]}))
    expected = {"name": "<b>", "at": "2026-01-02T00:00:00.000Z", "states": ["sent"], "inner": {"sent": 2}}
    assert told == {"things": [expected]}
    assert table_of([thing], ("name", "states")).rows == [["<b>", (JobState.SENT,)]]
