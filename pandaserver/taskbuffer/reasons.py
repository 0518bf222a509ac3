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
    """Record what was said in one round; rounds of the same jobs that led nowhere are forgotten."""
    if reasons:
        ids = {r.job_id for r in reasons}
        chosen = sa.select(_reasons.c.job_id, _reasons.c.at).where(
            _reasons.c.job_id.in_(ids), _reasons.c.verdict == "chosen"
        )
        kept = {(row.job_id, row.at) for row in connection.execute(chosen)}
        rounds = sa.select(_reasons.c.job_id, _reasons.c.at).distinct().where(_reasons.c.job_id.in_(ids))
        for job_id, at in {(row.job_id, row.at) for row in connection.execute(rounds)} - kept:
            connection.execute(sa.delete(_reasons).where(_reasons.c.job_id == job_id, _reasons.c.at == at))
        connection.execute(sa.insert(_reasons), [vars(r) | {"reason": r.reason[:500]} for r in reasons])


def of_job(connection: Connection, job_id: int) -> list[RecordedReason]:
    """Give all recorded reasons of a job, oldest first."""
    columns = [c for c in _reasons.c if c.name != "reason_id"]
    statement = sa.select(*columns).where(_reasons.c.job_id == job_id).order_by(_reasons.c.reason_id)
    return [RecordedReason(**row._mapping) for row in connection.execute(statement)]
