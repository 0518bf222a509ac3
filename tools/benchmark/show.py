"""Tables: rich on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Cell = str | int | float | None


@dataclass(frozen=True)
class Sheet:
    """A table: title, names of the columns, rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def text_of(cell: Cell) -> str:
    """Write a number with three digits that mean something."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)


def plain(sheet: Sheet) -> str:
    """Write a table with blanks only."""
    rows = [list(sheet.columns), *([text_of(cell) for cell in row] for row in sheet.rows)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(sheet.columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width) for n, (cell, width) in enumerate(_paired(row, widths))
        )
        for row in rows
    ]
    return "\n".join([sheet.title, *(line.rstrip() for line in lines), *([sheet.note] if sheet.note else [])])


def _paired(row: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, int]]:
    return zip(row, widths, strict=True)


def show(*sheets: Sheet) -> None:
    """Print tables."""
    console = Console()
    for sheet in sheets:
        if console.is_terminal:
            console.print(_rich(sheet))
            if sheet.note:
                console.print(sheet.note, style="dim", highlight=False, markup=False)
        else:
            print(plain(sheet), end="\n\n", flush=True)


def _rich(sheet: Sheet) -> Table:
    table = Table(title=sheet.title, title_justify="left")
    for number, name in enumerate(sheet.columns):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in sheet.rows:
        table.add_row(*(text_of(cell) for cell in row))
    return table


def say(message: str) -> None:
    """Report progress where it does not mix with results."""
    print(f"[bench] {message}", file=sys.stderr, flush=True)


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, count: int) -> None:
        """Say how much more was done."""


@contextmanager
def bar(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on standard error; a line at the beginning where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        say(f"{title} ({total:,})")
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
