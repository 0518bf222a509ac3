"""What a batch system must be able to do for the scheduler: the contract that every back end obeys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

BatchId = str

BATCH_ID_MARK = "{batch_id}"
"""Stands in the words of a request for the id that only the batch system can know; the back end fills it in."""


class BatchState(StrEnum):
    """Where a pilot is, in the words common to all back ends."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REMOVED = "removed"
    UNKNOWN = "unknown"
    """The batch system does not remember it: gone, which is neither well nor badly ended."""


LIVE = frozenset({BatchState.PENDING, BatchState.RUNNING})


@dataclass(frozen=True)
class PilotRequest:
    """One kind of pilot, of which any number can be sent."""

    queue: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    work_dir: Path | None = None


@dataclass(frozen=True)
class PilotStatus:
    """What the batch system says about one pilot; the exit code tells of the pilot, never of its jobs."""

    state: BatchState
    native: str = ""
    reason: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def lived_s(self, now: datetime) -> float:
        """How long it has been running, or ran; 0 when it never started."""
        if self.started_at is None:
            return 0.0
        return ((self.ended_at or now) - self.started_at).total_seconds()


@dataclass(frozen=True)
class PilotCounts:
    """The pilots of one queue that are waiting or working; one that is held counts as pending."""

    pending: int = 0
    running: int = 0

    @property
    def alive(self) -> int:
        """All that occupy the batch system."""
        return self.pending + self.running


@dataclass(frozen=True)
class PilotLogs:
    """Where the batch system put the words of one pilot."""

    stdout: Path
    stderr: Path


@dataclass(frozen=True)
class BatchSettings:
    """What a back end is opened with; `look_only` forbids it every change, for rehearsals."""

    state_dir: Path
    scheduler_id: str
    slots: Mapping[str, int]
    command_prefix: tuple[str, ...] = ()
    stop_grace_s: float = 30.0
    keep_logs_s: float = 86400.0
    look_only: bool = False


class BatchSystem(Protocol):
    """The batch system as one scheduler sees it: all calls are bulk, and only this scheduler's pilots appear.

    Every call raises `BatchUnknown` when the batch system cannot be asked. It never answers «none» instead.
    """

    def submit(self, count: int, request: PilotRequest) -> tuple[BatchId, ...]:
        """Send `count` pilots of one kind and give back the ids of those that were accepted.

        1. Tag each with the queue and with this scheduler, so that `counts` and `live` find it after a restart.
        2. Replace `BATCH_ID_MARK` in the words of the command by the pilot's own id.
        3. Return at once; the pilots may wait for as long as they have to.
        Sends new pilots each time: the one call that may not be repeated blindly.
        """

    def poll(self, ids: Sequence[BatchId]) -> dict[BatchId, PilotStatus]:
        """Say where each pilot is.

        1. Answer for every id asked; one that is no longer remembered is `BatchState.UNKNOWN`.
        2. Translate the native state by one literal table, and keep the native word beside ours.
        May be called twice: it changes nothing that the caller can see.
        """

    def counts(self) -> dict[str, PilotCounts]:
        """Count the live pilots by queue tag.

        1. Ask the batch system, not memory.
        2. A queue without live pilots may be absent.
        May be called twice.
        """

    def live(self) -> dict[BatchId, str]:
        """List the live pilots with their queue tag, so that a new scheduler process can adopt them.

        May be called twice.
        """

    def cancel(self, ids: Sequence[BatchId]) -> None:
        """Remove pilots, waiting or running.

        1. One that waits never starts; one that runs is asked to stop, and made to when it does not.
        2. Touch nothing but these pilots; ids that are unknown or ended are passed over in silence.
        May be called twice.
        """

    def logs(self, batch_id: BatchId) -> PilotLogs:
        """Say where the output of a pilot is; raise `PilotNotKnown` for one that is no longer remembered.

        May be called twice.
        """
