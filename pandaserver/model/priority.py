"""Priorities: production as asked; analysis falls as a user's queue grows, so that nobody starves the others."""

from __future__ import annotations

_USER_START = 1000
_BUILD_START = 2000  # build jobs go first: the others wait for them
_JOBS_PER_STEP = 5


def starting_priority(production: bool, assigned: int, jobs_ahead: int, label: str) -> int:
    """Give the priority of a new job.

    Args:
        jobs_ahead: unfinished jobs of the same user, those before this one in the same submission included.
    """
    if production:
        return assigned
    start = _BUILD_START if label == "panda" else _USER_START
    return start + assigned - jobs_ahead // _JOBS_PER_STEP
