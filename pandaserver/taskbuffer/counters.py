"""Serial numbers and shared secrets."""

from __future__ import annotations

import secrets as random_source
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert
from pandaserver.taskbuffer.remembered import Remembered
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

_counters, _secrets = schema.counters, schema.secrets
_MOVE_ON = Upsert(_counters, lambda new: {"value": _counters.c.value + new.value})
_WHERE = Prepared(sa.select(_counters.c.name, _counters.c.value).where(_counters.c.name.in_(values("names"))))
_MADE_IN = "panda_secret_made_in"
_remembered = Remembered[str | None](for_s=60.0)


def take(connection: Connection, name: str, count: int = 1) -> range:
    """Take `count` serial numbers of a counter; no number is ever given twice, gaps may be."""
    return take_all(connection, {name: count})[name]


def take_all(connection: Connection, counts: Mapping[str, int]) -> dict[str, range]:
    """Take so many serial numbers of each of these counters."""
    names = sorted(counts)  # in one order, so that nobody waits in a circle
    _MOVE_ON.many(connection, [{"name": name, "value": counts[name]} for name in names])
    rows = _WHERE.rows(connection, names=names)
    return {name: range(value - counts[name] + 1, value + 1) for name, value in rows}


def secret(connection: Connection, name: str) -> str:
    """Give the secret of that name that all server processes share, made at first use."""
    if _MADE_IN in connection.info and connection.info[_MADE_IN] is connection.get_transaction():
        # not to be remembered: who knows whether it will be committed
        return _stored(connection, name) or _make(connection, name)
    return _remembered.get(connection.engine, name, lambda: _stored(connection, name)) or _make(connection, name)


def _stored(connection: Connection, name: str) -> str | None:
    return connection.execute(sa.select(_secrets.c.value).where(_secrets.c.name == name)).scalar_one_or_none()


def _make(connection: Connection, name: str) -> str:
    connection.info[_MADE_IN] = connection.get_transaction()
    upsert(connection, _secrets, [{"name": name, "value": random_source.token_hex(32)}], update={})
    return str(_stored(connection, name))
