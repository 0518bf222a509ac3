"""Every non-final state has its clock: how long a job may stay there, and what happens then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pandaserver.errors import ConfigError
from pandaserver.model.codes import DispatcherError, ErrorFamily, TaskBufferError
from pandaserver.model.job import Job
from pandaserver.model.states import JobState

HOUR = 3600
DAY = 24 * HOUR


class TimeoutAction(StrEnum):
    """What the watcher does with a job whose time is over."""

    RETRY = "retry"  # another attempt if the job may have one, else failed
    REASSIGN = "reassign"  # back to defined: choose a site again
    FAIL = "fail"
    CLOSE = "close"


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """One rule. The clock starts at the last change of state, or at the last word of the pilot (`heartbeat`)."""

    state: JobState
    subject: str  # any, production, analysis
    after_s: int
    action: TimeoutAction
    heartbeat: bool = False
    family: ErrorFamily = ErrorFamily.DISPATCHER
    code: int = DispatcherError.OTHER_TIMEOUT

    def covers(self, job: Job) -> bool:
        """Say whether the rule is about this kind of job."""
        return self.state is job.state and self.subject in ("any", "production" if job.production else "analysis")


def _rule(state: JobState, subject: str, after_s: int, action: TimeoutAction, code: int) -> Timeout:
    beat = state in (JobState.SENT, JobState.STARTING, JobState.RUNNING)
    return Timeout(state=state, subject=subject, after_s=after_s, action=action, heartbeat=beat, code=code)


def _expiry(state: JobState, subject: str, after_s: int, action: TimeoutAction, code: int) -> Timeout:
    family = ErrorFamily.TASKBUFFER
    return Timeout(state=state, subject=subject, after_s=after_s, action=action, family=family, code=code)


# The numbers are those of the watchdogs of 2008 and today (heartbeat limit: well above the pilot's own 30 min).
TIMEOUTS: tuple[Timeout, ...] = (
    _expiry(JobState.DEFINED, "any", 4 * HOUR, TimeoutAction.REASSIGN, TaskBufferError.REASSIGNED),
    _expiry(JobState.WAITING, "any", DAY, TimeoutAction.CLOSE, TaskBufferError.EXPIRED),
    _expiry(JobState.ASSIGNED, "any", 12 * HOUR, TimeoutAction.REASSIGN, TaskBufferError.REASSIGNED),
    _expiry(JobState.ACTIVATED, "production", 2 * DAY, TimeoutAction.REASSIGN, TaskBufferError.REASSIGNED),
    _expiry(JobState.ACTIVATED, "analysis", 7 * DAY, TimeoutAction.CLOSE, TaskBufferError.EXPIRED),
    _expiry(JobState.THROTTLED, "any", 7 * DAY, TimeoutAction.CLOSE, TaskBufferError.EXPIRED),
    _rule(JobState.SENT, "any", HOUR // 2, TimeoutAction.RETRY, DispatcherError.SENT_TIMEOUT),
    _rule(JobState.STARTING, "any", 2 * HOUR, TimeoutAction.RETRY, DispatcherError.HEARTBEAT),
    _rule(JobState.RUNNING, "any", 2 * HOUR, TimeoutAction.RETRY, DispatcherError.HEARTBEAT),
    _rule(JobState.HOLDING, "production", 48 * HOUR, TimeoutAction.FAIL, DispatcherError.HOLDING),
    _rule(JobState.HOLDING, "analysis", 3 * HOUR, TimeoutAction.FAIL, DispatcherError.HOLDING),
    _rule(JobState.TRANSFERRING, "any", 2 * DAY, TimeoutAction.FAIL, DispatcherError.TRANSFERRING),
    _rule(JobState.MERGING, "any", 2 * DAY, TimeoutAction.FAIL, DispatcherError.OTHER_TIMEOUT),
)


def with_overrides(seconds: Mapping[str, int], where: str = "[timeouts]") -> tuple[Timeout, ...]:
    """Give the table with other times, by `state.subject`; `where` is for the text of the error.

    Raises:
        ConfigError: there is no such rule.
    """
    rules = {f"{rule.state}.{rule.subject}": rule for rule in TIMEOUTS}
    for name, after_s in seconds.items():
        if name not in rules:
            raise ConfigError(f"{where}: unknown timeout {name}; known are {', '.join(rules)}", field=name)
        rules[name] = replace(rules[name], after_s=after_s)
    return tuple(rules.values())


def timeout_of(job: Job, rules: tuple[Timeout, ...] = TIMEOUTS) -> Timeout | None:
    """Find the rule for a job; none for final states."""
    return next((rule for rule in rules if rule.covers(job)), None)
