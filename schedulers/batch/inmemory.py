"""A batch system made of a dictionary and somebody else's clock, for tests and simulations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from schedulers.batch.protocol import (
    BATCH_ID_MARK,
    LIVE,
    BatchId,
    BatchState,
    PilotCounts,
    PilotLogs,
    PilotRequest,
    PilotStatus,
)
from schedulers.errors import BatchUnknown, PilotNotKnown

Life = Callable[[PilotRequest], tuple[float, int] | None]


@dataclass(frozen=True)
class Pilot:
    """One pilot: what was asked for and where it is."""

    request: PilotRequest
    status: PilotStatus


class InMemoryBatch:
    """Obeys the protocol; `life` gives the seconds and the exit code of a pilot, None for one that does not end."""

    def __init__(
        self, slots: Mapping[str, int], now: Callable[[], datetime], *, life: Life = lambda _request: None
    ) -> None:
        self.pilots: dict[BatchId, Pilot] = {}
        self.answers = True
        self._slots = slots
        self._now = now
        self._life = life
        self._last_id = 0

    def submit(self, count: int, request: PilotRequest) -> tuple[BatchId, ...]:
        """Add pilots."""
        self._move_on()
        ids = tuple(f"pilot-{self._last_id + number}" for number in range(1, count + 1))
        self._last_id += count
        for batch_id in ids:
            argv = tuple(word.replace(BATCH_ID_MARK, batch_id) for word in request.argv)
            self.pilots[batch_id] = Pilot(replace(request, argv=argv), PilotStatus(BatchState.PENDING))
        self._move_on()
        return ids

    def poll(self, ids: Sequence[BatchId]) -> dict[BatchId, PilotStatus]:
        """Look the pilots up."""
        self._move_on()
        gone = PilotStatus(BatchState.UNKNOWN)
        return {i: self.pilots[i].status if i in self.pilots else gone for i in ids}

    def counts(self) -> dict[str, PilotCounts]:
        """Count the live pilots."""
        self._move_on()
        found = Counter((pilot.request.queue, pilot.status.state) for pilot in self.pilots.values())
        queues = {pilot.request.queue for pilot in self.pilots.values() if pilot.status.state in LIVE}
        return {q: PilotCounts(found[q, BatchState.PENDING], found[q, BatchState.RUNNING]) for q in queues}

    def live(self) -> dict[BatchId, str]:
        """List the live pilots."""
        self._move_on()
        return {i: pilot.request.queue for i, pilot in self.pilots.items() if pilot.status.state in LIVE}

    def cancel(self, ids: Sequence[BatchId]) -> None:
        """End pilots at once."""
        self._move_on()
        for batch_id in ids:
            if batch_id in self.pilots and self.pilots[batch_id].status.state in LIVE:
                self._set(batch_id, BatchState.REMOVED, ended_at=self._now())
        self._move_on()

    def logs(self, batch_id: BatchId) -> PilotLogs:
        """Name two files that do not exist."""
        if batch_id not in self.pilots:
            raise PilotNotKnown(f"no pilot {batch_id!r}")
        return PilotLogs(Path(batch_id, "stdout"), Path(batch_id, "stderr"))

    def finish(self, batch_id: BatchId, exit_code: int = 0, *, at: datetime | None = None) -> None:
        """Let a pilot end, as its own doing."""
        state = BatchState.DONE if exit_code == 0 else BatchState.FAILED
        self._set(batch_id, state, exit_code=exit_code, ended_at=at or self._now())

    def _set(
        self, batch_id: BatchId, state: BatchState, *, exit_code: int | None = None, ended_at: datetime | None = None
    ) -> None:
        pilot = self.pilots[batch_id]
        status = replace(pilot.status, state=state, native=state.value, exit_code=exit_code, ended_at=ended_at)
        self.pilots[batch_id] = replace(pilot, status=status)

    def _move_on(self) -> None:
        if not self.answers:
            raise BatchUnknown("the batch system does not answer")
        for batch_id, pilot in self.pilots.items():
            self._end_when_due(batch_id, pilot)
        busy = Counter(p.request.queue for p in self.pilots.values() if p.status.state is BatchState.RUNNING)
        for batch_id, pilot in self.pilots.items():
            queue = pilot.request.queue
            if pilot.status.state is BatchState.PENDING and busy[queue] < self._slots.get(queue, 0):
                busy[queue] += 1
                status = PilotStatus(BatchState.RUNNING, "running", started_at=self._now())
                self.pilots[batch_id] = replace(pilot, status=status)

    def _end_when_due(self, batch_id: BatchId, pilot: Pilot) -> None:
        life = self._life(pilot.request) if pilot.status.state is BatchState.RUNNING else None
        if life is None or pilot.status.started_at is None:
            return
        due = pilot.status.started_at + timedelta(seconds=life[0])
        if due <= self._now():
            self.finish(batch_id, life[1], at=due)
