"""All that is recorded of a job, wherever it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from pandaserver.model.attempt import Attempt
from pandaserver.model.file import File
from pandaserver.model.job import Job
from pandaserver.taskbuffer import archive, attempts, files, jobs, reasons, retries
from pandaserver.taskbuffer.jobs import Details, HistoryRow, RecordedError
from pandaserver.taskbuffer.reasons import RecordedRound
from pandaserver.taskbuffer.retries import RecordedDecision


@dataclass(frozen=True, kw_only=True)
class Record:
    """A job with everything around it, each kind oldest first."""

    job: Job
    archived: bool
    details: Details
    history: Sequence[HistoryRow]
    attempts: Sequence[Attempt]
    errors: Sequence[RecordedError]
    rounds: Sequence[RecordedRound]
    retries: Sequence[RecordedDecision]
    files: Sequence[File]


def of_job(connection: Connection, job_id: int) -> Record | None:
    """Read all of a job; None when there is no such job. To be read as of one moment, for jobs move."""
    return _living(connection, job_id) or _archived(connection, job_id)


def _living(connection: Connection, job_id: int) -> Record | None:
    loaded = files.load_jobs(connection, [job_id])
    if not loaded:
        return None
    return Record(
        job=loaded[0].job,
        archived=False,
        details=jobs.details_of(connection, [job_id])[job_id],
        history=jobs.history_of(connection, job_id),
        attempts=attempts.of_jobs(connection, [job_id]),
        errors=jobs.errors_of(connection, [job_id]).get(job_id, []),
        rounds=reasons.of_job(connection, job_id),
        retries=retries.of_job(connection, job_id),
        files=loaded[0].files,
    )


def _archived(connection: Connection, job_id: int) -> Record | None:
    found = archive.find(connection, [job_id])
    if not found.jobs:
        return None
    (one,) = archive.load_jobs(connection, found)
    return Record(
        job=one.job,
        archived=True,
        details=archive.details_of(connection, found)[job_id],
        history=archive.history_of(connection, found),
        attempts=archive.attempts_of(connection, found),
        errors=archive.errors_of(connection, found).get(job_id, []),
        rounds=archive.rounds_of(connection, found),
        retries=archive.decisions_of(connection, found),
        files=one.files,
    )
