"""Answers already given to submissions, and the cache files that came with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema

_submissions = schema.submissions
_sandboxes = schema.sandbox_files


@dataclass(frozen=True, kw_only=True)
class SandboxFile:
    """A file in the cache directory."""

    name: str
    owner: str
    size_bytes: int
    sha256: str
    created_at: datetime


def answered(connection: Connection, owner: str, client_key: str) -> Any | None:
    """Give the answer that a submission with this key got, None when it is new."""
    match = sa.and_(_submissions.c.owner == owner, _submissions.c.client_key == client_key)
    return connection.execute(sa.select(_submissions.c.answer).where(match)).scalar_one_or_none()


def remember(connection: Connection, owner: str, client_key: str, answer: Any, now: datetime) -> None:
    """Keep the answer; of two equal submissions at the same moment the second fails here and runs again."""
    row = {"owner": owner, "client_key": client_key, "answer": answer, "created_at": now}
    connection.execute(sa.insert(_submissions).values(row))


def add_sandbox(connection: Connection, file: SandboxFile) -> None:
    """Record a file of the cache directory."""
    connection.execute(sa.insert(_sandboxes).values(vars(file)))


def sandbox(connection: Connection, name: str) -> SandboxFile | None:
    """Find a file of the cache directory."""
    row = connection.execute(sa.select(_sandboxes).where(_sandboxes.c.name == name)).one_or_none()
    return SandboxFile(**row._mapping) if row else None
