"""Priorities: production as asked; analysis falls as a user's queue grows, so that nobody starves the others."""

from __future__ import annotations

from dataclasses import dataclass

from pandaserver.model.job import BUILD_LABEL, NewJob

JOBS_PER_POINT = 5  # so many jobs of one user weigh as much as one point of priority
_USER_START = 1000
_BUILD_LIFT, _LIFT_PER_JOB = 1000, 10  # build jobs go first, the others wait for them; not a hundred of one user
_POINTS_PER_QUOTA = 100
_LOWEST = -2_000_000_000  # what columns hold, with room for more to be taken off


@dataclass(frozen=True)
class PriorityRules:
    """What an installation says about the priority of analysis jobs."""

    raise_max: int = 0  # most points by which users may lift their own jobs
    daily_cpu_s: int | None = None  # CPU time in the last day above which a user's priority falls


USUAL_RULES = PriorityRules()


def starting_priority(
    job: NewJob, jobs_ahead: int, *, cpu_used_s: float = 0.0, rules: PriorityRules = USUAL_RULES
) -> int:
    """Give the priority of a new job.

    Production gets what it asks for. Analysis starts at 1000, a point less for every five jobs of the same user that
    are ahead, and 100 less for each time the daily quota of CPU time was used up. Build jobs start at 2000; that lift
    is less by 10 for each job ahead, so that nobody is served first by calling everything a build job. What users ask
    for can lower their jobs, and lift them as far as the rules allow.

    Args:
        jobs_ahead: unfinished jobs of the same user, those before this one in the same submission included.
        cpu_used_s: CPU time of the user's jobs that ended in the last day.
    """
    if job.production:
        return job.assigned_priority
    lift = max(_BUILD_LIFT - _LIFT_PER_JOB * jobs_ahead, 0) if job.label == BUILD_LABEL else 0
    wanted = min(job.assigned_priority, rules.raise_max)
    lost = jobs_ahead // JOBS_PER_POINT + _over_quota(cpu_used_s, rules.daily_cpu_s)
    return max(_USER_START + lift + wanted - lost, _LOWEST)


def _over_quota(cpu_used_s: float, daily_cpu_s: int | None) -> int:
    """Give the points for CPU time: none within the quota."""
    if daily_cpu_s is None or cpu_used_s < daily_cpu_s:
        return 0
    return min(int(_POINTS_PER_QUOTA * cpu_used_s / daily_cpu_s), -_LOWEST)
