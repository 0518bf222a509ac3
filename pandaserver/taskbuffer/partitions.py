"""Partitions of the archive on MariaDB, one for each month: made ahead, and dropped as a whole.

SQLite has none. What has no partition of its own is kept in the last one, so that no row is ever refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import Database
from pandaserver.taskbuffer.schema_archive import LAST_PARTITION, MONTH

log = logging.getLogger(__name__)

_PATIENCE_S = 3  # for readers of a table: whoever comes while we wait stands in line behind us
_MOST = 240  # months; MariaDB allows 8192 partitions, and opens all of them


def following(month: date, number: int = 1) -> date:
    """Give the month that comes so many months later, or before."""
    months = month.year * 12 + month.month - 1 + number
    return date(months // 12, months % 12 + 1, 1)


def months_between(first: date, last: date) -> Iterator[date]:
    """Give all months from one to another, both included."""
    while first <= last:
        yield first
        first = following(first)


def of_table(connection: Connection, name: str) -> dict[str, date | None]:
    """Give the partitions of a table in their order: each with the first month that is not in it, the last with None.

    Empty where the table is not partitioned, as always on SQLite.
    """
    if connection.dialect.name == "sqlite":
        return {}
    rows = connection.execute(_PARTITIONS, {"name": name})
    return {row.partition: None if row.end == "MAXVALUE" else date.fromisoformat(row.end.strip("'")) for row in rows}


def are_used(connection: Connection) -> bool:
    """Say whether the archive is partitioned."""
    return bool(of_table(connection, schema.archived["jobs"].name))


_PARTITIONS = sa.text(
    "SELECT PARTITION_NAME AS `partition`, PARTITION_DESCRIPTION AS `end` FROM information_schema.PARTITIONS"
    " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = :name AND PARTITION_NAME IS NOT NULL"
    " ORDER BY PARTITION_ORDINAL_POSITION"
)


def make(database: Database, first: date, last: date) -> int:
    """Give the months up to the last their partitions in all tables, in new ones from the first on; tell how many.

    A month before all that have one stays with the earliest of these.
    """
    return sum(_make(database, table.name, first, last) for table in schema.archived.values())


def _make(database: Database, table: str, first: date, last: date) -> int:
    with database.reader.connect() as connection:
        known = of_table(connection, table)
        if not known:
            return 0
        begun = [end for end in known.values() if end is not None]
        start = begun[-1] if begun else min(first, _oldest_month(connection, table) or first)
    new = list(months_between(start, last))[-_MOST:]
    if new:
        _alter(database, f"ALTER TABLE {table} REORGANIZE PARTITION {LAST_PARTITION} INTO ({_definitions(new)})")
    return len(new)


def _oldest_month(connection: Connection, table: str) -> date | None:
    month: date | None = connection.execute(sa.select(sa.func.min(schema.metadata.tables[table].c[MONTH]))).scalar_one()
    return month


def _definitions(months: Sequence[date]) -> str:
    ranges = [f"PARTITION p{month:%Y%m} VALUES LESS THAN ('{following(month)}')" for month in months]
    return ", ".join([*ranges, f"PARTITION {LAST_PARTITION} VALUES LESS THAN (MAXVALUE)"])


def drop(database: Database, before: date) -> int:
    """Drop the partitions that have nothing but months before a month; tell how many.

    The jobs go first: what is left for a moment belongs to jobs that nobody finds.
    """
    return sum(_drop(database, name, before) for name in ["jobs", *(n for n in schema.archived if n != "jobs")])


def _drop(database: Database, live: str, before: date) -> int:
    table = schema.archived[live].name
    with database.reader.connect() as connection:
        old = [name for name, end in of_table(connection, table).items() if end is not None and end <= before]
    if old:
        _alter(database, f"ALTER TABLE {table} DROP PARTITION {', '.join(old)}")
        log.info("%s: dropped %s", table, ", ".join(old))
    return len(old)


def _alter(database: Database, statement: str) -> None:
    with database.writer.connect() as connection, _impatient(connection):
        connection.exec_driver_sql(statement)
        connection.commit()


@contextmanager
def _impatient(connection: Connection) -> Iterator[None]:
    """Wait for a table only for a moment; by itself MariaDB would wait a day, and hold up everybody meanwhile."""
    connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_PATIENCE_S}")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("SET SESSION lock_wait_timeout = DEFAULT")
