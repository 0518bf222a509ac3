"""Secrets of users, sealed: what is in them cannot be read with the database alone."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_secrets = schema.user_secrets


def keep(connection: Connection, owner: str, name: str, *, sealed: str, now: datetime) -> None:
    """Keep a secret, in place of one of that name."""
    row = {"owner": owner, "name": name, "sealed": sealed, "modified_at": now}
    upsert(connection, _secrets, [row], update=("sealed", "modified_at"))


def forget(connection: Connection, owner: str, name: str | None = None) -> int:
    """Forget a secret of somebody, or all; give how many there were."""
    match = _secrets.c.owner == owner
    if name is not None:
        match &= _secrets.c.name == name
    return connection.execute(sa.delete(_secrets).where(match)).rowcount


def names(connection: Connection, owner: str) -> list[str]:
    """Name the secrets of somebody."""
    query = sa.select(_secrets.c.name).where(_secrets.c.owner == owner).order_by(_secrets.c.name)
    return list(connection.execute(query).scalars())


def of_owner(connection: Connection, owner: str) -> dict[str, str]:
    """Give the secrets of somebody by name, sealed."""
    query = sa.select(_secrets.c.name, _secrets.c.sealed).where(_secrets.c.owner == owner).order_by(_secrets.c.name)
    return {row.name: row.sealed for row in connection.execute(query)}
