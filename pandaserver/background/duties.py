"""Periodic duties: each is done by whichever process gets its lease in the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pandaserver import log as logs
from pandaserver.background.pool import new_owner
from pandaserver.taskbuffer import duties
from pandaserver.taskbuffer.buffer import TaskBuffer

log = logging.getLogger(__name__)

_LOOK_S = 1.0


@dataclass(frozen=True)
class Duty:
    """Something to be done every `period_s` by one process; `run` tells how much it did."""

    name: str
    period_s: float
    run: Callable[[], int]

    @property
    def lease_s(self) -> float:
        """Say how long a process may be silent before another takes the duty over."""
        return max(3 * self.period_s, 30.0)


class DutyRoster:
    """Looks every second which duties are due."""

    def __init__(self, buffer: TaskBuffer, roster: Sequence[Duty]) -> None:
        self._buffer, self._roster = buffer, roster
        self._owner = new_owner()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start in the background."""
        threading.Thread(target=self._loop, name="duties", daemon=True).start()

    def stop(self) -> None:
        """Start no more duties."""
        self._stopping.set()

    def run_due(self) -> int:
        """Do every duty that is due and free, here; tell how many were done."""
        return sum(self._try(duty) for duty in self._roster)

    def _loop(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            try:
                self.run_due()
            except Exception:
                log.exception("duties cannot be looked at, trying again")

    def _try(self, duty: Duty) -> bool:
        now = self._buffer.now()
        if not self._buffer.read(lambda c: duties.is_due(c, duty.name, now=now)):
            return False
        if not self._buffer.run(lambda c: duties.take(c, duty.name, self._owner, now=now, lease_s=duty.lease_s)):
            return False
        with logs.context(f"duty {duty.name}"):
            result = self._do(duty)
        after = self._buffer.now()
        self._buffer.run(
            lambda c: duties.give_back(c, duty.name, self._owner, now=after, period_s=duty.period_s, result=result)
        )
        return True

    def _do(self, duty: Duty) -> str:
        try:
            return f"{duty.run()} done"
        except Exception as error:
            log.exception("duty failed")
            return f"failed: {error}"
