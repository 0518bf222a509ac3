"""The life of a job: its states and every transition that is allowed, in one table."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is; the values are the names on the wire."""

    DEFINED = "defined"  # accepted, no site yet
    WAITING = "waiting"  # an input file does not exist yet
    ASSIGNED = "assigned"  # site chosen, inputs on their way there
    ACTIVATED = "activated"  # a pilot may take it
    THROTTLED = "throttled"  # held back by a cap, will be activated again
    SENT = "sent"  # given to a pilot
    STARTING = "starting"  # the pilot prepares it
    RUNNING = "running"
    HOLDING = "holding"  # the pilot is done with it, the server not yet
    TRANSFERRING = "transferring"  # outputs on their way to the destination
    MERGING = "merging"  # outputs are being merged
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"  # killed on request of a person
    CLOSED = "closed"  # given up by the system


S = JobState

QUEUED = frozenset({S.DEFINED, S.WAITING, S.ASSIGNED, S.ACTIVATED, S.THROTTLED})
WITH_PILOT = frozenset({S.SENT, S.STARTING, S.RUNNING})
AFTER_PILOT = frozenset({S.HOLDING, S.TRANSFERRING, S.MERGING})
FINAL = frozenset({S.FINISHED, S.FAILED, S.CANCELLED, S.CLOSED})

_GIVEN_UP = frozenset({S.FAILED, S.CANCELLED, S.CLOSED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    S.DEFINED: frozenset({S.WAITING, S.ASSIGNED, S.ACTIVATED}) | _GIVEN_UP,
    S.WAITING: frozenset({S.DEFINED}) | _GIVEN_UP,
    S.ASSIGNED: frozenset({S.DEFINED, S.ACTIVATED}) | _GIVEN_UP,
    S.ACTIVATED: frozenset({S.DEFINED, S.SENT, S.THROTTLED}) | _GIVEN_UP,
    S.THROTTLED: frozenset({S.DEFINED, S.ACTIVATED}) | _GIVEN_UP,
    S.SENT: frozenset({S.DEFINED, S.STARTING, S.RUNNING, S.HOLDING, S.ACTIVATED}) | _GIVEN_UP,
    S.STARTING: frozenset({S.DEFINED, S.RUNNING, S.HOLDING, S.ACTIVATED}) | _GIVEN_UP,
    S.RUNNING: frozenset({S.DEFINED, S.HOLDING, S.ACTIVATED}) | _GIVEN_UP,
    S.HOLDING: frozenset({S.DEFINED, S.TRANSFERRING, S.MERGING, S.FINISHED, S.ACTIVATED}) | _GIVEN_UP,
    S.TRANSFERRING: frozenset({S.FINISHED, S.MERGING}) | _GIVEN_UP,
    S.MERGING: frozenset({S.FINISHED}) | _GIVEN_UP,
    **{state: frozenset[JobState]() for state in FINAL},
}


def allowed(current: JobState, new: JobState) -> bool:
    """Say whether a job in `current` may become `new`; staying where it is is no transition."""
    return new in TRANSITIONS[current]
