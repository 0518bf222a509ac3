"""Why jobs went where they went: one row for each round of the brokerage over a job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pandaserver.model.choice import CHOSEN, POSSIBLE, REJECTED, Advice, Choice, Rejected
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.jobs import in_parts
from pandaserver.taskbuffer.statements import Prepared, values

_rounds, _before = schema.brokerage_rounds, schema.brokerage_reasons


@dataclass(frozen=True)
class RecordedReason:
    """What was said of one queue for one job; what was asked for and what is there, where that was the reason."""

    job_id: int
    at: datetime
    site: str
    verdict: str
    reason: str
    weight: float | None = None
    criterion: str = ""
    value: object = None
    limit: object = None


@dataclass(frozen=True)
class RecordedRound:
    """One look for a place for a job: what was said of queues, and of so many `more` that were possible too."""

    job_id: int
    at: datetime
    queue: str | None
    reasons: tuple[RecordedReason, ...]
    more: int = 0
    advice: str = ""
    changes: Mapping[str, Any] | None = None  # the cheapest ones that would help: field of the job -> value


@dataclass(frozen=True)
class NewRound:
    """What is to be recorded."""

    job_id: int
    at: datetime
    choice: Choice


def add(connection: Connection, rounds: Sequence[NewRound]) -> None:
    """Record rounds; those of the same jobs that led nowhere are forgotten."""
    ids = sorted({one.job_id for one in rounds})
    for part in in_parts(ids):
        _FORGET.run(connection, ids=part)
    rows = [
        {"job_id": one.job_id, "at": one.at, "queue": one.choice.queue, "verdicts": verdicts}
        for one, verdicts in zip(rounds, packed([one.choice for one in rounds]), strict=True)
    ]
    for rows_part in in_parts(rows):
        _INSERT.many(connection, rows_part)


_FORGET = Prepared(sa.delete(_rounds).where(_rounds.c.job_id.in_(values("ids")), _rounds.c.queue.is_(None)))
_INSERT = Prepared(sa.insert(_rounds))


def packed(choices: Sequence[Choice]) -> list[str]:
    """Write choices as JSON, the way they are kept."""
    pack = _Packer()
    return [pack(choice) for choice in choices]


class _Packer:
    """Writes choices as JSON; what jobs of a round have in common is written once."""

    def __init__(self) -> None:
        self._rejected: dict[int, str] = {}

    def __call__(self, choice: Choice) -> str:
        candidates = [[one.queue, round(one.weight, 6), one.reason] for one in choice.candidates]
        head = {"candidates": candidates, "more": choice.more, "advice": _advice(choice.advice)}
        return f'{_written(head)[:-1]},"rejected":{self._common(choice.rejected)}}}'

    def _common(self, rejected: tuple[Rejected, ...]) -> str:
        if id(rejected) not in self._rejected:
            told = [[one.criterion, one.reason, one.value, one.limit, one.queues] for one in rejected]
            self._rejected[id(rejected)] = _written(told)
        return self._rejected[id(rejected)]


def _written(told: object) -> str:
    return json.dumps(told, separators=(",", ":"), default=_plain)


def _plain(value: object) -> Any:
    return sorted(value) if isinstance(value, frozenset) else str(value)


def _advice(advice: Advice | None) -> dict[str, object] | None:
    if advice is None:
        return None
    return {"text": advice.text, "changes": {change.field: change.value for change in advice.changes}}


def of_job(connection: Connection, job_id: int) -> list[RecordedRound]:
    """Give all recorded rounds of a job, oldest first."""
    told = [c for c in _before.c if c.name != "reason_id"]
    older = sa.select(*told).where(_before.c.job_id == job_id).order_by(_before.c.reason_id)
    rows = sa.select(_rounds).where(_rounds.c.job_id == job_id).order_by(_rounds.c.round_id)
    return read(connection.execute(older), connection.execute(rows))


def read(older: Iterable[sa.Row[Any]], rounds: Iterable[sa.Row[Any]]) -> list[RecordedRound]:
    """Make rounds of rows: those of before, one for each queue, and those of now; each kind oldest first."""
    said = [RecordedReason(r.job_id, r.at, r.site, r.verdict, r.reason, r.weight) for r in older]
    by_round = groupby(said, key=lambda reason: (reason.job_id, reason.at))
    return [*(_older(list(reasons)) for _, reasons in by_round), *(_round(row) for row in rounds)]


def _older(reasons: list[RecordedReason]) -> RecordedRound:
    chosen = next((reason.site for reason in reasons if reason.verdict == CHOSEN), None)
    return RecordedRound(reasons[0].job_id, reasons[0].at, chosen, tuple(reasons))


def _round(row: sa.Row[Any]) -> RecordedRound:
    told = json.loads(row.verdicts)
    possible = [
        RecordedReason(row.job_id, row.at, queue, CHOSEN if queue == row.queue else POSSIBLE, reason, weight)
        for queue, weight, reason in told["candidates"]
    ]
    rejected = [
        RecordedReason(row.job_id, row.at, queue, REJECTED, reason, None, criterion, value, limit)
        for criterion, reason, value, limit, queues in told["rejected"]
        for queue in queues
    ]
    advice = told["advice"] or {}
    return RecordedRound(
        row.job_id,
        row.at,
        row.queue,
        (*possible, *rejected),
        told["more"],
        advice.get("text", ""),
        advice.get("changes"),
    )
