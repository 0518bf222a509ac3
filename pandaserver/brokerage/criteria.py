"""Why a queue cannot take a job: small questions, each answered with a refusal or with nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from math import log2

from pandaserver.model.choice import Access, Change, Load, Refusal, Snapshot, Wish
from pandaserver.model.grid import Queue

Question = Callable[[Wish, Queue, Snapshot], Refusal | None]

# How much changes hurt: to ask for half as much of something is 1.
_ELSEWHERE, _OTHER_SOFTWARE = 0.5, 3.0


def not_the_chosen_one(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The user named a queue."""
    if wish.site is None or wish.site == queue.name:
        return None
    change = Change("site", None, f"do not ask for the queue {wish.site}", _ELSEWHERE)
    return Refusal("asked for", f"the job asks for {wish.site}", wish.site, change=change)


def not_among_the_wanted(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The user named some queues or sites."""
    if not wish.only or wish.only & {queue.name, queue.site}:
        return None
    names = ", ".join(sorted(wish.only))
    change = Change("only", frozenset(), f"do not ask for the sites {names} only", _ELSEWHERE)
    return Refusal("wanted sites", f"the job asks for {names}", names, change=change)


def not_wanted(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The user wants no job there."""
    named = wish.without & {queue.name, queue.site}
    if not named:
        return None
    names = ", ".join(sorted(named))
    change = Change("without", wish.without - named, f"do not exclude {names}", _ELSEWHERE)
    return Refusal("excluded sites", f"the job excludes {names}", names, change=change)


def other_cloud(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The user named a cloud."""
    if not wish.cloud or wish.site is not None or wish.cloud == queue.cloud:
        return None
    reason = f"the job asks for cloud {wish.cloud}, the queue is in {queue.cloud}"
    change = Change("cloud", "", f"do not ask for the cloud {wish.cloud}", _ELSEWHERE)
    return Refusal("cloud", reason, wish.cloud, queue.cloud, change=change)


def other_vo(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The queue serves other experiments."""
    if not queue.vos or wish.vo in queue.vos:
        return None
    served = ", ".join(queue.vos)
    return Refusal("vo", f"VO {wish.vo or '(none)'} is not served, only {served}", wish.vo, served)


def user_not_let_in(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The installation keeps users away from a queue, or keeps it for some users."""
    rules = snapshot.rules
    if any(fnmatchcase(wish.owner, line.owner) for line in _about(rules.deny, queue.name, queue.site)):
        return Refusal("user", "the installation does not let this user's jobs run there", wish.owner)
    kept_for = _about(rules.allow, queue.name, queue.site)
    if kept_for and not any(fnmatchcase(wish.owner, line.owner) for line in kept_for):
        return Refusal("user", "the queue is kept for other users", wish.owner)
    return None


@lru_cache(maxsize=10_000)
def _about(lines: tuple[Access, ...], queue: str, site: str) -> tuple[Access, ...]:
    return tuple(line for line in lines if fnmatchcase(queue, line.queues) or fnmatchcase(site, line.queues))


def release_not_installed(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """Every line of the job's release must be installed."""
    lacking = [release for release in wish.releases if queue.releases and release not in queue.releases]
    if not lacking:
        return None
    wanted, there = ", ".join(lacking), _some(queue.releases)
    rest = tuple(release for release in wish.releases if release not in lacking)
    change = Change("releases", rest, f"leave out the release {wanted}", _OTHER_SOFTWARE)
    return Refusal("release", f"release {wanted} is not installed, only {there}", wanted, there, change=change)


_MOST_NAMES = 4


def _some(names: Sequence[str]) -> str:
    """List a few names; many differ from queue to queue, and nobody reads them."""
    return ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} others"


def platform_differs(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The job's binaries need a platform."""
    if not wish.platform or not queue.platforms or wish.platform in queue.platforms:
        return None
    there = ", ".join(queue.platforms)
    change = Change("platform", queue.platforms[0], f"build for the platform {queue.platforms[0]}", _OTHER_SOFTWARE)
    return Refusal(
        "platform", f"platform {wish.platform} is not there, only {there}", wish.platform, there, change=change
    )


def too_little_memory(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The job needs more memory than a slot has."""
    return _more_than(wish, "memory_mb", queue.memory_mb, "MB of memory")


def too_little_scratch(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The job needs more scratch space than a slot has."""
    return _more_than(wish, "disk_mb", queue.max_work_dir_mb, "MB of disk")


def too_few_cores(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The job needs more cores than a slot has."""
    return _more_than(wish, "cores", queue.cores, "cores")


def too_short(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The job needs more wall time than the batch system gives."""
    return _more_than(wish, "wall_time_s", queue.max_wall_time_s, "s of wall time")


def _more_than(wish: Wish, field: str, limit: int, what: str) -> Refusal | None:
    value = getattr(wish, field)
    if not limit or value <= limit:
        return None
    named = what.removesuffix("s") if limit == 1 else what
    change = Change(field, limit, f"ask for {limit} {named} instead of {value}", log2(value / limit))
    return Refusal(_CRITERIA[field], f"{value} {what} asked, {limit} there", value, limit, change=change)


_CRITERIA = {"memory_mb": "memory", "disk_mb": "scratch", "cores": "cores", "wall_time_s": "wall time"}


def too_much_input(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The job reads more than the queue takes."""
    limit = queue.max_input_mb
    if not limit or wish.input_mb <= limit:
        return None
    text = f"give it at most {limit} MB of input instead of {wish.input_mb}: split it over several jobs"
    change = Change("input_mb", limit, text, 1 + log2(wish.input_mb / limit))
    reason = f"{wish.input_mb} MB of input, {limit} MB taken at most"
    return Refusal("input size", reason, wish.input_mb, limit, change=change)


def storage_full(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """What the jobs there will write leaves too little room at the endpoint."""
    free = snapshot.free_mb.get(queue.endpoint)
    if free is None:
        return None
    load, rules = snapshot.loads.get(queue.name), snapshot.rules
    there = (load.queued + load.running) if load is not None else 0
    left = free - rules.free_per_job_mb * there
    if left >= rules.free_min_mb:
        return None
    reason = f"{free} MB free at {queue.endpoint}, where {there} jobs will write; {rules.free_min_mb} MB shall be left"
    return Refusal("storage", reason, rules.free_min_mb, left, passing=True)


def status_closed(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """The queue takes nothing, or tests only."""
    if queue.takes_label(wish.label):
        return None
    return Refusal("status", f"the queue is {queue.status}", wish.label, queue.status.value, passing=True)


QUESTIONS: tuple[Question, ...] = (
    not_the_chosen_one,
    not_among_the_wanted,
    not_wanted,
    other_cloud,
    other_vo,
    user_not_let_in,
    release_not_installed,
    platform_differs,
    too_little_memory,
    too_little_scratch,
    too_few_cores,
    too_short,
    too_much_input,
    storage_full,
    status_closed,
)


def refusals(wish: Wish, queue: Queue, snapshot: Snapshot) -> list[Refusal]:
    """Give all reasons why a queue cannot take a job."""
    return [r for question in QUESTIONS if (r := question(wish, queue, snapshot)) is not None]


def refusal(wish: Wish, queue: Queue, snapshot: Snapshot) -> Refusal | None:
    """Give the first reason why not, those that last before those that may pass; None if the queue can take it."""
    return next((r for question in QUESTIONS if (r := question(wish, queue, snapshot)) is not None), None)


# --- preferences: they count as long as they leave a queue


def failed_before(wish: Wish, fit: Sequence[Queue], snapshot: Snapshot) -> dict[str, Refusal]:
    """The job has failed at some queues and shall be tried elsewhere."""
    return {queue.name: _FAILED_THERE for queue in fit if queue.name in wish.avoid}


_FAILED_THERE = Refusal("failed before", "failed there before")


def silent(wish: Wish, fit: Sequence[Queue], snapshot: Snapshot) -> dict[str, Refusal]:
    """No pilot was heard of at some queues lately, and jobs wait there already."""
    rules, loads = snapshot.rules, snapshot.loads
    if rules.pilots_within_s is None:
        return {}
    without = [queue.name for queue in fit if not snapshot.pilots.get(queue.name)]
    refused = Refusal("pilots", f"no pilot was seen in the last {_hours(rules.pilots_within_s)}", 1, 0)
    return {name: refused for name in without if loads.get(name, _IDLE).queued >= rules.silent_jobs}


_IDLE = Load()


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} hours" if seconds >= 3600 else f"{seconds:g} s"


def not_tier1(wish: Wish, fit: Sequence[Queue], snapshot: Snapshot) -> dict[str, Refusal]:
    """Urgent production and production with many inputs goes to the Tier-1."""
    return {queue.name: _NOT_TIER1 for queue in fit if queue.tier != 1}


_NOT_TIER1 = Refusal("tier", "urgent production, or production with many inputs, goes to a Tier-1")

Preference = Callable[[Wish, Sequence[Queue], Snapshot], dict[str, Refusal]]
PREFERENCES: tuple[Preference, ...] = (failed_before, silent)  # of all jobs
