"""Sets of jobs that are complete, and of which their users were told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.job import PRODUCTION_LABELS
from pandaserver.model.states import FINAL
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert
from pandaserver.taskbuffer.shelves import shelves

_jobs, _notifications = schema.jobs, schema.notifications
_FINAL = sorted(state.value for state in FINAL)

JobSet = tuple[str, int]  # owner's DN, jobsetID


@dataclass(frozen=True)
class Summary:
    """What became of a set."""

    owner: str
    owner_name: str
    jobset_id: int
    counts: Mapping[str, int]  # jobs by state
    definitions: tuple[int, ...]
    completed_at: datetime


def complete_since(connection: Connection, since: datetime) -> list[JobSet]:
    """Find the sets of analysis jobs of which the last job has ended since a moment."""
    ended = sa.select(_jobs.c.owner, _jobs.c.jobset_id).distinct()
    match = (_jobs.c.state.in_(_FINAL), _jobs.c.state_since >= since, _jobs.c.label.not_in(sorted(PRODUCTION_LABELS)))
    by_owner: dict[str, set[int]] = defaultdict(set)
    for owner, jobset_id in connection.execute(ended.where(*match)):
        by_owner[owner].add(jobset_id)
    return [(dn, number) for dn, sets in sorted(by_owner.items()) for number in sorted(sets - _open(connection, dn))]


def _open(connection: Connection, owner: str) -> set[int]:
    """Give the sets of a user in which a job goes on."""
    goes_on = (_jobs.c.owner == owner, _jobs.c.state.not_in(_FINAL))
    return set(connection.execute(sa.select(_jobs.c.jobset_id).where(*goes_on).distinct()).scalars())


def note_complete(connection: Connection, complete: Sequence[JobSet], now: datetime) -> list[JobSet]:
    """Note that sets are complete; give those that were not before."""
    new = [one for one in complete if one not in _known(connection, complete)]
    rows = [{"owner": owner, "jobset_id": number, "completed_at": now} for owner, number in new]
    upsert(connection, _notifications, rows, update={})
    return new


def _known(connection: Connection, sets: Iterable[JobSet]) -> set[JobSet]:
    owners = sorted({owner for owner, _ in sets})
    statement = sa.select(_notifications.c.owner, _notifications.c.jobset_id)
    rows = connection.execute(statement.where(_notifications.c.owner.in_(owners)))
    return {(row.owner, row.jobset_id) for row in rows}


def to_be_told(connection: Connection, owner: str, jobset_id: int) -> Summary | None:
    """Sum a complete set up; None where the user was told already."""
    match = (_notifications.c.owner == owner, _notifications.c.jobset_id == jobset_id)
    noted = connection.execute(sa.select(_notifications).where(*match)).one_or_none()
    if noted is None or noted.told_at is not None:
        return None
    counts: dict[str, int] = defaultdict(int)
    names, definitions = set[str](), set[int]()
    for table in (shelf.jobs for shelf in shelves()):
        of_set = (table.c.owner == owner, table.c.jobset_id == jobset_id)
        columns = [table.c[name] for name in ("state", "owner_name", "definition_id")]
        statement = sa.select(*columns, sa.func.count().label("jobs")).where(*of_set).group_by(*columns)
        for row in connection.execute(statement):
            counts[row.state] += row.jobs
            names.add(row.owner_name)
            definitions.add(row.definition_id)
    name = min(names, default="")
    return Summary(owner, name, jobset_id, dict(counts), tuple(sorted(definitions)), noted.completed_at)


def note_told(connection: Connection, summary: Summary, now: datetime, *, address: str | None) -> None:
    """Note that a user was told, or that there is no address to tell."""
    match = (_notifications.c.owner == summary.owner, _notifications.c.jobset_id == summary.jobset_id)
    connection.execute(sa.update(_notifications).where(*match).values(told_at=now, address=address))
