"""The two calls of a pilot's life: get a job, tell what becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pandaserver.dataservice.service import ask_add
from pandaserver.errors import Conflict, NotFound, StaleAttempt
from pandaserver.jobdispatcher.meter import ActivityMeter
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.jobdispatcher.tokens import is_token, job_token
from pandaserver.model.attempt import ClaimRequest, PilotReport
from pandaserver.model.file import File
from pandaserver.model.grid import Queue
from pandaserver.model.job import Job
from pandaserver.model.states import QUEUED, WITH_PILOT, JobState
from pandaserver.taskbuffer import attempts, counters, files, jobs, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

TOKEN_SECRET = "job-tokens"


@dataclass(frozen=True)
class Claim:
    """A job for a pilot, with all it needs to run it."""

    job: Job
    files: tuple[File, ...]
    parameters: str
    attributes: dict[str, object]
    queue: Queue
    token: str
    lease_s: float


class Dispatcher:
    """JobDispatcher over a TaskBuffer."""

    def __init__(self, buffer: TaskBuffer, policy: DispatchPolicy) -> None:
        self.buffer, self.policy = buffer, policy
        self.meter = ActivityMeter(buffer)

    def get_jobs(self, requests: Sequence[ClaimRequest]) -> list[Claim | None]:
        """Give each request a job or nothing, all in one transaction; a request repeated gets its job again.

        Raises:
            NotFound: there is no such queue.
        """
        claims = self.buffer.run(lambda c: self._claim_all(c, requests))
        for request, claim in zip(requests, claims, strict=True):
            self.meter.note(request.queue, "requests")
            if claim is not None:
                self.meter.note(request.queue, "jobs")
        self.meter.write_due()
        return claims

    def update_jobs(self, reports: Sequence[PilotReport]) -> list[str | None]:
        """Take the words of pilots, all in one transaction; give back the command for each, None mostly.

        Raises:
            NotFound: there is no such job.
            StaleAttempt: the attempt is over or was never this pilot's; nothing is changed.
        """
        updated = self.buffer.run(lambda c: self._update_all(c, reports))
        for job in updated:
            self.meter.note(job.site or "", "updates")
        self.meter.write_due()
        return [job.command for job in updated]

    def _claim_all(self, connection: Connection, requests: Sequence[ClaimRequest]) -> list[Claim | None]:
        queues = topology.load(connection).queues
        secret = counters.secret(connection, TOKEN_SECRET)
        return [self._claim(connection, request, queues, secret) for request in requests]

    def _claim(
        self, connection: Connection, request: ClaimRequest, queues: dict[str, Queue], secret: str
    ) -> Claim | None:
        if request.queue not in queues:
            known = ", ".join(sorted(queues))
            raise NotFound(
                f"there is no queue {request.queue}; known are {known}", field="siteName", value=request.queue
            )
        now = self.buffer.now()
        earlier = attempts.claimed_by(connection, request)
        wanted = replace(request, request_id="") if earlier.spent else request
        job = earlier.job or attempts.claim(connection, wanted, now=now, lease_s=self.policy.sent_lease_s)
        if job is None:
            return None
        details = jobs.details_of(connection, [job.job_id])[job.job_id]
        return Claim(
            job=job,
            files=files.of_jobs(connection, [job.job_id]).get(job.job_id, ()),
            parameters=details.parameters,
            attributes=details.attributes,
            queue=queues[request.queue],
            token=job_token(secret, job.job_id, job.attempt),
            lease_s=self.policy.lease_s,
        )

    def _update_all(self, connection: Connection, reports: Sequence[PilotReport]) -> list[Job]:
        secret = counters.secret(connection, TOKEN_SECRET)
        locked = jobs.load(connection, [r.job_id for r in reports], lock=True)
        for report in reports:
            job = _checked(locked.get(report.job_id), report, secret)
            locked[job.job_id] = self._update(connection, job, report)
        return [locked[report.job_id] for report in reports]

    def _update(self, connection: Connection, job: Job, report: PilotReport) -> Job:
        """Apply one word of the current attempt; one that was said before changes nothing."""
        now = self.buffer.now()
        if job.state not in WITH_PILOT:
            _check_same(attempts.outcome(connection, job), job, report)
            return job
        texts = {"log_extract": report.log_extract, "stdout_tail": report.stdout_tail, "metadata": report.metadata}
        jobs.save_details(connection, job.job_id, **{name: text for name, text in texts.items() if text})
        if report.last_word:
            return self._last_word(connection, job, report)
        attempts.renew(connection, job, now=now, lease_s=self.policy.lease_s, **attempts.usage_columns(report))
        new = JobState.STARTING if report.state == "starting" else JobState.RUNNING
        if new is job.state:
            jobs.touch(connection, [job.job_id], now)
            return job
        started = {"started_at": now} if new is JobState.RUNNING else {}
        jobs.change_state(connection, [job], new, now=now, reason=f"pilot says {report.state}", **started)
        return replace(job, state=new)

    def _last_word(self, connection: Connection, job: Job, report: PilotReport) -> Job:
        now = self.buffer.now()
        kept = {"state": report.state, "outputs": [asdict(o) for o in report.outputs]}
        columns = attempts.usage_columns(report)
        attempts.end(connection, job, report.state, now=now, report=kept, **columns)
        jobs.add_errors(connection, job, report.errors, now)
        text = f"pilot says {report.state}"
        jobs.change_state(connection, [job], JobState.HOLDING, now=now, reason=text, ended_at=now)
        ask_add(connection, job.job_id, job.attempt, now)
        return replace(job, state=JobState.HOLDING)


def _check_same(outcome: str | None, job: Job, report: PilotReport) -> None:
    """A last word may be repeated, not changed, and not said of an attempt that was ended without it."""
    if outcome in (None, attempts.LOST):
        raise _stale(job, report)
    if outcome != report.state:
        text = f"attempt {job.attempt} of job {job.job_id} was reported {outcome}; it cannot become {report.state}"
        raise Conflict(text, field="state", value=report.state)


def _checked(job: Job | None, report: PilotReport, secret: str) -> Job:
    """Let only the current attempt's pilot speak.

    A pilot without a token (an old one) is believed by its attempt number; its DN was checked by the web.
    """
    if job is None:
        raise NotFound(f"there is no job {report.job_id}", field="jobId", value=report.job_id)
    current = report.attempt in (None, job.attempt)
    if report.token is not None:
        current = current and is_token(report.token, secret, job.job_id, job.attempt)
    given_up = job.state in QUEUED or (job.state not in WITH_PILOT and not report.last_word)
    if not current or job.attempt == 0 or given_up:
        raise _stale(job, report)
    return job


def _stale(job: Job, report: PilotReport) -> StaleAttempt:
    text = f"job {job.job_id} is {job.state} in attempt {job.attempt}: this attempt is over"
    return StaleAttempt(text, field="attemptNr", value=report.attempt)
