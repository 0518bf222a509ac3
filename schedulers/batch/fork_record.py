"""Reads the files of one fork job and says where it stands; the files are the only memory there is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from schedulers.batch.fork_job import CANCELLED, ENDED, JOB, STARTED, process_identity
from schedulers.batch.protocol import BatchState, PilotStatus

STATES: dict[str, BatchState] = {
    "waiting": BatchState.PENDING,
    "running": BatchState.RUNNING,
    "stopping": BatchState.RUNNING,
    "exited well": BatchState.DONE,
    "exited badly": BatchState.FAILED,
    "vanished": BatchState.FAILED,
    "withdrawn": BatchState.REMOVED,
    "stopped": BatchState.REMOVED,
}


@dataclass(frozen=True)
class ForkRecord:
    """What the files of one job say at one moment."""

    directory: Path
    queue: str
    native: str
    pid: int | None = None
    exit_code: int | None = None
    reason: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancelled_at: datetime | None = None

    @property
    def state(self) -> BatchState:
        """The state in the words of all back ends."""
        return STATES[self.native]

    def status(self) -> PilotStatus:
        """Tell it as the batch protocol wants it told."""
        return PilotStatus(
            self.state,
            self.native,
            reason=self.reason,
            exit_code=self.exit_code,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )


def read_record(directory: Path) -> ForkRecord:
    """Read one job; raises FileNotFoundError when there is none."""
    job = _read(directory / JOB)
    cancelled = read_optional(directory / CANCELLED)
    started = read_optional(directory / STARTED)
    # Life is looked at before the end is: a wrapper writes its last file and only then goes.
    alive = bool(started) and process_identity(started["pid"]) == started["identity"]
    ended = read_optional(directory / ENDED)
    native = _native(started=bool(started), alive=alive, cancelled=bool(cancelled), ended=ended)
    return ForkRecord(
        directory,
        job["queue"],
        native,
        pid=started["pid"] if alive else None,
        exit_code=ended.get("exit_code"),
        reason=ended.get("reason") or ("its process is gone without a word" if native == "vanished" else ""),
        started_at=_time(started.get("started_at")),
        ended_at=_time(ended.get("ended_at")),
        cancelled_at=_time(cancelled.get("cancelled_at")),
    )


def read_optional(path: Path) -> dict[str, Any]:
    """Read one of the files that appear in the course of a job's life; empty when it is not there yet."""
    try:
        return _read(path)
    except FileNotFoundError:
        return {}


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a JSON object is expected")
    return content


def _native(*, started: bool, alive: bool, cancelled: bool, ended: dict[str, Any]) -> str:
    if not started and not ended:
        return "withdrawn" if cancelled else "waiting"
    if alive and not ended:
        return "stopping" if cancelled else "running"
    if cancelled:
        return "stopped"
    if not ended:
        return "vanished"
    return "exited well" if ended["exit_code"] == 0 else "exited badly"


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
