"""Watcher: applies the table of timeouts to jobs that stayed too long where they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pandaserver.dataservice.ending import Ending, end_badly
from pandaserver.dataservice.retrying import after_failure, rebroker
from pandaserver.dataservice.service import ADD, ask_setup
from pandaserver.model.codes import JobError
from pandaserver.model.file import FileStatus
from pandaserver.model.job import Job, JobWithFiles
from pandaserver.model.retry import RULES, RetryRule
from pandaserver.model.states import QUEUED, JobState
from pandaserver.model.timeouts import Timeout, TimeoutAction
from pandaserver.taskbuffer import attempts, files, jobs
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

_AT_ONCE = 200
_NAMED = 5  # missing files
LEASE_MARGIN = timedelta(seconds=10)  # after the end of a lease, so that the pilot has surely stopped the payload


@dataclass(frozen=True)
class Watcher:
    """Looks at every state that has a clock."""

    buffer: TaskBuffer
    rules: tuple[Timeout, ...]
    retry_rules: tuple[RetryRule, ...] = RULES

    def run_once(self) -> int:
        """Apply each rule to at most a batch of jobs; tell how many were changed."""
        return sum(self._apply(rule) for rule in self.rules)

    def _apply(self, rule: Timeout) -> int:
        now = self.buffer.now()
        before = now - timedelta(seconds=rule.after_s)
        suspects = self.buffer.read(lambda c: _suspects(c, rule, before, now))
        if not suspects:
            return 0
        return self.buffer.run(lambda c: self._act(c, rule, suspects, before))

    def _act(self, connection: Connection, rule: Timeout, suspects: Sequence[int], before: datetime) -> int:
        locked = files.load_jobs(connection, suspects, lock=True)
        late = [one for one in locked if rule.covers(one.job) and _clock(one.job, rule) < before]
        for one in late:
            log.info("job %d: %s for more than %d s, %s", one.job.job_id, rule.state, rule.after_s, rule.action)
            self._act_on(connection, one, rule)
        return len(late)

    def _act_on(self, connection: Connection, one: JobWithFiles, rule: Timeout) -> None:
        now, what = self.buffer.now(), "no word from the pilot" if rule.heartbeat else f"still {rule.state}"
        reason = f"{what} for more than {rule.after_s} s"
        error = JobError(rule.family, rule.code, reason + _missing(one))
        ending = Ending(state=_end(one.job, rule), reason=reason, errors=(error,))
        if rule.heartbeat:
            attempts.end(connection, [attempts.Word(one.job, {"outcome": attempts.LOST})], now=now)
        if rule.action is TimeoutAction.RETRY:
            after_failure(connection, one, ending, rules=self.retry_rules, now=now)
        elif rule.action is TimeoutAction.REASSIGN:
            reassign(connection, one, reason, now)
        else:
            end_badly(connection, [one], ending, now)


def _suspects(connection: Connection, rule: Timeout, before: datetime, now: datetime) -> list[int]:
    if rule.heartbeat:
        over = now - LEASE_MARGIN
        return attempts.lost(connection, rule.state, silent_since=before, lease_over=over, limit=_AT_ONCE)
    production = None if rule.subject == "any" else rule.subject == "production"
    # as long as there is work on outputs, it alone says how that ended: it may be in the middle of registering them
    work = ADD if rule.state is JobState.HOLDING else None
    found = jobs.load_in_state(connection, rule.state, before, limit=_AT_ONCE, production=production, unless_work=work)
    return [job.job_id for job in found]


def _missing(one: JobWithFiles) -> str:
    """Name the inputs that a job waited for in vain; the first ones, when they are many."""
    names = [f"{file.scope}:{file.lfn}" for file in one.inputs_in(FileStatus.MISSING)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f", missing: {', '.join(names[:_NAMED])}{more}" if names else ""


def _clock(job: Job, rule: Timeout) -> datetime:
    return job.modified_at if rule.heartbeat else job.state_since


def _end(job: Job, rule: Timeout) -> JobState:
    if job.kill_requested:
        return JobState.CANCELLED
    return JobState.CLOSED if rule.action is TimeoutAction.CLOSE else JobState.FAILED


def reassign(connection: Connection, one: JobWithFiles, reason: str, now: datetime) -> None:
    """Let the brokerage choose again; a job that was activated goes to the front (priority at least 100)."""
    job = one.job
    if job.state is JobState.DEFINED:
        jobs.restart_clock(connection, [job.job_id], now)
        ask_setup(connection, [job.job_id], now)
    elif job.state in QUEUED:
        forward = {"priority": max(job.priority, 100)} if job.state is JobState.ACTIVATED else {}
        rebroker(connection, one, reason=f"{reason}, reassigned", now=now, **forward)
