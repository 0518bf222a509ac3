"""What follows a failed attempt: another one where the rules say so, else the end; in one transaction."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from datetime import datetime
from typing import Any

from pandaserver.dataservice import staging
from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.service import CLOSE, RELEASE, ask_for_datasets, ask_setup
from pandaserver.model.codes import JobError
from pandaserver.model.file import OUTPUTS, File, FileStatus, FileType
from pandaserver.model.job import Job, JobWithFiles
from pandaserver.model.retry import NextTry, RetryRule, decide, next_log_name
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import files, jobs, retries, topology
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)


def after_failure(
    connection: Connection, one: JobWithFiles, failure: Ending, *, rules: tuple[RetryRule, ...], now: datetime
) -> bool:
    """Try a job, loaded with lock, again where the rules say so, else end it; give True where it goes on."""
    grid = topology.load(connection)
    decisions = decide(rules, one.job, _errors(connection, one.job, failure), grid.queues)
    retries.add(connection, one.job, decisions, now)
    following = next((d.following for d in decisions if d.following), None)
    if following is None:
        end_badly(connection, [one], failure, now)
        return False
    log.info("job %d: %s, %s", one.job.job_id, failure.reason, following.words)
    jobs.add_errors(connection, one.job, failure.errors, now)
    staging.ask_sweep(connection, [one], now)
    if failure.reported:
        one = _with_new_log(connection, one, stored=failure.log_ready)
    _go_on(connection, one, following, reason=f"{failure.reason}, {following.words}", now=now)
    return True


def _errors(connection: Connection, job: Job, failure: Ending) -> list[JobError]:
    """Give the errors of the current attempt: those that the pilot told, and what it ends with."""
    told = jobs.errors_of(connection, [job.job_id]).get(job.job_id, [])
    return [*(recorded.error for recorded in told if recorded.attempt == job.attempt), *failure.errors]


def _go_on(connection: Connection, one: JobWithFiles, following: NextTry, *, reason: str, now: datetime) -> None:
    job = following.job
    columns = {
        "failed_attempts": job.failed_attempts + 1,
        "memory_mb": job.memory_mb,
        "wall_time_s": job.wall_time_s,
        "started_at": None,
        "ended_at": None,
    }
    if following.rebroker:
        rebroker(connection, one, reason=reason, now=now, **columns)
    else:
        jobs.change_state(connection, [job], JobState.ACTIVATED, now=now, reason=reason, **columns)


def rebroker(connection: Connection, one: JobWithFiles, *, reason: str, now: datetime, **columns: Any) -> None:
    """Let the brokerage choose a queue again, as if none had been chosen; what the user named stays."""
    columns |= {"dispatch_dataset": None} | ({} if one.job.pinned else {"site": None})
    inputs = [f.file_id for f in one.of_type(FileType.INPUT)]
    files.set_status(connection, inputs, FileStatus.UNKNOWN, block=None)
    _forget_place(connection, one, now)
    if one.job.dispatch_dataset:
        ask_for_datasets(connection, RELEASE, [one.job.dispatch_dataset], now)
    jobs.change_state(connection, [one.job], JobState.DEFINED, now=now, reason=reason, **columns)
    ask_setup(connection, [one.job.job_id], now)


def _forget_place(connection: Connection, one: JobWithFiles, now: datetime) -> None:
    """Take outputs out of the _sub datasets of the queue they were to be made at; these may be complete without."""
    open_ = [f for f in one.of_type(*OUTPUTS) if f.status is FileStatus.UNKNOWN]
    files.set_columns(connection, [f.file_id for f in open_], block=None, endpoint=None)
    ask_for_datasets(connection, CLOSE, {f.block for f in open_ if f.block}, now)


def _with_new_log(connection: Connection, one: JobWithFiles, *, stored: bool) -> JobWithFiles:
    """Let the next attempt write a log of another name, so that what the last one stored stays what it is."""
    renamed = bool(one.of_type(FileType.OLD_LOG))
    logs = one.of_type(FileType.LOG)
    files.copy(connection, [_next_log(one, file, renamed=renamed) for file in logs])
    ids, lost = [file.file_id for file in logs], {} if stored else {"status": FileStatus.FAILED.value}
    files.set_columns(connection, ids, type=FileType.OLD_LOG.value, **lost)
    return replace(one, files=files.of_jobs(connection, [one.job.job_id])[one.job.job_id])


def _next_log(one: JobWithFiles, file: File, *, renamed: bool) -> File:
    name = next_log_name(file.lfn, one.job.attempt + 1, renamed=renamed)
    return replace(file, lfn=name, guid=str(uuid.uuid4()), status=FileStatus.UNKNOWN, size_bytes=None, checksum=None)
