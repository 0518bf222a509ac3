"""What users do with accepted jobs: look, kill, ask why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.errors import BadInput, NotAllowed, NotFound
from pandaserver.model.attempt import Attempt
from pandaserver.model.codes import ErrorFamily, JobError, TaskBufferError
from pandaserver.model.job import KILL_COMMAND, JobWithFiles
from pandaserver.model.states import AFTER_PILOT, QUEUED, WITH_PILOT, JobState
from pandaserver.taskbuffer import attempts, files, jobs, reasons, retries
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

MAX_IDS = 5500


@dataclass(frozen=True)
class Description:
    """All that a person may want to know of a job."""

    one: JobWithFiles
    details: jobs.Details
    attempts: tuple[Attempt, ...]
    errors: tuple[jobs.RecordedError, ...]


def describe(buffer: TaskBuffer, job_ids: Sequence[int]) -> list[Description | None]:
    """Describe jobs in the order asked; None for an unknown id."""
    _limit(job_ids)
    return buffer.read(lambda c: _describe(c, job_ids))


def _describe(connection: Connection, job_ids: Sequence[int]) -> list[Description | None]:
    loaded = {one.job.job_id: one for one in files.load_jobs(connection, job_ids)}
    details = jobs.details_of(connection, loaded)
    errors = jobs.errors_of(connection, loaded)
    tries: dict[int, list[Attempt]] = {}
    for attempt in attempts.of_jobs(connection, list(loaded)):
        tries.setdefault(attempt.job_id, []).append(attempt)
    described = {
        i: Description(one, details[i], tuple(tries.get(i, ())), tuple(errors.get(i, ()))) for i, one in loaded.items()
    }
    return [described.get(job_id) for job_id in job_ids]


def kill(buffer: TaskBuffer, job_ids: Sequence[int], *, dn: str, operator: bool) -> list[bool]:
    """Kill jobs: those without a pilot die now, the others with their pilot's next word.

    Gives True for each job that is dying or was ended by this, False for one that had ended or is unknown.

    Raises:
        NotAllowed: one of the jobs is somebody else's; then none is killed.
    """
    _limit(job_ids)
    return buffer.run(lambda c: _kill(c, buffer, job_ids, dn=dn, operator=operator))


def _kill(connection: Connection, buffer: TaskBuffer, job_ids: Sequence[int], *, dn: str, operator: bool) -> list[bool]:
    found = {one.job.job_id: one for one in files.load_jobs(connection, job_ids, lock=True)}
    foreign = [one.job for one in found.values() if one.job.owner != dn]
    if foreign and not operator:
        text = f"job {foreign[0].job_id} belongs to {foreign[0].owner}, not to {dn}; nothing was killed"
        raise NotAllowed(text, field="job_ids", value=foreign[0].job_id)
    without_pilot = QUEUED | AFTER_PILOT - {JobState.HOLDING}
    queued = [one for one in found.values() if one.job.state in without_pilot]
    placed = [one.job.job_id for one in found.values() if one.job.state in WITH_PILOT | {JobState.HOLDING}]
    error = JobError(ErrorFamily.TASKBUFFER, TaskBufferError.KILL, f"killed by {dn}")
    end_badly(
        connection, queued, Ending(state=JobState.CANCELLED, reason=f"killed by {dn}", errors=(error,)), buffer.now()
    )
    jobs.set_command(connection, placed, KILL_COMMAND)
    killed = {one.job.job_id for one in queued} | set(placed)
    log.info("%s kills %d jobs", dn, len(killed))
    return [job_id in killed for job_id in job_ids]


def why(buffer: TaskBuffer, job_id: int) -> list[reasons.RecordedReason]:
    """Tell why a job went where it went.

    Raises:
        NotFound: there is no such job.
    """
    _must_exist(buffer, job_id)
    return buffer.read(lambda c: reasons.of_job(c, job_id))


def retries_of(buffer: TaskBuffer, job_id: int) -> list[retries.RecordedDecision]:
    """Tell what was decided after each failed attempt of a job.

    Raises:
        NotFound: there is no such job.
    """
    _must_exist(buffer, job_id)
    return buffer.read(lambda c: retries.of_job(c, job_id))


def _must_exist(buffer: TaskBuffer, job_id: int) -> None:
    if not buffer.read(lambda c: jobs.load(c, [job_id])):
        raise NotFound(f"there is no job {job_id}", field="job_id", value=job_id)


def _limit(job_ids: Sequence[int]) -> None:
    if len(job_ids) > MAX_IDS:
        raise BadInput(f"{len(job_ids)} ids in one request, at most {MAX_IDS}", field="job_ids", value=len(job_ids))
