"""What was decided after each failed attempt, by which rule; also which queues a job now avoids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from pandaserver.model.job import Job
from pandaserver.model.retry import RetryAction, RetryDecision
from pandaserver.taskbuffer import schema

_decisions = schema.retry_decisions
_REASON_LENGTH = 500


@dataclass(frozen=True, kw_only=True)
class RecordedDecision:
    """What one rule said of one failed attempt."""

    job_id: int
    attempt: int
    queue: str  # of the attempt
    rule: str
    action: RetryAction
    passive: bool
    done: bool
    reason: str
    at: datetime


def add(connection: Connection, job: Job, decisions: Sequence[RetryDecision], now: datetime) -> None:
    """Record what was decided of the current attempt of a job."""
    if decisions:
        connection.execute(sa.insert(_decisions), [_row(job, decision, now) for decision in decisions])


def _row(job: Job, decision: RetryDecision, now: datetime) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "queue": job.site or "",
        "rule": decision.rule.name,
        "action": decision.rule.action.value,
        "passive": decision.rule.passive,
        "done": decision.following is not None,
        "reason": decision.reason[:_REASON_LENGTH],
        "at": now,
    }


def of_job(connection: Connection, job_id: int) -> list[RecordedDecision]:
    """Give all decisions about a job, oldest first."""
    columns = [c for c in _decisions.c if c.name != "decision_id"]
    statement = sa.select(*columns).where(_decisions.c.job_id == job_id).order_by(_decisions.c.decision_id)
    return [decision_of(row) for row in connection.execute(statement)]


def decision_of(row: Row[Any]) -> RecordedDecision:
    """Make a decision of a row with the columns of the table but its serial number."""
    values = dict(row._mapping)
    return RecordedDecision(**(values | {"action": RetryAction(values["action"])}))


def avoided(connection: Connection, job_ids: Iterable[int]) -> dict[int, set[str]]:
    """Tell which queues jobs were sent away from, by job; jobs that avoid none are left out."""
    sent_away = sa.and_(_decisions.c.action == RetryAction.ELSEWHERE.value, _decisions.c.done)
    columns = (_decisions.c.job_id, _decisions.c.queue)
    found: dict[int, set[str]] = defaultdict(set)
    for row in connection.execute(sa.select(*columns).where(_decisions.c.job_id.in_(list(job_ids)), sent_away)):
        found[row.job_id].add(row.queue)
    return dict(found)
