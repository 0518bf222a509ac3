"""Why jobs went where they went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema

_reasons = schema.brokerage_reasons


@dataclass(frozen=True)
class RecordedReason:
    """What was said of one queue for one job."""

    job_id: int
    at: datetime
    site: str
    verdict: str
    reason: str
    weight: float | None


def add(connection: Connection, reasons: Sequence[RecordedReason]) -> None:
    """Record reasons."""
    if reasons:
        connection.execute(sa.insert(_reasons), [vars(r) | {"reason": r.reason[:500]} for r in reasons])


def of_job(connection: Connection, job_id: int) -> list[RecordedReason]:
    """Give all recorded reasons of a job, oldest first."""
    columns = [c for c in _reasons.c if c.name != "reason_id"]
    statement = sa.select(*columns).where(_reasons.c.job_id == job_id).order_by(_reasons.c.reason_id)
    return [RecordedReason(**row._mapping) for row in connection.execute(statement)]
