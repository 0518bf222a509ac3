"""What servers of the first revision write: rows as they stood in their tables, said without the tables of today."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

WHEN = datetime(2026, 3, 5, 12, tzinfo=UTC).replace(tzinfo=None)  # naive: as it stands in the database
ALICE = "/DC=org/DC=panda-test/O=Grid/CN=Alice"
# The way of a job to each state, with the queue from where it has one.
WAYS: dict[str, tuple[str, ...]] = {
    "defined": (),
    "waiting": ("waiting",),
    "assigned": ("assigned",),
    "activated": ("activated",),
    "throttled": ("activated", "throttled"),
    "sent": ("activated", "sent"),
    "starting": ("activated", "sent", "starting"),
    "running": ("activated", "sent", "running"),
    "holding": ("activated", "sent", "running", "holding"),
    "transferring": ("activated", "sent", "running", "holding", "transferring"),
    "merging": ("activated", "sent", "running", "holding", "merging"),
    "finished": ("activated", "sent", "running", "holding", "finished"),
    "failed": ("activated", "sent", "running", "holding", "failed"),
    "cancelled": ("cancelled",),
    "closed": ("waiting", "closed"),
}
FINAL = ("finished", "failed", "cancelled", "closed")
TRIED = [state for state, way in WAYS.items() if "sent" in way]


class Tables:
    """The tables of a database as it says of itself: all that the servers of its time knew."""

    def __init__(self, engine: sa.Engine) -> None:
        self.metadata = sa.MetaData()
        self.metadata.reflect(engine)

    def __getitem__(self, name: str) -> sa.Table:
        return self.metadata.tables[name]


def ids() -> dict[str, int]:
    """The number of the job in each state."""
    return {state: number for number, state in enumerate(WAYS, start=1)}


def rows(first: int = 0) -> dict[str, list[dict[str, Any]]]:
    """A job in each state, with all that belongs to it; numbers from `first` on."""
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in (
            "users", "jobs", "job_details", "job_history", "files", "attempts", "job_errors", "retry_decisions",
            "brokerage_reasons",
        )
    }  # fmt: skip
    if not first:
        seen = {"first_seen": WHEN, "last_seen": WHEN}
        found["users"] = [{"dn": ALICE, "name": "Alice", "status": "enabled", "definitions": 3} | seen]
    for state, number in ids().items():
        for name, new in one(first + number, state).items():
            found[name] += new
    return found


def one(job_id: int, state: str) -> dict[str, list[dict[str, Any]]]:
    """One job in a state."""
    way = WAYS[state]
    tried, ended = "sent" in way, state in FINAL
    last = WHEN + timedelta(minutes=len(way))
    job = {
        "job_id": job_id, "state": state, "owner": ALICE, "owner_name": "Alice", "name": f"job {state}",
        "label": "managed", "transformation": "run.py", "definition_id": 3, "task_id": 42, "vo": "testvo",
        "assigned_priority": 10, "priority": 10, "attempt": int(tried), "site": "BNL" if "activated" in way else None,
        "cores": 1, "memory_mb": 2000, "created_at": WHEN, "state_since": last, "modified_at": last,
        "output_dataset": "mc.test.evnt", "started_at": WHEN if tried else None, "ended_at": last if ended else None,
    }  # fmt: skip
    details = {"job_id": job_id, "parameters": f"--for {state}", "attributes": {"x": 1}, "metadata": '{"n": 2}'}
    states = (None, "defined", *way)
    history = [
        {
            "job_id": job_id, "at": WHEN + timedelta(minutes=n), "from_state": before, "to_state": after,
            "attempt": int(tried), "reason": f"{before} to {after}",
        }
        for n, (before, after) in enumerate(pairwise(states))
    ]  # fmt: skip
    names = ("output", f"evnt.{job_id}.root"), ("log", f"job.{job_id}.log.tgz")
    files = [
        {"job_id": job_id, "type": kind, "lfn": lfn, "scope": "mc", "dataset": "mc.test.evnt", "status": "unknown"}
        for kind, lfn in names
    ]
    attempt = {
        "job_id": job_id, "number": 1, "queue": "BNL", "pilot": "/CN=pilot", "node": "wn1", "request_id": f"r{job_id}",
        "claimed_at": WHEN, "lease_until": WHEN, "usage": {"cores": 1}, "ended_at": last if ended else None,
        "outcome": state if ended else None,
    }  # fmt: skip
    error = {"job_id": job_id, "attempt": 1, "family": "pilot", "code": 1305, "diagnostic": "exit 1", "at": last}
    decision = {
        "job_id": job_id, "attempt": 1, "queue": "BNL", "rule": "again", "action": "retry", "passive": False,
        "done": False, "reason": "no attempt is left", "at": last,
    }  # fmt: skip
    reason = {"job_id": job_id, "at": WHEN, "site": "BNL", "verdict": "chosen", "reason": "nearest", "weight": 0.5}
    return {
        "jobs": [job], "job_details": [details], "job_history": history, "files": files,
        "attempts": [attempt] if tried else [], "job_errors": [error] if state == "failed" else [],
        "retry_decisions": [decision] if state == "failed" else [], "brokerage_reasons": [reason],
    }  # fmt: skip


def write(connection: sa.Connection, tables: Tables, told: dict[str, list[dict[str, Any]]]) -> None:
    """Write rows as a server of that time would."""
    for name, new in told.items():
        table = tables[name]
        for row in new:
            connection.execute(sa.insert(table), {key: _as_kept(table.c[key], value) for key, value in row.items()})


def _as_kept(column: sa.Column[Any], value: Any) -> Any:
    """Give JSON as text where the database calls it so."""
    return json.dumps(value) if isinstance(value, dict) and not isinstance(column.type, sa.JSON) else value


def all_rows(connection: sa.Connection, tables: Tables) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in these tables, as far as they knew it."""
    found = {}
    for name, table in tables.metadata.tables.items():
        if name != "alembic_version":
            found[name] = sorted((tuple(row) for row in connection.execute(sa.select(table))), key=repr)
    return found
