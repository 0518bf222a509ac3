"""Serial numbers and shared secrets."""

from __future__ import annotations

import secrets as random_source

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert


def take(connection: Connection, name: str, count: int = 1, *, first: int = 1) -> range:
    """Take `count` serial numbers of a counter; no number is ever given twice, gaps may be."""
    table = schema.counters
    upsert(connection, table, [{"name": name, "value": first - 1}], update={})
    connection.execute(sa.update(table).where(table.c.name == name).values(value=table.c.value + count))
    last = connection.execute(sa.select(table.c.value).where(table.c.name == name)).scalar_one()
    return range(last - count + 1, last + 1)


def secret(connection: Connection, name: str) -> str:
    """Give the secret of that name that all server processes share, made at first use."""
    table = schema.secrets
    wanted = sa.select(table.c.value).where(table.c.name == name)
    found = connection.execute(wanted).scalar_one_or_none()  # most often; writing would make all callers wait in line
    if found is None:
        upsert(connection, table, [{"name": name, "value": random_source.token_hex(32)}], update={})
        found = connection.execute(wanted).scalar_one()
    return str(found)
