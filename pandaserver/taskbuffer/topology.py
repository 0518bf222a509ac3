"""The grid as its sources describe it, kept in the database so that every process sees the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.grid import SOURCES, Endpoint, Queue, QueueStatus, Source, Topology
from pandaserver.model.gridchange import Change, What, compare
from pandaserver.taskbuffer import links, schema, switches
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.clock import utc_now
from pandaserver.taskbuffer.database import upsert
from pandaserver.taskbuffer.remembered import Remembered
from pandaserver.taskbuffer.switches import StatusChange

_queues, _endpoints = schema.queues, schema.endpoints
_TABLES = {"queue": _queues, "endpoint": _endpoints}
_PLAIN = ("name", "site", "cloud", "tier", "status", "endpoint")
# What servers of the first version read as a queue's data; they know no more, and stumble over it.
_DATA = (
    "memory_mb", "cores", "max_wall_time_s", "max_work_dir_mb", "releases", "platforms", "vos", "environment",
    "heartbeat_s",
)  # fmt: skip
_PAIRS = ("environment", "params")
_KNOWN = {field.name for field in fields(Queue)}
_REMEMBERED_S = 2.0
_remembered = Remembered[Topology](_REMEMBERED_S)
_COLUMNS = [_queues.c[name] for name in (*_PLAIN, "data", "more")]
_OF_ENDPOINT = [_endpoints.c[field.name] for field in fields(Endpoint)]


def load(connection: Connection) -> Topology:
    """Give the whole grid, as it was in the last few seconds; what this process saves is seen at once."""
    return _remembered.get(connection.engine, "grid", lambda: _read(connection))


def of(buffer: TaskBuffer) -> Topology:
    """Give what `load` gives; most often without any connection."""
    return _remembered.get(buffer.database.reader, "grid", lambda: buffer.read(_read))


def forget() -> None:
    """Have the grid read again; whoever changed it says so after the commit."""
    _remembered.forget()


def _read(connection: Connection) -> Topology:
    queues = [_queue(dict(row._mapping)) for row in connection.execute(sa.select(*_COLUMNS).order_by(_queues.c.name))]
    in_order = sa.select(*_OF_ENDPOINT).order_by(_endpoints.c.removed_at.is_not(None), _endpoints.c.name)
    endpoints = [Endpoint(**row._mapping) for row in connection.execute(in_order)]
    return Topology(
        queues={q.name: q for q in queues}, endpoints={e.name: e for e in endpoints}, links=links.limits(connection)
    )


# --- what sources say


@dataclass(frozen=True)
class _Plan:
    """What has to be done so that the database says what a source says."""

    after: Topology
    changes: tuple[Change, ...]
    status_before: Mapping[str, QueueStatus]
    configured_before: Mapping[str, QueueStatus]


def save(connection: Connection, topology: Topology) -> tuple[Change, ...]:
    """Write the grid as the sites file describes it, now."""
    return apply(connection, topology, source=Source.FILE, now=utc_now())


def apply(
    connection: Connection, wanted: Topology, *, source: Source, now: datetime, keep: Collection[str] = ()
) -> tuple[Change, ...]:
    """Write what a source says; give what differs from what it said before.

    What it names no more is removed: such queues are offline and stay as long as jobs name them, such endpoints stay.
    What an operator said of a queue holds all the same. The sites file goes before the other source.

    Args:
        keep: entries that the source names in a way that cannot be understood; they stay as they are.
    """
    _remembered.forget()
    plan = _plan(connection, wanted, source, keep, lock=True)
    for change in plan.changes:
        if change.what is What.REMOVED and change.kind in _TABLES:
            table = _TABLES[change.kind]
            connection.execute(sa.update(table).where(table.c.name == change.name).values(removed_at=now))
    if source is Source.FILE:
        links.save_limits(connection, wanted.links)
    present = [c for c in plan.changes if c.what is not What.REMOVED]
    _write_queues(connection, [plan.after.queues[c.name] for c in present if c.kind == "queue"], source)
    _write_endpoints(connection, [plan.after.endpoints[c.name] for c in present if c.kind == "endpoint"], source)
    _follow(connection, plan, source, now)
    return plan.changes


def differences(
    connection: Connection, wanted: Topology, *, source: Source, keep: Collection[str] = ()
) -> tuple[Change, ...]:
    """Give what `apply` would change."""
    return _plan(connection, wanted, source, keep).changes


def described_elsewhere(connection: Connection, source: Source) -> set[str]:
    """Name the queues and endpoints that another source describes."""
    found: set[str] = set()
    for table in (_queues, _endpoints):
        others = sa.select(table.c.name).where(table.c.source != source.value, table.c.removed_at.is_(None))
        found |= set(connection.execute(others).scalars())
    return found


def endpoints_of(connection: Connection, source: Source) -> set[str]:
    """Name the endpoints that a source describes."""
    theirs = sa.select(_endpoints.c.name).where(_endpoints.c.source == source.value, _endpoints.c.removed_at.is_(None))
    return set(connection.execute(theirs).scalars())


def sweep(connection: Connection) -> list[str]:
    """Forget removed queues that no living job names any more; give their names."""
    named = sa.select(schema.jobs.c.job_id).where(schema.jobs.c.site == _queues.c.name).exists()
    idle = sa.select(_queues.c.name).where(_queues.c.removed_at.is_not(None), ~named).order_by(_queues.c.name)
    names = list(connection.execute(idle.with_for_update()).scalars())
    connection.execute(sa.delete(_queues).where(_queues.c.name.in_(names)))
    connection.execute(sa.delete(schema.queue_switches).where(schema.queue_switches.c.queue.in_(names)))
    return names


def _plan(
    connection: Connection, wanted: Topology, source: Source, keep: Collection[str], *, lock: bool = False
) -> _Plan:
    select = sa.select(*_COLUMNS, _queues.c.configured, _queues.c.source, _queues.c.removed_at)
    rows = connection.execute(select.order_by(_queues.c.name).with_for_update() if lock else select).all()
    configured = {row.name: QueueStatus(row.configured or row.status) for row in rows}
    queues = {
        row.name: replace(_queue(dict(row._mapping)), status=configured[row.name])
        for row in rows
        if row.source == source.value and row.removed_at is None
    }
    mine = sa.select(*_OF_ENDPOINT).where(_endpoints.c.source == source.value, _endpoints.c.removed_at.is_(None))
    endpoints = {row.name: Endpoint(**row._mapping) for row in connection.execute(mine)}
    others = set() if source is Source.FILE else described_elsewhere(connection, source)
    limits = links.limits(connection) if source is Source.FILE else wanted.links
    before = Topology(queues=queues, endpoints=endpoints, links=limits)
    after = replace(
        wanted,
        queues=_after(before.queues, wanted.queues, keep, others),
        endpoints=_after(before.endpoints, wanted.endpoints, keep, others),
    )
    return _Plan(after, compare(before, after), {row.name: QueueStatus(row.status) for row in rows}, configured)


def _after(
    before: Mapping[str, Any], wanted: Mapping[str, Any], keep: Collection[str], others: Collection[str]
) -> dict[str, Any]:
    kept = {name: entry for name, entry in before.items() if name in keep}
    return kept | {name: entry for name, entry in wanted.items() if name not in others}


def _write_queues(connection: Connection, queues: Collection[Queue], source: Source) -> None:
    rows = [_row(queue) | {"configured": queue.status.value, "source": source.value} for queue in queues]
    told = [name for name in _PLAIN if name not in ("name", "status")]
    upsert(connection, _queues, rows, update=[*told, "data", "more", "configured", "source", "removed_at"])


def _write_endpoints(connection: Connection, endpoints: Collection[Endpoint], source: Source) -> None:
    rows = [vars(endpoint) | {"source": source.value, "removed_at": None} for endpoint in endpoints]
    names = [column.name for column in _OF_ENDPOINT if column.name != "name"]
    upsert(connection, _endpoints, rows, update=[*names, "source", "removed_at"])


def _follow(connection: Connection, plan: _Plan, source: Source, now: datetime) -> None:
    """Give the queues that changed the status that holds now, and write what happened into the history."""
    said, history = switches.switches(connection), []
    for change in plan.changes:
        if change.kind != "queue":
            continue
        name, before = change.name, plan.status_before.get(change.name)
        here = plan.after.queues.get(name)
        configured = here.status if here else QueueStatus.OFFLINE
        status = said[name].status if here and name in said else configured
        if before is not None and before is not status:
            switches.put(connection, name, status)
        if before is None:
            connection.execute(sa.update(_queues).where(_queues.c.name == name).values(status=status.value))
        if change.what is not What.CHANGED or configured is not plan.configured_before.get(name):
            words = SOURCES[source]
            history.append(
                StatusChange(
                    queue=name, at=now, action=change.what.value, from_status=before, to_status=status,
                    reason=f"{_HOW[change.what].format(source=words)}: {configured}", by=source.value, by_name=words,
                )
            )  # fmt: skip
    switches.note(connection, history)


_HOW = {
    What.ADDED: "described by the {source}",
    What.CHANGED: "changed in the {source}",
    What.REMOVED: "not in the {source} any more",
}


def _row(queue: Queue) -> dict[str, Any]:
    values = asdict(queue) | {"status": queue.status.value}
    row = {name: values.pop(name) for name in _PLAIN}
    return row | {"data": {name: values.pop(name) for name in _DATA}, "more": values, "removed_at": None}


def _queue(row: Mapping[str, Any]) -> Queue:
    """Make a queue of a row, which a later version may have written."""
    told = {name: row[name] for name in _PLAIN} | row["data"] | (row["more"] or {})
    values = {name: _frozen(name, value) for name, value in told.items() if name in _KNOWN}
    return Queue(**(values | {"status": QueueStatus(row["status"])}))


def _frozen(name: str, value: Any) -> Any:
    if name in _PAIRS:
        return tuple((key, one) for key, one in value)
    return tuple(value) if isinstance(value, list) else value
