"""Lanes: the lines in which activated jobs wait for pilots, and what pilots see and take of them.

A lane holds the jobs of one queue that are alike to a pilot, in the order of their dispatch. So a request is answered
by looking at lanes, of which there are few, and never by passing over jobs that do not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.job import Job
from pandaserver.model.lane import Lane, LaneKey, lane_key
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_lanes, _ready, _attempts, _queues = schema.lanes, schema.ready, schema.attempts, schema.queues
_KEY = tuple(f.name for f in fields(LaneKey))
_NO_LIMIT = 2**31 - 1


# --- coming and going


def enter(connection: Connection, activated: Sequence[Job], now: datetime) -> None:
    """Put activated jobs, whose `site` is their queue, into their lanes; pilots that wait there will hear of it."""
    keys = {job.job_id: lane_key(job, job.site or "") for job in activated}
    for queue, number in sorted(Counter(key.queue for key in keys.values()).items()):
        _ANNOUNCE.run(connection, queue=queue, number=number)
    ids = _lane_ids(connection, set(keys.values()), now)
    rows = [_ready_row(job, ids[keys[job.job_id]]) for job in activated]
    _ENTER.many(connection, sorted(rows, key=lambda row: (row["lane_id"], row["rank"], row["job_id"])))


def leave(connection: Connection, job_ids: Collection[int]) -> None:
    """Take jobs out of their lanes."""
    _LEAVE.run(connection, ids=sorted(job_ids))


_ANNOUNCE = Prepared(
    sa.update(_queues)
    .where(_queues.c.name == sa.bindparam("queue"))
    .values(activations=_queues.c.activations + sa.bindparam("number", type_=sa.BigInteger))
)
_ENTER = Prepared(sa.insert(_ready))
_LEAVE = Prepared(sa.delete(_ready).where(_ready.c.job_id.in_(values("ids"))))
_OPEN = Upsert(_lanes, lambda new: {"created_at": _lanes.c.created_at})
# The lock keeps a lane from being swept away before its job is in it.
_KNOWN = Prepared(
    sa.select(_lanes.c.lane_id, *(_lanes.c[name] for name in _KEY))
    .where(_lanes.c.queue.in_(values("queues")), _lanes.c.owner.in_(values("owners")))
    .with_for_update(read=True)
)


def _ready_row(job: Job, lane_id: int) -> dict[str, Any]:
    return {
        "lane_id": lane_id,
        "rank": -job.priority,
        "job_id": job.job_id,
        "memory_mb": job.memory_mb,
        "disk_mb": job.disk_mb,
        "wall_time_s": job.wall_time_s,
    }


def _lane_ids(connection: Connection, keys: set[LaneKey], now: datetime) -> dict[LaneKey, int]:
    found = _known(connection, keys)
    missing = [key for key in keys if key not in found]
    if missing:
        rows = [asdict(key) | {"created_at": now} for key in missing]
        _OPEN.many(connection, sorted(rows, key=lambda row: [row[name] for name in _KEY]))
        found = _known(connection, keys)
    return found


def _known(connection: Connection, keys: set[LaneKey]) -> dict[LaneKey, int]:
    queues, owners = sorted({key.queue for key in keys}), sorted({key.owner for key in keys})
    return {_key(row[1:]): row[0] for row in _KNOWN.rows(connection, queues=queues, owners=owners)}


def _key(told: Sequence[Any]) -> LaneKey:
    return LaneKey(**dict(zip(_KEY, told, strict=True)))


# --- looking


@dataclass(frozen=True)
class Seen:
    """The lanes of a queue: those in which jobs wait, by id, and all, since what runs counts too."""

    waiting: dict[int, Lane] = field(default_factory=dict)
    everything: list[Lane] = field(default_factory=list)


# Not MIN(rank): in a subquery like this one MariaDB reads the whole lane for that.
_first_rank = (
    sa.select(_ready.c.rank)
    .where(_ready.c.lane_id == _lanes.c.lane_id)
    .order_by(_ready.c.rank)
    .limit(1)
    .scalar_subquery()
)
_running = (
    sa.select(sa.func.count())
    .select_from(_attempts)
    .where(_attempts.c.lane_id == _lanes.c.lane_id, _attempts.c.ended_at.is_(None))
    .scalar_subquery()
)
_LANE_COLUMNS = (_lanes.c.lane_id, _first_rank, _running, *(_lanes.c[name] for name in _KEY))
_LOOK = Prepared(sa.select(*_LANE_COLUMNS).where(_lanes.c.queue.in_(values("queues"))).order_by(_lanes.c.lane_id))


def look(connection: Connection, queues: Collection[str]) -> dict[str, Seen]:
    """See all lanes of queues."""
    seen = {queue: Seen() for queue in queues}
    for row in _LOOK.rows(connection, queues=sorted(queues)):
        lane = _lane(row)
        seen[lane.key.queue].everything.append(lane)
        if row[1] is not None:
            seen[lane.key.queue].waiting[lane.lane_id] = lane
    return seen


def look_for(connection: Connection, request: ClaimRequest) -> list[Lane]:
    """See the lanes of a queue in which a job waits at this moment that fits the request."""
    filters = {name: getattr(request, name) for name in ("vo", "owner", "working_group") if getattr(request, name)}
    labels = request.labels is not None
    given = {**filters, **_limits(request), "queue": request.queue, "cores": request.cores or _NO_LIMIT}
    if labels:
        given["labels"] = request.labels or ()
    return [_lane(row) for row in _look_for(tuple(sorted(filters)), labels).rows(connection, **given)]


@cache
def _look_for(filters: tuple[str, ...], labels: bool) -> Prepared:
    some_job = sa.exists().where(_ready.c.lane_id == _lanes.c.lane_id, *_fitting)
    conditions = [_lanes.c.queue == sa.bindparam("queue"), _lanes.c.cores <= sa.bindparam("cores"), some_job]
    conditions += [_lanes.c[name] <= sa.bindparam(name) for name in _LIMITED]
    conditions += [_lanes.c[name] == sa.bindparam(name) for name in filters]
    if labels:
        conditions.append(_lanes.c.label.in_(values("labels")))
    return Prepared(sa.select(*_LANE_COLUMNS).where(*conditions))


_LIMITED = ("memory_mb", "disk_mb", "wall_time_s")
_fitting = [_ready.c[name] <= sa.bindparam(name) for name in _LIMITED]


def _limits(request: ClaimRequest) -> dict[str, int]:
    told = {"memory_mb": request.memory_mb, "disk_mb": request.disk_mb, "wall_time_s": request.remaining_s}
    return {name: limit if limit > 0 else _NO_LIMIT for name, limit in told.items()}


def _lane(row: Sequence[Any]) -> Lane:
    lane_id, rank, running, *key = row
    return Lane(lane_id=lane_id, key=_key(key), priority=-(rank or 0), running=running)


# --- taking


def take(
    connection: Connection, lane_id: int, request: ClaimRequest, count: int, *, but: Collection[int] = ()
) -> list[tuple[int, int]]:
    """Take hold of the first jobs of a lane that fit, up to `count`, as (id, priority) in order.

    Jobs that another pilot is taking at this moment are stepped over, not waited for; `but` names those taken before
    in this transaction. The jobs stay in the lane until their state changes.
    """
    given = {"lane_id": lane_id, "count": count, **_limits(request)}
    found = _TAKE_MORE.rows(connection, but=sorted(but), **given) if but else _TAKE.rows(connection, **given)
    return [(job_id, -rank) for job_id, rank in found]


_fits = sa.and_(_ready.c.lane_id == sa.bindparam("lane_id"), *_fitting)


def _first(condition: sa.ColumnElement[bool]) -> Prepared:
    in_order = sa.select(_ready.c.job_id, _ready.c.rank).where(condition).order_by(_ready.c.rank, _ready.c.job_id)
    return Prepared(in_order.limit(sa.bindparam("count", type_=sa.Integer)).with_for_update(skip_locked=True))


_TAKE = _first(_fits)
_TAKE_MORE = _first(sa.and_(_fits, _ready.c.job_id.not_in(values("but"))))


# --- news, for those who wait


def news(connection: Connection, queues: Collection[str]) -> dict[str, int]:
    """Tell how many jobs have been activated for queues since ever."""
    return {row[0]: row[1] for row in _NEWS.rows(connection, queues=sorted(queues))}


def with_jobs(connection: Connection, queues: Collection[str]) -> set[str]:
    """Tell in which of the queues jobs wait."""
    return {row[0] for row in _WITH_JOBS.rows(connection, queues=sorted(queues))}


_NEWS = Prepared(sa.select(_queues.c.name, _queues.c.activations).where(_queues.c.name.in_(values("queues"))))
_WITH_JOBS = Prepared(
    sa.select(_lanes.c.queue)
    .where(_lanes.c.queue.in_(values("queues")), sa.exists().where(_ready.c.lane_id == _lanes.c.lane_id))
    .distinct()
)


def sweep(connection: Connection, opened_before: datetime, limit: int) -> int:
    """Remove lanes in which nothing waits and of which nothing runs; they come back when they are needed."""
    empty = sa.select(_lanes.c.lane_id).where(
        _lanes.c.created_at < opened_before,
        ~sa.exists().where(_ready.c.lane_id == _lanes.c.lane_id),
        ~sa.exists().where(_attempts.c.lane_id == _lanes.c.lane_id, _attempts.c.ended_at.is_(None)),
    )
    ids = list(connection.execute(empty.limit(limit)).scalars())
    # Looked at again: a job may have come meanwhile, which the foreign key would not let go.
    gone = sa.and_(_lanes.c.lane_id.in_(ids), ~sa.exists().where(_ready.c.lane_id == _lanes.c.lane_id))
    return connection.execute(sa.delete(_lanes).where(gone)).rowcount if ids else 0
