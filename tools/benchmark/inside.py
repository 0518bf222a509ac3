"""All that measurements know of the inside of the server: names of states and tables. To be changed with the server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC
from pathlib import Path

from benchmark.mariadb import DBConnection
from benchmark.processes import BenchError
from pandaserver.app import create_app, read_installation
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.tokens import TOKEN_SECRET, job_token
from pandaserver.model.attempt import ClaimRequest
from pandaserver.taskbuffer import counters, schema
from pandaserver.taskbuffer.database import Database

NOT_THERE = "not there"
BEFORE_PILOT = ("defined", "waiting", "assigned")
AFTER_PILOT = ("holding", "transferring", "merging")
FINAL = ("finished", "failed", "cancelled", "closed")
# What stays when the tables are emptied between two measurements: the grid, serial numbers, secrets.
_STAY = {"queues", "endpoints", "counters", "secrets", "duties", "lanes"}
_LOOK_S = 0.05


def archive_tables() -> list[str]:
    """Name the tables of the archive; none where the server has no archive yet."""
    return sorted(name for name in schema.metadata.tables if "archive" in name)


def wait_until_settled(connection: DBConnection, states: Sequence[str], *, seconds: float) -> float | None:
    """Wait until no job is in one of these states; give the time it took, None when that was too long."""
    marks = ", ".join(["%s"] * len(states))
    begun = time.monotonic()
    with connection.cursor() as cursor:
        while True:
            cursor.execute(f"SELECT 1 FROM jobs WHERE state IN ({marks}) LIMIT 1", tuple(states))
            spent = time.monotonic() - begun
            if cursor.fetchone() is None:
                return spent
            if spent > seconds:
                return None
            time.sleep(_LOOK_S)


def count_in_state(connection: DBConnection, state: str) -> int:
    """Count jobs in a state, archived ones too."""
    tables = ["jobs", *(name for name in archive_tables() if name.endswith("_jobs"))]
    found = 0
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE state = %s", (state,))
            found += int((cursor.fetchone() or (0,))[0])
    return found


def activated_at(connection: DBConnection) -> dict[int, float]:
    """Tell when each job was activated, as seconds of the wall clock."""
    tables = ["job_history", *(name for name in archive_tables() if name.endswith("job_history"))]
    found: dict[int, float] = {}
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT job_id, at FROM {table} WHERE to_state = 'activated'")
            found |= {int(job_id): at.replace(tzinfo=UTC).timestamp() for job_id, at in cursor.fetchall()}
    return found


def wipe(connection: DBConnection, storage: Path) -> None:
    """Empty all tables of jobs and files, and the storage; the server goes on."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION foreign_key_checks = 0")
        for name in schema.metadata.tables:
            if name not in _STAY:
                cursor.execute(f"TRUNCATE TABLE {name}")
        cursor.execute("SET SESSION foreign_key_checks = 1")
    for path in storage.iterdir():
        shutil.rmtree(path)


def token_secret(url: str) -> str:
    """Give the secret that tokens of attempts are made with; makes it where no server has yet."""
    database = Database(url)
    try:
        return database.run(lambda c: counters.secret(c, TOKEN_SECRET))
    finally:
        database.close()


def token(secret: str, job_id: int, attempt: int) -> str:
    """Make the token that the pilot of an attempt would have been given."""
    return job_token(secret, job_id, attempt)


def dispatcher(config_file: Path) -> Dispatcher:
    """Give the dispatcher as the server puts it together, without the web and background threads around it."""
    return create_app(read_installation(config_file)).rooms.dispatcher


def asking_for_owner(request: ClaimRequest, owner: str) -> ClaimRequest:
    """Let a request ask for the jobs of one user.

    Raises:
        BenchError: requests cannot do that yet.
    """
    known = {field.name for field in fields(ClaimRequest)}
    for name in ("owner", "user", "users", "owners"):
        if name in known:
            return replace(request, **{name: (owner,) if name.endswith("s") else owner})  # type: ignore[arg-type]
    raise BenchError(NOT_THERE)
