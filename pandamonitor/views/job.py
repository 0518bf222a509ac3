"""All about one job: what became of it and when, what went wrong and what that means, why it ran where it did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from markupsafe import Markup

from pandamonitor import svg
from pandamonitor.meanings import Meaning, meaning
from pandamonitor.query import LARGEST_ID, Query
from pandamonitor.tables import table_of
from pandamonitor.text import duration, log_text, utc
from pandamonitor.views.page import Monitor, Page, View
from pandaserver.errors import NotFound
from pandaserver.model.choice import REJECTED
from pandaserver.model.file import File, FileType, Replica
from pandaserver.model.job import Job
from pandaserver.model.states import FINAL, WITH_PILOT, JobState
from pandaserver.model.timeouts import Timeout, timeout_of
from pandaserver.taskbuffer import catalogue, records
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer.jobs import HistoryRow, RecordedError
from pandaserver.taskbuffer.reasons import RecordedReason, RecordedRound
from pandaserver.taskbuffer.records import Record

_FRESH_S = 5.0  # somebody looks at this one job and waits


@dataclass(frozen=True)
class Everything:
    """All that is recorded of a job, and what its files have to do with."""

    record: Record
    replicas: Mapping[tuple[str, str], Sequence[Replica]]
    makers: Sequence[reading.Relative]
    users: Sequence[reading.Relative]


def everything(connection: reading.Snapshot, job_id: int) -> Everything | None:
    """Read all of a job, living or of the archive; None when there is no such job."""
    record = records.of_job(connection, job_id)
    if record is None:
        return None
    own = record.files
    inputs = [(f.scope, f.lfn) for f in own if f.type is FileType.INPUT]
    outputs = [(f.scope, f.lfn) for f in own if f.type is FileType.OUTPUT]
    return Everything(
        record,
        replicas=catalogue.replicas(connection, [(f.scope, f.lfn) for f in own]),
        makers=reading.makers(connection, inputs),
        users=reading.users(connection, outputs),
    )


@dataclass(frozen=True)
class Stay:
    """How long a job was in one state."""

    state: JobState
    since: datetime
    seconds: float | None  # None: still, or for ever
    attempt: int
    reason: str


def stays(history: Sequence[HistoryRow], now: datetime) -> list[Stay]:
    """Turn changes of state into lengths of time; a final state has none."""
    ends: list[datetime | None] = [row.at for row in history[1:]]
    if history:
        ends.append(None if history[-1].to_state in FINAL else now)
    return [
        Stay(row.to_state, row.at, (end - row.at).total_seconds() if end else None, row.attempt, row.reason)
        for row, end in zip(history, ends, strict=True)
    ]


def timeline(found: Sequence[Stay]) -> Markup:
    """Draw the stays of a job as one bar."""
    segments = [
        svg.Segment(s.state.value, s.seconds, f"{s.state} for {duration(s.seconds)}, since {utc(s.since)}")
        for s in found
        if s.seconds is not None
    ]
    return svg.bar("How long the job was in each state", segments) if segments else Markup()


@dataclass(frozen=True)
class Verdict:
    """What was said of some queues alike; of those that were possible each has a verdict of its own."""

    sites: tuple[str, ...]
    said: RecordedReason


def verdicts(last: RecordedRound) -> list[Verdict]:
    """Put queues together that were rejected for the same reason."""
    alike: dict[object, list[RecordedReason]] = {}
    for one in last.reasons:
        mark = (one.criterion, one.reason) if one.verdict == REJECTED else one.site
        alike.setdefault(mark, []).append(one)
    return [Verdict(tuple(one.site for one in some), some[0]) for some in alike.values()]


@dataclass(frozen=True)
class Explained:
    """An error with its meaning."""

    error: RecordedError
    meaning: Meaning
    current: bool  # of the last attempt


def _explained(found: Everything) -> list[Explained]:
    return [
        Explained(e, meaning(e.error.family, e.error.code), e.attempt == found.record.job.attempt)
        for e in reversed(found.record.errors)
    ]


def load(monitor: Monitor, job_id: int) -> Everything:
    """Read all of a job.

    Raises:
        NotFound: there is no such job.
    """
    found = monitor.database.read(lambda c: everything(c, job_id)) if 0 < job_id <= LARGEST_ID else None
    if found is None:
        raise NotFound(f"There is no job {job_id}.", field="job", value=job_id)
    return found


def _clock(found: Everything, monitor: Monitor) -> tuple[Timeout | None, float]:
    """Give the rule for the job's state and the seconds that are left."""
    rule = timeout_of(found.record.job, monitor.settings.timeouts)
    if rule is None:
        return None, 0
    start = found.record.job.modified_at if rule.heartbeat else found.record.job.state_since
    return rule, rule.after_s - (monitor.clock() - start).total_seconds()


def build(monitor: Monitor, query: Query, *, job_id: int) -> Page:
    """Make the page."""
    found = load(monitor, job_id)
    lengths = stays(found.record.history, monitor.clock())
    rule, left_s = _clock(found, monitor)
    values = {
        "record": found.record,
        "found": found,
        "job": found.record.job,
        "stays": lengths,
        "timeline": timeline(lengths),
        "errors": _explained(found),
        "last_round": found.record.rounds[-1] if found.record.rounds else None,
        "verdicts": verdicts(found.record.rounds[-1]) if found.record.rounds else [],
        "live": found.record.job.state in WITH_PILOT,
        "final": found.record.job.state in FINAL,
        "rule": rule,
        "left_s": left_s,
        "has_log": bool(logs_there(found)),
        "stdout": log_text(found.record.details.stdout_tail),
        "extract": log_text(found.record.details.log_extract),
        "metadata": _pretty(found.record.details.metadata),
        "wall_s": _wall_s(found.record.job, monitor.clock()),
    }
    columns = ("lfn", "type", "status", "scope", "dataset", "block", "destination", "guid", "size_bytes", "checksum")
    return Page(f"Job {job_id}", "job", values, _data(found), table_of(found.record.files, columns))


def logs_there(found: Everything) -> list[File]:
    """Find the logs of all attempts of which there is a copy, that of the last attempt first."""
    kinds = (FileType.LOG, FileType.OLD_LOG)
    there = [f for f in found.record.files if f.type in kinds and (f.scope, f.lfn) in found.replicas]
    return sorted(there, key=lambda f: (kinds.index(f.type), -f.file_id))


def _wall_s(job: Job, now: datetime) -> float | None:
    if job.started_at is None:
        return None
    return ((job.ended_at or now) - job.started_at).total_seconds()


def _pretty(metadata: str) -> str:
    try:
        return json.dumps(json.loads(metadata), indent=2, ensure_ascii=False) if metadata else ""
    except (ValueError, RecursionError):
        return log_text(metadata)


def _data(found: Everything) -> dict[str, object]:
    said = [asdict(e) | {"meaning": meaning(e.error.family, e.error.code).text} for e in found.record.errors]
    data = vars(found.record) | {"errors": said, "makers": found.makers, "users": found.users}
    return data | {"replicas": [r for copies in found.replicas.values() for r in copies]}


VIEWS = (View("/jobs/<int:job_id>", (), build, at_most_s=_FRESH_S),)
