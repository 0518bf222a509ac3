"""Shows results: tables on a terminal, plain aligned text in a pipe, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pandaserver.client.failures import ClientError

STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "closed": "yellow",
    "chosen": "green",
    "rejected": "red",
    "online": "green",
    "test": "yellow",
    "brokeroff": "yellow",
    "offline": "red",
}  # of words, wherever they fill a cell


@dataclass(frozen=True)
class Table:
    """Rows to be shown; `empty` is said when there are none."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    empty: str = "nothing"


class Output:
    """Standard output, in the form that was asked for."""

    def __init__(self, *, as_json: bool, stream: IO[str] | None = None) -> None:
        self.as_json = as_json
        self._stream = stream or sys.stdout

    def result(self, document: object, *parts: Table | str) -> None:
        """Print the result: a JSON document, or else tables and lines for people."""
        if self.as_json:
            print(json.dumps(document, indent=1, default=_plain), file=self._stream)
        else:
            for part in parts:
                self._show(part)

    def note(self, text: str) -> None:
        """Say something on the way, to people only."""
        if not self.as_json:
            print(printable(text), file=self._stream, flush=True)

    def failure(self, error: ClientError) -> None:
        """Tell what went wrong: on standard error, and as the JSON document if one was asked for."""
        print(f"panda: {printable(error.message)}", file=sys.stderr)
        if self.as_json:
            told = {"message": error.message, "field": error.field, "value": error.value}
            print(json.dumps({"error": told}, indent=1, default=str), file=self._stream)

    def _show(self, part: Table | str) -> None:
        if isinstance(part, str):
            print(printable(part), file=self._stream)
        elif not part.rows:
            print(part.empty, file=self._stream)
        elif self._stream.isatty():
            Console(file=self._stream).print(_rich(part))
        else:
            print("\n".join(_aligned(part)), file=self._stream)


def printable(text: str) -> str:
    """Make control characters visible: what the server tells shall not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def cell(value: object) -> str:
    """Write a value into one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(" ".join(str(value).splitlines()))


def _plain(value: object) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _aligned(table: Table) -> list[str]:
    lines = [[name.upper() for name in table.columns], *([cell(value) for value in row] for row in table.rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    numbers = _number_columns(table)
    return [
        "  ".join(_padded(t, w, n) for t, w, n in zip(line, widths, numbers, strict=True)).rstrip() for line in lines
    ]


def _padded(text: str, width: int, is_number: bool) -> str:
    return text.rjust(width) if is_number else text.ljust(width)


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for name, is_number in zip(table.columns, _number_columns(table), strict=True):
        shown.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell(value), style=STYLES.get(str(value), "")) for value in row))
    return shown


def _number_columns(table: Table) -> list[bool]:
    return [_numbers([row[place] for row in table.rows]) for place in range(len(table.columns))]


def _numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, (int, float, NoneType)) for value in values) and any(v is not None for v in values)
