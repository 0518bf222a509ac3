"""Why jobs went where they went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.jobs import in_parts
from pandaserver.taskbuffer.statements import Prepared, values

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
    for part in in_parts(sorted({r.job_id for r in reasons})):
        for job_id, at, chosen in _ROUNDS.rows(connection, ids=part):
            if not chosen:
                _FORGET.run(connection, which=job_id, at=at)
    _INSERT.many(connection, [vars(r) | {"reason": r.reason[:_REASON_LENGTH]} for r in reasons])


_REASON_LENGTH = 500
_chosen = sa.func.max(sa.case((_reasons.c.verdict == "chosen", 1), else_=0))
_ROUNDS = Prepared(
    sa.select(_reasons.c.job_id, _reasons.c.at, _chosen)
    .where(_reasons.c.job_id.in_(values("ids")))
    .group_by(_reasons.c.job_id, _reasons.c.at)
)
_FORGET = Prepared(
    sa.delete(_reasons).where(_reasons.c.job_id == sa.bindparam("which"), _reasons.c.at == sa.bindparam("at"))
)
_INSERT = Prepared(sa.insert(_reasons))


def of_job(connection: Connection, job_id: int) -> list[RecordedReason]:
    """Give all recorded reasons of a job, oldest first."""
    columns = [c for c in _reasons.c if c.name != "reason_id"]
    statement = sa.select(*columns).where(_reasons.c.job_id == job_id).order_by(_reasons.c.reason_id)
    return [RecordedReason(**row._mapping) for row in connection.execute(statement)]
