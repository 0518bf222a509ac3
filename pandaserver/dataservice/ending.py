"""How a job ends badly, wherever that is decided: errors, files, those who waited for it, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pandaserver.dataservice import staging
from pandaserver.dataservice.service import CLOSE, RELEASE, ask_for_datasets
from pandaserver.model.codes import ErrorFamily, JobError, TaskBufferError
from pandaserver.model.file import FileStatus, FileType
from pandaserver.model.job import JobWithFiles
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import files, jobs
from pandaserver.taskbuffer.database import Connection


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A bad end: the state, why in words, and the errors to record."""

    state: JobState  # failed, cancelled or closed
    reason: str
    errors: tuple[JobError, ...] = ()
    reported: bool = False  # by the pilot, which may have stored a log
    log_ready: bool = False  # the log was kept all the same


def end_badly(connection: Connection, ended: Sequence[JobWithFiles], ending: Ending, now: datetime) -> None:
    """End jobs, loaded with lock, and everything of the same submission that waits for their outputs."""
    while ended:
        staging.ask_sweep(connection, ended, now)
        for one in ended:
            jobs.add_errors(connection, one.job, ending.errors, now)
        lost = [f for one in ended for f in one.of_type(FileType.OUTPUT, FileType.LOG) if not _kept(f.type, ending)]
        files.set_status(connection, [f.file_id for f in lost], FileStatus.FAILED)
        jobs.change_state(connection, [e.job for e in ended], ending.state, now=now, reason=ending.reason)
        ask_for_datasets(connection, CLOSE, {f.block for f in lost if f.block}, now)
        ask_for_datasets(connection, RELEASE, {e.job.dispatch_dataset for e in ended if e.job.dispatch_dataset}, now)
        ended = _in_vain(connection, ended)
        ending = Ending(state=JobState.FAILED, reason="upstream job failed", errors=(_UPSTREAM,))


_UPSTREAM = JobError(ErrorFamily.TASKBUFFER, TaskBufferError.KILL, "upstream job failed")


def _kept(kind: FileType, ending: Ending) -> bool:
    return kind is FileType.LOG and ending.log_ready


def _in_vain(connection: Connection, ended: Sequence[JobWithFiles]) -> list[JobWithFiles]:
    """Find jobs of the same submissions that wait for an output which will not be."""
    names = [(f.scope, f.lfn) for e in ended for f in e.of_type(FileType.OUTPUT)]
    if not names:
        return []
    same = {(e.job.owner, e.job.definition_id) for e in ended}
    waiting = files.load_jobs(connection, files.waiting_for(connection, names), lock=True)
    return [w for w in waiting if w.job.state is JobState.WAITING and (w.job.owner, w.job.definition_id) in same]
