"""Fills the tables with very many jobs in little time: for a claim, a heartbeat or a last word to find them.

Jobs of one queue have adjacent ids, and every table is written in the order of its key. Secondary indexes are made
after the rows where there are many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from benchmark import messages
from benchmark.mariadb import DBConnection, MariaDB
from benchmark.processes import BenchError
from benchmark.show import Advance, bar
from benchmark.site import ENDPOINT
from pandaserver.model.lane import floor_of
from pandaserver.taskbuffer import schema

MANY = 200_000  # from here on indexes are made afterwards
USERS = 20
OWNER = "/DC=org/DC=bench/O=Grid/CN=User "
_CHUNK = 50_000
_NOW = "UTC_TIMESTAMP(6)"
_FIRST_ID = 1_000_001


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Very many jobs: `count` over all `queues`, ids from `first_id`; the first `complete` of each queue have files."""

    count: int
    queues: list[str]
    state: str = "activated"
    complete: int | None = None  # all
    first_id: int = _FIRST_ID
    pilot: str = ""  # DN of those who hold them

    @property
    def per_queue(self) -> int:
        """Give the number of jobs of each queue."""
        return max(1, self.count // len(self.queues))

    @property
    def with_pilot(self) -> bool:
        """Say whether the jobs have been given to pilots."""
        return self.state not in ("activated", "defined")

    def ids(self) -> range:
        """Give the ids of all jobs."""
        return range(self.first_id, self.first_id + self.per_queue * len(self.queues))


@dataclass(frozen=True)
class Stretch:
    """Adjacent jobs of one queue; `start` is the first id of the queue, `per_queue` its number of jobs."""

    queue: str
    first: int
    last: int
    start: int
    per_queue: int
    first_lane: int  # of the queue: one for each user

    @property
    def priority(self) -> str:
        """Give the SQL of a priority that falls in ten steps along the queue."""
        return f"1000 - 100 * FLOOR(10 * (seq - {self.start}) / {self.per_queue})"


Columns = Mapping[str, str]  # column -> SQL expression of seq, the id


def fill(database: MariaDB, crowd: Crowd) -> None:
    """Write a crowd of jobs.

    Raises:
        BenchError: the tables want a column of which nothing is known here.
    """
    connection = database.connect("panda")
    try:
        with bar("filling the tables", crowd.per_queue * len(crowd.queues)) as advance:
            _fill(connection, crowd, advance)
    finally:
        connection.close()


def _fill(connection: DBConnection, crowd: Crowd, advance: Advance) -> None:
    tables = ["jobs", "lanes", "ready"] if crowd.state == "activated" else ["jobs", "attempts"]
    with connection.cursor() as cursor, _hurry(connection):
        cursor.execute("SELECT COUNT(*) FROM jobs")
        empty = cursor.fetchone() == (0,)
        later = [_without_indexes(connection, name) for name in ("jobs", tables[-1]) if empty and crowd.count >= MANY]
        for stretch in stretches(crowd):
            for statement in statements(crowd, stretch):
                cursor.execute(statement)
            advance(stretch.last - stretch.first + 1)
        for statement in filter(None, later):
            cursor.execute(statement)
        cursor.execute(f"ANALYZE TABLE {', '.join([*tables, 'files', 'job_details'])}")


@contextmanager
def _hurry(connection: DBConnection) -> Iterator[None]:
    """Write without checks and without waiting for the disk; durable again afterwards."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00'")
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        try:
            yield
        finally:
            cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
            cursor.execute("SET SESSION foreign_key_checks = 1, unique_checks = 1")


def _without_indexes(connection: DBConnection, table: str) -> str:
    """Take the indexes that can be missed from a table; give the statement that makes them again."""
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW CREATE TABLE {table}")
        keys = missable_keys((cursor.fetchone() or ("", ""))[1])
        if not keys:
            return ""
        cursor.execute(f"ALTER TABLE {table} " + ", ".join(f"DROP KEY `{name}`" for name in keys))
    return f"ALTER TABLE {table} " + ", ".join(f"ADD {definition}" for definition in keys.values())


def missable_keys(create_table: str) -> dict[str, str]:
    """Find the plain indexes of a table, definition by name, that no foreign key leans on."""
    leaning = set(re.findall(r"FOREIGN KEY \(`(\w+)`", create_table))
    found = re.findall(r"^\s+(KEY `(\w+)` \(`(\w+)`.*?\)),?$", create_table, re.M)
    return {name: definition for definition, name, first in found if first not in leaning}


def stretches(crowd: Crowd) -> Iterator[Stretch]:
    """Cut a crowd into statements of a bearable size."""
    for number, queue in enumerate(crowd.queues):
        start = crowd.first_id + number * crowd.per_queue
        end = start + crowd.per_queue
        for first in range(start, end, _CHUNK):
            last, first_lane = min(first + _CHUNK, end) - 1, _FIRST_ID + number * USERS
            yield Stretch(queue, first, last, start, crowd.per_queue, first_lane)


def statements(crowd: Crowd, stretch: Stretch) -> Iterator[str]:
    """Give the statements that write a stretch."""
    yield _insert("jobs", _job(crowd, stretch), stretch.first, stretch.last)
    if crowd.state == "activated":
        if stretch.first == stretch.start:
            # those of an earlier fill are there already
            yield _insert("lanes", _lane(stretch), 0, USERS - 1).replace("INSERT", "INSERT IGNORE", 1)
        yield _insert("ready", _ready(stretch), stretch.first, stretch.last) + " ORDER BY 1, 2, 3"
    if crowd.with_pilot:
        yield _insert("attempts", _attempt(crowd, stretch), stretch.first, stretch.last)
    complete = stretch.per_queue if crowd.complete is None else crowd.complete
    last = min(stretch.last, stretch.start + complete - 1)
    if last >= stretch.first:
        yield _insert("job_details", _DETAILS, stretch.first, last)
        for kind, suffix in (("output", "root"), ("log", "log.tgz")):
            yield _insert("files", _file(kind, suffix), stretch.first, last)


def _insert(table: str, columns: Columns, first: int, last: int) -> str:
    known = {column.name: column for column in schema.metadata.tables[table].columns}
    lacking = [
        name
        for name, column in known.items()
        if name not in columns
        and not (column.nullable or column.server_default is not None or column.autoincrement is True)
    ]
    if lacking:
        raise BenchError(f"table {table} has a new column {lacking[0]}: tools/benchmark/fill.py has to learn about it")
    used = {name: expression for name, expression in columns.items() if name in known}
    names = ", ".join(f"`{name}`" for name in used)
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(used.values())} FROM seq_{first}_to_{last}"


def _job(crowd: Crowd, stretch: Stretch) -> Columns:
    attempt = int(crowd.with_pilot)
    started = _NOW if crowd.state == "running" else "NULL"
    return {
        "job_id": "seq",
        "state": f"'{crowd.state}'",
        "owner": f"CONCAT('{OWNER}', seq MOD {USERS})",
        "owner_name": f"CONCAT('User ', seq MOD {USERS})",
        "name": "CONCAT('bench-', seq)",
        "label": f"'{messages.LABEL}'",
        "transformation": "'https://localhost/cache/simulate.py'",
        "definition_id": "seq DIV 100",
        "jobset_id": "seq DIV 100",
        "task_id": "seq DIV 1000",
        "vo": "'bench'",
        "assigned_priority": "100",
        "priority": stretch.priority,
        "attempt": str(attempt),
        "site": f"'{stretch.queue}'",
        "cloud": "'US'",
        "output_dataset": f"'{messages.DATASET}'",
        "cores": "1",
        "memory_mb": str(messages.MEMORY_MB),
        "disk_mb": str(messages.DISK_MB),
        "wall_time_s": str(messages.WALL_TIME_S),
        "created_at": _NOW,
        "state_since": _NOW,
        "modified_at": _NOW,
        "started_at": started,
    }


def _lane(stretch: Stretch) -> Columns:
    return {
        "lane_id": f"{stretch.first_lane} + seq",
        "queue": f"'{stretch.queue}'",
        "owner": f"CONCAT('{OWNER}', seq)",
        "label": f"'{messages.LABEL}'",
        "vo": "'bench'",
        "cores": "1",
        "memory_mb": str(floor_of(messages.MEMORY_MB)),
        "disk_mb": str(floor_of(messages.DISK_MB)),
        "wall_time_s": str(floor_of(messages.WALL_TIME_S)),
        "created_at": _NOW,
    }


def _ready(stretch: Stretch) -> Columns:
    return {
        "lane_id": f"{stretch.first_lane} + seq MOD {USERS}",
        "rank": f"-({stretch.priority})",
        "job_id": "seq",
        "memory_mb": str(messages.MEMORY_MB),
        "disk_mb": str(messages.DISK_MB),
        "wall_time_s": str(messages.WALL_TIME_S),
    }


def _attempt(crowd: Crowd, stretch: Stretch) -> Columns:
    return {
        "job_id": "seq",
        "number": "1",
        "queue": f"'{stretch.queue}'",
        "pilot": f"'{crowd.pilot}'",
        "node": "'wn001.bench.org'",
        "claimed_at": _NOW,
        "lease_until": f"{_NOW} + INTERVAL 1 DAY",
        "usage": "'{}'",
    }


_DETAILS: Columns = {
    "job_id": "seq",
    "parameters": "CONCAT('--events 1000 --seed ', seq, REPEAT(' --option value', 10))",
    "attributes": "'{}'",
}


def _file(kind: str, suffix: str) -> Columns:
    return {
        "job_id": "seq",
        "type": f"'{kind}'",
        "lfn": f"CONCAT('bench.', seq, '.{suffix}')",
        "scope": f"'{messages.DATASET.split('.')[0]}'",
        "guid": "UUID()",
        "dataset": f"'{messages.DATASET}'",
        "block": f"'{messages.DATASET}_sub1'",
        "destination": f"'{ENDPOINT}'",
        "status": "'unknown'",
    }


def outputs_of(job_id: int) -> list[str]:
    """Give the names of a job's files, the log last."""
    return [f"bench.{job_id}.root", f"bench.{job_id}.log.tgz"]
