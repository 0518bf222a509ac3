"""The life of a pilot as a table: in which order a job's phases come, and what a bad outcome leads to."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """What the pilot is busy with."""

    GET_JOB = "getjob"
    STAGE_IN = "stagein"
    SET_UP = "setup"
    RUN = "payload"
    STAGE_OUT = "stageout"
    LOG = "log"
    REPORT = "report"
    END = "end"


class Outcome(str, Enum):
    """How a phase ended."""

    OK = "ok"
    NO_JOB = "no job"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # the pilot got a signal: hurry
    EXPIRED = "expired"  # the lease ran out: store nothing, but tell the server
    STALE = "stale"  # the server disowned this attempt: store nothing, tell nothing


def _working(after: Phase) -> dict[Outcome, Phase]:
    """Return the transitions of a phase that works on the job before its log is made."""
    return {
        Outcome.OK: after,
        Outcome.FAILED: Phase.LOG,
        Outcome.INTERRUPTED: Phase.LOG,
        Outcome.EXPIRED: Phase.REPORT,
        Outcome.STALE: Phase.GET_JOB,
    }


TRANSITIONS: dict[Phase, dict[Outcome, Phase]] = {
    Phase.GET_JOB: {Outcome.OK: Phase.STAGE_IN, Outcome.NO_JOB: Phase.END},
    Phase.STAGE_IN: _working(Phase.SET_UP),
    Phase.SET_UP: _working(Phase.RUN),
    Phase.RUN: _working(Phase.STAGE_OUT),
    Phase.STAGE_OUT: _working(Phase.LOG),
    Phase.LOG: {
        Outcome.OK: Phase.REPORT,
        Outcome.FAILED: Phase.REPORT,
        Outcome.INTERRUPTED: Phase.LOG,
        Outcome.EXPIRED: Phase.REPORT,
        Outcome.STALE: Phase.GET_JOB,
    },
    Phase.REPORT: {
        Outcome.OK: Phase.GET_JOB,
        Outcome.FAILED: Phase.GET_JOB,
        Outcome.INTERRUPTED: Phase.REPORT,
    },
    Phase.END: {},
}

# While a job waits for its payload the server sees it starting; from the payload's start on it sees it running.
WIRE_STATES = {
    Phase.STAGE_IN: "starting",
    Phase.SET_UP: "starting",
    Phase.RUN: "running",
    Phase.STAGE_OUT: "running",
    Phase.LOG: "running",
}


def next_phase(phase: Phase, outcome: Outcome) -> Phase:
    """Look up what follows; an outcome that the phase cannot have is a programming error."""
    try:
        return TRANSITIONS[phase][outcome]
    except KeyError:
        raise ValueError(f"phase {phase.value} cannot end with outcome {outcome.value}") from None
