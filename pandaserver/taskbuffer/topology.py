"""The configured grid, kept in the database so that every process sees the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Topology
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import upsert
from pandaserver.taskbuffer.remembered import Remembered

_PLAIN = ("name", "site", "cloud", "tier", "status", "endpoint")
_REMEMBERED_S = 5.0
_remembered = Remembered[Topology](_REMEMBERED_S)
_COLUMNS = [schema.queues.c[name] for name in (*_PLAIN, "data")]


def save(connection: Connection, topology: Topology) -> None:
    """Write the grid as configured; queues no longer configured go offline, jobs may still name them."""
    _remembered.forget()
    rows = [_queue_row(queue) for queue in topology.queues.values()]
    upsert(connection, schema.queues, rows, update=[*_PLAIN[1:], "data"])
    gone = schema.queues.c.name.not_in(list(topology.queues))
    connection.execute(sa.update(schema.queues).where(gone).values(status=QueueStatus.OFFLINE.value))
    upsert(connection, schema.endpoints, [vars(e) for e in topology.endpoints.values()], update=["site", "url"])


def load(connection: Connection) -> Topology:
    """Give the whole grid, as it was in the last few seconds; what this process saves is seen at once."""
    return _remembered.get(connection.engine, "grid", lambda: _read(connection))


def of(buffer: TaskBuffer) -> Topology:
    """Give what `load` gives; most often without any connection."""
    return _remembered.get(buffer.database.reader, "grid", lambda: buffer.read(_read))


def _read(connection: Connection) -> Topology:
    queues = [_queue(dict(row._mapping)) for row in connection.execute(sa.select(*_COLUMNS))]
    endpoints = [Endpoint(**row._mapping) for row in connection.execute(sa.select(schema.endpoints))]
    return Topology(queues={q.name: q for q in queues}, endpoints={e.name: e for e in endpoints})


def _queue_row(queue: Queue) -> dict[str, Any]:
    values = asdict(queue) | {"status": queue.status.value}
    return {name: values.pop(name) for name in _PLAIN} | {"data": values}


def _queue(row: dict[str, Any]) -> Queue:
    data = row.pop("data")
    lists = {name: tuple(data.pop(name)) for name in ("releases", "platforms", "vos")}
    environment = tuple((name, value) for name, value in data.pop("environment"))
    return Queue(**(row | data | lists | {"status": QueueStatus(row["status"]), "environment": environment}))
