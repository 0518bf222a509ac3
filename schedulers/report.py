"""What a cycle saw and did, for people as a table and for programs as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from schedulers.policy import Decision

TITLES = ("QUEUE", "STATUS", "ACTIVATED", "PENDING", "RUNNING", "SENT", "REASON")
LEFT = frozenset({"QUEUE", "STATUS", "REASON"})


@dataclass(frozen=True)
class QueueReport:
    """One queue in one cycle; None stands for what nobody could say."""

    queue: str
    decision: Decision
    status: str | None = None
    activated: int | None = None
    pending: int | None = None
    running: int | None = None
    sent: int = 0
    problem: str = ""


@dataclass(frozen=True)
class CycleReport:
    """One cycle; `problem` says why it could not be done."""

    at: datetime
    queues: tuple[QueueReport, ...]
    problem: str = ""
    dry_run: bool = False

    def as_json(self) -> dict[str, Any]:
        """Give it with all steps of all decisions."""
        return {
            "at": self.at.isoformat(),
            "problem": self.problem or None,
            "dry_run": self.dry_run,
            "queues": [_queue_json(report) for report in self.queues],
        }

    def as_table(self) -> str:
        """Give an aligned line per queue under a line of titles."""
        rows = [TITLES, *(_row(report, dry_run=self.dry_run) for report in self.queues)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(_line(row, widths) for row in rows)


def _queue_json(report: QueueReport) -> dict[str, Any]:
    content = asdict(report)
    decision = content.pop("decision")
    return {**content, "problem": report.problem or None, "wanted": decision["n"], "reasons": list(decision["steps"])}


def _row(report: QueueReport, *, dry_run: bool) -> tuple[str, ...]:
    numbers = [_shown(value) for value in (report.status, report.activated, report.pending, report.running)]
    sent = f"({report.decision.n})" if dry_run else str(report.sent)
    return (report.queue, *numbers, sent, report.problem or report.decision.reason)


def _shown(value: str | int | None) -> str:
    return "?" if value is None else str(value)


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    cells = zip(TITLES, row, widths, strict=True)
    return "  ".join(cell.ljust(width) if title in LEFT else cell.rjust(width) for title, cell, width in cells).rstrip()
