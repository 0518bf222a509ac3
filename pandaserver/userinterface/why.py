"""Why a job is where it is: all that the server has said of it, put together."""

from __future__ import annotations

from dataclasses import dataclass

from pandaserver.errors import NotFound
from pandaserver.model.job import Job
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import records
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.reasons import RecordedRound
from pandaserver.taskbuffer.records import Record


@dataclass(frozen=True)
class Explanation:
    """A job, what was last said of its state, and all rounds of the brokerage over it, oldest first."""

    job: Job
    text: str
    rounds: tuple[RecordedRound, ...]

    @property
    def advice(self) -> str:
        """Give what would help, where the last round found no place and none was found since."""
        looking = self.job.state in (JobState.DEFINED, JobState.FAILED)
        return self.rounds[-1].advice if self.rounds and looking else ""


def explain(buffer: TaskBuffer, job_id: int) -> Explanation:
    """Tell why a job is where it is.

    Raises:
        NotFound: there is no such job.
    """
    record = buffer.read_replica(lambda c: records.of_job(c, job_id))
    if record is None and buffer.has_replica:
        record = buffer.read(lambda c: records.of_job(c, job_id))
    if record is None:
        raise NotFound(f"there is no job {job_id}", field="job_id", value=job_id)
    return Explanation(record.job, _last_word(record), tuple(record.rounds))


def _last_word(record: Record) -> str:
    """Say what brought the job into its state, and what keeps it there."""
    reason = record.history[-1].reason if record.history else ""
    if record.job.state is JobState.DEFINED and record.rounds and record.rounds[-1].queue is None:
        return f"{reason}; no queue can take it now, which may change"
    if record.job.state is JobState.ACTIVATED:
        return f"{reason}; it waits for a pilot"
    return reason
