"""What has happened to one job so far: filled by the runner, read by the reports."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pandapilot.codes import ErrorCode
from pandapilot.jobs import Job
from pandapilot.payload import Ended, Measure
from pandapilot.states import Phase
from pandapilot.transfers import Transferred


@dataclass(frozen=True)
class Failure:
    """Why a job failed."""

    code: ErrorCode
    diagnosis: str


@dataclass
class JobRecord:
    """The story of one attempt."""

    job: Job
    started: float
    phase: Phase = Phase.STAGE_IN
    ended: float = 0.0
    failure: Failure | None = None
    payload: Ended | None = None
    measured: Measure = field(default_factory=Measure)
    transferred: list[Transferred] = field(default_factory=list)
    log: Transferred | None = None
    log_problem: str = ""
    job_report: str = ""
    stdout_tail: str = ""
    extract: str = ""
    spent_s: dict[Phase, float] = field(default_factory=dict)
    delivered: bool = False

    def fail(self, code: ErrorCode, diagnosis: str) -> None:
        """Note why the job failed; the first reason stays."""
        if self.failure is None:
            self.failure = Failure(code, diagnosis)

    def spend(self, phase: Phase, seconds: float) -> None:
        """Add to the time that a phase took."""
        self.spent_s[phase] = self.spent_s.get(phase, 0.0) + seconds

    @property
    def cpu_s(self) -> float:
        """Return the CPU time used, the final count where there is one."""
        return self.payload.cpu_s if self.payload else self.measured.cpu_s

    def executable_error(self) -> tuple[int, str]:
        """Return exit code and message that the payload itself wrote into its report; 0 where there is none."""
        try:
            report = json.loads(self.job_report)
            return int(report["exitCode"]), str(report.get("exitMsg") or "")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return 0, ""
