"""What follows a failed attempt: rules as data. The first that fits decides; passive ones note what they would do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pandaserver.model.codes import DispatcherError, ErrorFamily, JobError
from pandaserver.model.grid import Queue
from pandaserver.model.job import Job


class RetryAction(StrEnum):
    """How a job is tried again, if at all."""

    RETRY = "retry"  # at the same queue
    ELSEWHERE = "elsewhere"  # the brokerage chooses again, and avoids the queue of the failure
    MORE_MEMORY = "more_memory"
    MORE_WALL_TIME = "more_wall_time"
    NO_RETRY = "no_retry"


@dataclass(frozen=True, kw_only=True)
class RetryRule:
    """One rule; what is left empty fits everything."""

    name: str
    action: RetryAction
    family: ErrorFamily | None = None
    codes: tuple[int, ...] = ()
    pattern: str = ""  # regular expression, searched in the diagnostic
    labels: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    vos: tuple[str, ...] = ()
    factor: float = 1.5  # so many times the memory or wall time
    max_attempts: int = 0  # 0: as the job says
    wished: bool = False  # only where the pilot asks for it, by a negative code
    passive: bool = False  # noted, not done

    def fits(self, job: Job, error: JobError) -> bool:
        """Say whether the rule is about this error of this job."""
        return self._about(error) and all(not wanted or has in wanted for wanted, has in self._scope(job))

    def _about(self, error: JobError) -> bool:
        wished = error.family is ErrorFamily.PILOT and error.code < 0
        code = -error.code if wished else error.code
        return (
            self.family in (None, error.family)
            and (not self.codes or code in self.codes)
            and (wished or not self.wished)
            and (not self.pattern or re.search(self.pattern, error.diagnostic) is not None)
        )

    def _scope(self, job: Job) -> tuple[tuple[tuple[str, ...], str], ...]:
        return (self.labels, job.label), (self.queues, job.site or ""), (self.vos, job.vo)


_PILOT, _DISPATCHER = ErrorFamily.PILOT, ErrorFamily.DISPATCHER
_LOST = (int(DispatcherError.HEARTBEAT), int(DispatcherError.SENT_TIMEOUT))
_TROUBLE = (1008, 1098, 1099, 1110, 1116, 1117, 1137, 1139, 1151, 1152, 1171, 1172, 1177, 1179, 1180, 1181, 1182, 1195)

# By the codes that pilots and servers of PanDA have always had; an installation puts its own rules in front.
RULES: tuple[RetryRule, ...] = (
    RetryRule(name="lost pilot", family=_DISPATCHER, codes=_LOST, action=RetryAction.RETRY),
    RetryRule(name="pilot stopped by a signal", family=_PILOT, codes=(1200, 1201), action=RetryAction.RETRY),
    RetryRule(name="out of memory", family=_PILOT, codes=(1212, 1223, 1235), action=RetryAction.MORE_MEMORY),
    RetryRule(name="out of time", family=_PILOT, codes=(1213,), action=RetryAction.MORE_WALL_TIME),
    RetryRule(name="trouble of the site", family=_PILOT, codes=_TROUBLE, action=RetryAction.ELSEWHERE),
    RetryRule(name="wish of the pilot", labels=("user", "panda"), wished=True, action=RetryAction.RETRY),
)


_NOTHING_TOLD = JobError(_PILOT, 0, "")  # a failure without any code, for the rules that fit everything


@dataclass(frozen=True)
class NextTry:
    """How a job goes on: with what requirements, at the same queue or where the brokerage says."""

    job: Job
    rebroker: bool
    words: str


@dataclass(frozen=True)
class RetryDecision:
    """What a rule says of one failed attempt; `following` is done, not merely noted, where it is there."""

    rule: RetryRule
    reason: str
    following: NextTry | None


def decide(
    rules: Iterable[RetryRule], job: Job, errors: Sequence[JobError], queues: Mapping[str, Queue]
) -> list[RetryDecision]:
    """Say what follows a failed attempt: passive rules that fit, and at most one that decides, as the last.

    A job whose attempts are used up, or which somebody wants dead, is not tried again whatever the rules say.
    """
    decisions = []
    for rule in rules:
        fitting = next((error for error in errors or (_NOTHING_TOLD,) if rule.fits(job, error)), None)
        if fitting is not None:
            decisions.append(_decision(rule, job, fitting, queues))
            if not rule.passive:
                break
    return decisions


def _decision(rule: RetryRule, job: Job, error: JobError, queues: Mapping[str, Queue]) -> RetryDecision:
    following = _NEXT[rule.action](rule, job, queues)
    against = _against(rule, job)
    words = following if isinstance(following, str) else following.words
    done = None if against or rule.passive or isinstance(following, str) else following
    return RetryDecision(rule, ": ".join(filter(None, (f"{error.family} {error.code}", against or words))), done)


def _against(rule: RetryRule, job: Job) -> str:
    """Say what forbids another attempt, whatever the rule is."""
    if rule.action is RetryAction.NO_RETRY:
        return ""
    if job.kill_requested:
        return "killed as asked"
    return "" if job.may_retry(rule.max_attempts) else f"attempt {job.failed_attempts + 1} was the last"


def _same_queue(_rule: RetryRule, job: Job, _queues: Mapping[str, Queue]) -> NextTry:
    return NextTry(job, rebroker=False, words=f"tried again at {job.site}")


def _elsewhere(_rule: RetryRule, job: Job, _queues: Mapping[str, Queue]) -> NextTry:
    if job.pinned:
        return NextTry(job, rebroker=True, words=f"tried again at {job.site}, which the user asked for")
    return NextTry(job, rebroker=True, words=f"tried elsewhere than at {job.site}")


def _never(_rule: RetryRule, _job: Job, _queues: Mapping[str, Queue]) -> str:
    return "not tried again"


@dataclass(frozen=True)
class _Need:
    """What a job can ask more of: its name in jobs and in queues, and in words."""

    of_job: str
    of_queue: str
    words: str

    def more(self, rule: RetryRule, job: Job, queues: Mapping[str, Queue]) -> NextTry | str:
        """Raise the requirement, up to what the largest queue has; say why not where that is no more than it was."""
        here = self._limit(queues, job.site)
        had = int(getattr(job, self.of_job)) or here
        limits = [self._limit(queues, name) for name in _open_to(job, queues)]
        most = 0 if 0 in limits else max(limits, default=had)
        wanted = math.ceil(had * rule.factor)
        wanted = min(wanted, most) if most else wanted
        if wanted <= had:
            return f"no queue has more than {had} {self.words}" if had else f"nobody says how many {self.words} it had"
        raised: dict[str, Any] = {self.of_job: wanted}
        too_large_here = bool(here) and wanted > here
        where = f"elsewhere than at {job.site}" if too_large_here else f"again at {job.site}"
        return NextTry(replace(job, **raised), too_large_here, f"tried {where} with {wanted} {self.words}, not {had}")

    def _limit(self, queues: Mapping[str, Queue], name: str | None) -> int:
        queue = queues.get(name or "")
        return int(getattr(queue, self.of_queue)) if queue else 0


def _open_to(job: Job, queues: Mapping[str, Queue]) -> list[str]:
    """Name the queues that could take the job by what does not change with an attempt."""
    if job.pinned:
        return [job.site or ""]
    return [q.name for q in queues.values() if q.takes_label(job.label) and (not q.vos or job.vo in q.vos)]


_MEMORY = _Need("memory_mb", "memory_mb", "MB of memory")
_WALL_TIME = _Need("wall_time_s", "max_wall_time_s", "s of wall time")
_NEXT = {
    RetryAction.RETRY: _same_queue,
    RetryAction.ELSEWHERE: _elsewhere,
    RetryAction.MORE_MEMORY: _MEMORY.more,
    RetryAction.MORE_WALL_TIME: _WALL_TIME.more,
    RetryAction.NO_RETRY: _never,
}


def next_log_name(lfn: str, attempt: int, *, renamed: bool) -> str:
    """Name the log of another attempt: `<lfn>.<attempt>`, in the place of the suffix of an earlier one.

    Args:
        renamed: the name has such a suffix already; without it, digits at the end are the user's own.
    """
    suffix = f".{attempt}"
    stem = re.sub(r"\.[0-9]+$", "", lfn) if renamed else lfn
    return stem[: _LONGEST_LFN - len(suffix)] + suffix


_LONGEST_LFN = 255
