"""What users do with accepted jobs: look, kill, ask why."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.errors import BadInput, NotAllowed, NotFound
from pandaserver.model.attempt import Attempt
from pandaserver.model.codes import ErrorFamily, JobError, TaskBufferError
from pandaserver.model.job import KILL_COMMAND, JobWithFiles
from pandaserver.model.states import AFTER_PILOT, QUEUED, WITH_PILOT, JobState
from pandaserver.taskbuffer import archive, attempts, files, jobs, reasons, retries
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.reasons import RecordedRound
from pandaserver.taskbuffer.retries import RecordedDecision

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_IDS = 5500


@dataclass(frozen=True)
class Description:
    """All that a person may want to know of a job."""

    one: JobWithFiles
    details: jobs.Details
    attempts: tuple[Attempt, ...]
    errors: tuple[jobs.RecordedError, ...]


def describe(buffer: TaskBuffer, job_ids: Sequence[int]) -> list[Description | None]:
    """Describe jobs in the order asked, those of the archive too; None for an unknown id."""
    _limit(job_ids)
    described = _look(buffer, job_ids, _describe)
    return [described.get(job_id) for job_id in job_ids]


def _describe(connection: Connection, job_ids: Sequence[int]) -> dict[int, Description]:
    described = _describe_living(connection, job_ids)
    missing = [job_id for job_id in job_ids if job_id not in described]
    return described | _describe_archived(connection, missing) if missing else described


def _describe_living(connection: Connection, job_ids: Sequence[int]) -> dict[int, Description]:
    loaded = files.load_jobs(connection, job_ids)
    ids = [one.job.job_id for one in loaded]
    details, errors = jobs.details_of(connection, ids), jobs.errors_of(connection, ids)
    return _put_together(loaded, details, attempts.of_jobs(connection, ids), errors)


def _describe_archived(connection: Connection, job_ids: Sequence[int]) -> dict[int, Description]:
    found = archive.find(connection, job_ids)
    details, errors = archive.details_of(connection, found), archive.errors_of(connection, found)
    return _put_together(archive.load_jobs(connection, found), details, archive.attempts_of(connection, found), errors)


def _put_together(
    loaded: Sequence[JobWithFiles],
    details: Mapping[int, jobs.Details],
    tries: Sequence[Attempt],
    errors: Mapping[int, Sequence[jobs.RecordedError]],
) -> dict[int, Description]:
    of_job: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in tries:
        of_job[attempt.job_id].append(attempt)
    return {
        one.job.job_id: Description(
            one, details[one.job.job_id], tuple(of_job[one.job.job_id]), tuple(errors.get(one.job.job_id, ()))
        )
        for one in loaded
    }


def _look(
    buffer: TaskBuffer, job_ids: Sequence[int], read: Callable[[Connection, Sequence[int]], dict[int, T]]
) -> dict[int, T]:
    """Read what is known of jobs from a replica where there is one; what that has not heard of yet, from the source."""
    found = buffer.read_replica(lambda c: read(c, job_ids))
    missing = [job_id for job_id in job_ids if job_id not in found]
    return found | buffer.read(lambda c: read(c, missing)) if missing and buffer.has_replica else found


def kill(buffer: TaskBuffer, job_ids: Sequence[int], *, dn: str, operator: bool) -> list[bool]:
    """Kill jobs: those without a pilot die now, the others with their pilot's next word.

    Gives True for each job that is dying or was ended by this, False for one that had ended, be it in the archive, or
    is unknown.

    Raises:
        NotAllowed: one of the jobs is somebody else's; then none is killed.
    """
    _limit(job_ids)
    return buffer.run(lambda c: _kill(c, buffer, job_ids, dn=dn, operator=operator))


def _kill(connection: Connection, buffer: TaskBuffer, job_ids: Sequence[int], *, dn: str, operator: bool) -> list[bool]:
    found = {one.job.job_id: one for one in files.load_jobs(connection, job_ids, lock=True)}
    if not operator:
        # those that are not there any more have ended; whoever asks for the jobs of others is told so all the same
        owners = {job_id: one.job.owner for job_id, one in found.items()}
        owners |= archive.owners(connection, [job_id for job_id in job_ids if job_id not in found])
        _check_own(owners, dn)
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


def _check_own(owners: Mapping[int, str], dn: str) -> None:
    foreign = [job_id for job_id, owner in owners.items() if owner != dn]
    if foreign:
        text = f"job {foreign[0]} belongs to {owners[foreign[0]]}, not to {dn}; nothing was killed"
        raise NotAllowed(text, field="job_ids", value=foreign[0])


def why(buffer: TaskBuffer, job_id: int) -> list[RecordedRound]:
    """Tell why a job went where it went.

    Raises:
        NotFound: there is no such job.
    """
    return _recorded(buffer, job_id, living=reasons.of_job, archived=archive.rounds_of)


def retries_of(buffer: TaskBuffer, job_id: int) -> list[RecordedDecision]:
    """Tell what was decided after each failed attempt of a job.

    Raises:
        NotFound: there is no such job.
    """
    return _recorded(buffer, job_id, living=retries.of_job, archived=archive.decisions_of)


def _recorded(
    buffer: TaskBuffer,
    job_id: int,
    *,
    living: Callable[[Connection, int], list[T]],
    archived: Callable[[Connection, archive.Found], list[T]],
) -> list[T]:
    def read(connection: Connection, job_ids: Sequence[int]) -> dict[int, list[T]]:
        if jobs.load(connection, job_ids):
            return {job_id: living(connection, job_id)}
        found = archive.find(connection, job_ids)
        return {job_id: archived(connection, found)} if found.jobs else {}

    recorded = _look(buffer, [job_id], read)
    if job_id not in recorded:
        raise NotFound(f"there is no job {job_id}", field="job_id", value=job_id)
    return recorded[job_id]


def _limit(job_ids: Sequence[int]) -> None:
    if len(job_ids) > MAX_IDS:
        raise BadInput(f"{len(job_ids)} ids in one request, at most {MAX_IDS}", field="job_ids", value=len(job_ids))
