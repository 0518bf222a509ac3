"""Who has submitted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import upsert

_users = schema.users


@dataclass(frozen=True)
class User:
    """A person or robot who submits: the DN that owns, and the name that is shown."""

    dn: str
    name: str
    enabled: bool = True
    definitions: int = 0


def note_submission(connection: Connection, dn: str, name: str, now: datetime) -> User:
    """Count one more submission of a user; who submits at the same moment as themselves waits here in line."""
    row = {"dn": dn, "name": name, "definitions": 1, "first_seen": now, "last_seen": now}
    again = {"name": name, "definitions": _users.c.definitions + 1, "last_seen": sa.literal(now, schema.UTC6)}
    upsert(connection, _users, [row], update=again)
    found = connection.execute(sa.select(_users).where(_users.c.dn == dn)).one()
    return User(found.dn, found.name, found.status == "enabled", found.definitions)


def set_enabled(connection: Connection, dn: str, enabled: bool) -> bool:
    """Let a user make calls or not; False when the user is unknown."""
    status = "enabled" if enabled else "disabled"
    changed = connection.execute(sa.update(_users).where(_users.c.dn == dn).values(status=status)).rowcount
    return changed == 1 or connection.execute(sa.select(_users.c.dn).where(_users.c.dn == dn)).first() is not None


def ban(connection: Connection, dn: str, name: str, now: datetime) -> None:
    """Refuse somebody all calls, also one who never submitted."""
    row = {"dn": dn, "name": name, "status": "disabled", "definitions": 0, "first_seen": now, "last_seen": now}
    upsert(connection, _users, [row], update={"status": "disabled"})


def banned(connection: Connection) -> list[str]:
    """List the DNs that are refused."""
    statement = sa.select(_users.c.dn).where(_users.c.status == "disabled").order_by(_users.c.dn)
    return list(connection.execute(statement).scalars())
