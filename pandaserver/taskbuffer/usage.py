"""Usage: the CPU time of each user's analysis jobs in the last day, summed by a duty and not by the calls of pilots."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.job import PRODUCTION_LABELS
from pandaserver.taskbuffer import marks, schema
from pandaserver.taskbuffer.marks import Step
from pandaserver.taskbuffer.statements import Upsert

_attempts, _jobs, _usage = schema.attempts, schema.jobs, schema.cpu_usage
_MARK = "cpu usage"
_DAY = timedelta(days=1)
_SETTLED = timedelta(minutes=1)  # by then the transaction that ended an attempt is over
_ADD = Upsert(_usage, lambda new: {"cpu_s": _usage.c.cpu_s + new.cpu_s})


def last_day(connection: Connection, owner: str, now: datetime) -> float:
    """Give the CPU time, in seconds, of a user's attempts that ended in the last day, to the hour."""
    recent = sa.and_(_usage.c.owner == owner, _usage.c.hour > now - _DAY - timedelta(hours=1))
    return float(connection.execute(sa.select(sa.func.sum(_usage.c.cpu_s)).where(recent)).scalar_one() or 0.0)


def add_up(connection: Connection, *, now: datetime, limit: int) -> Step:
    """Add what has ended since the last run, about `limit` attempts, and forget what is no more of the last day."""
    since = max(marks.take(connection, _MARK) or now - _DAY, now - _DAY)
    until = now - _SETTLED
    in_order = sa.select(_attempts.c.ended_at).where(*_ended(since, until)).order_by(_attempts.c.ended_at)
    last = connection.execute(in_order.offset(limit - 1).limit(1)).scalar_one_or_none()
    upto = last or until
    if upto <= since:
        return Step(0, more=False)
    rows = _by_owner_and_hour(connection, since, upto)
    _ADD.many(connection, rows)
    connection.execute(sa.delete(_usage).where(_usage.c.hour < now - 2 * _DAY))
    marks.move(connection, _MARK, upto)
    return Step(len(rows), more=last is not None)


def _by_owner_and_hour(connection: Connection, since: datetime, upto: datetime) -> list[dict[str, object]]:
    used = sa.select(_jobs.c.owner, _attempts.c.ended_at, _attempts.c.cpu_time_s).where(
        *_ended(since, upto),
        _attempts.c.cpu_time_s > 0,
        _jobs.c.job_id == _attempts.c.job_id,
        _jobs.c.label.not_in(sorted(PRODUCTION_LABELS)),
    )
    sums: Counter[tuple[str, datetime]] = Counter()
    for owner, ended_at, cpu_s in connection.execute(used):
        sums[owner, ended_at.replace(minute=0, second=0, microsecond=0)] += cpu_s
    return [{"owner": owner, "hour": hour, "cpu_s": cpu_s} for (owner, hour), cpu_s in sorted(sums.items())]


def _ended(since: datetime, until: datetime) -> list[sa.ColumnElement[bool]]:
    return [_attempts.c.ended_at > since, _attempts.c.ended_at <= until]
