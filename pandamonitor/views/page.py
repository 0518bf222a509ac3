"""What a page is: an address, the parameters it understands, and a function that reads and arranges the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pandamonitor.query import Query
from pandamonitor.settings import Settings
from pandamonitor.tables import Table
from pandaserver.taskbuffer.clock import Clock
from pandaserver.taskbuffer.monitoring import ReadOnlyDatabase

DEFAULT_HOURS = 24
DEFAULT_SIZE = 100
DEEPEST_ROW = 200_000  # nobody turns so many pages; the database would have to


class Elsewhere(Exception):
    """What was asked for has a page of its own."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


@dataclass(frozen=True)
class Monitor:
    """What every page works with."""

    database: ReadOnlyDatabase
    settings: Settings
    clock: Clock

    def hours_ago(self, hours: float) -> datetime:
        """Give the moment so many hours ago."""
        return self.clock() - timedelta(hours=hours)


@dataclass(frozen=True)
class Page:
    """A page before it is drawn."""

    title: str
    template: str
    values: Mapping[str, object]  # for the template
    data: object  # for JSON
    table: Table | None = None  # for CSV


@dataclass(frozen=True)
class View:
    """A kind of page; `at_most_s` bounds how long it may be kept."""

    rule: str
    parameters: Sequence[str]
    build: Callable[..., Page]
    at_most_s: float = field(default=3600.0, kw_only=True)

    def keep_s(self, cache_s: float) -> float:
        """Say how long a made page may be shown."""
        return min(cache_s, self.at_most_s)


@dataclass(frozen=True)
class Screen:
    """Which rows of a long list are shown."""

    page: int
    size: int
    total: int
    partial: bool = False  # there are more than `total`

    @property
    def offset(self) -> int:
        """Give the number of rows before this screen."""
        return (self.page - 1) * self.size

    @property
    def pages(self) -> int:
        """Give the number of screens that can be turned to."""
        return max(1, -(-min(self.total, DEEPEST_ROW) // self.size))

    @property
    def first(self) -> int:
        """Give the number of the first row shown, counted from one; 0 when there is none."""
        return min(self.offset + 1, self.total)

    @property
    def last(self) -> int:
        """Give the number of the last row shown."""
        return min(self.offset + self.size, self.total)


def screen(query: Query, total: int, *, partial: bool = False) -> Screen:
    """Read which screen was asked for; one behind the end is the last."""
    asked = Screen(query.number("page", 1), query.number("size", DEFAULT_SIZE), total, partial)
    return Screen(min(asked.page, asked.pages), asked.size, total, partial)
