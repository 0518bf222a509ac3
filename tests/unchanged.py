"""Says whether a request left any trace in the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from factories import Grid

from pandaserver.taskbuffer import schema


def contents(grid: Grid) -> dict[str, list[Any]]:
    """Every row of every table."""

    def read(connection: sa.Connection) -> dict[str, list[Any]]:
        tables = schema.metadata.sorted_tables
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in tables}

    return grid.server.rooms.buffer.read(read)


@contextmanager
def unchanged(grid: Grid) -> Iterator[None]:
    """Fail if what is done inside changes a row or leaves a file in the cache."""
    cache = grid.server.rooms.config.cache.directory
    before, files = contents(grid), sorted(cache.iterdir())
    yield
    after = contents(grid)
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}
    assert sorted(cache.iterdir()) == files
