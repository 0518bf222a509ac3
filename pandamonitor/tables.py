"""The same data for machines: JSON and CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pandamonitor.text import iso

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Table:
    """Columns and rows of plain values."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    def csv(self) -> str:
        """Write all as CSV with a header line."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(self.columns)
        writer.writerows([[_cell(value) for value in row] for row in self.rows])
        return out.getvalue()


def table_of(things: Sequence[object], columns: Sequence[str]) -> Table:
    """Make a table of some attributes of things."""
    return Table(tuple(columns), [[getattr(thing, name) for name in columns] for thing in things])


def _cell(value: object) -> object:
    """Give a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, Enum):
        return value
    text = iso(value) if isinstance(value, datetime) else str(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def to_json(data: object) -> str:
    """Write data as JSON: dataclasses by their fields, moments as ISO 8601."""
    return json.dumps(_plain(data), ensure_ascii=False, indent=1)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(part) for name, part in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return iso(value)
    return str(value) if isinstance(value, Enum | Path) else value
