"""The heartbeat of a job: keeps its lease, brings the server's commands, and knows when the lease is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pandapilot.clock import Clock, delays
from pandapilot.codes import ErrorCode
from pandapilot.failures import AttemptStale, JobFailure, LeaseExpired, ServerRefused, ServerUnreachable
from pandapilot.server import UpdateAnswer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """For how long a job is ours without a word to the server, and how often we give word."""

    begun: float
    length_s: float
    interval_s: float
    stop_s: float  # so long before its end the work stops

    @staticmethod
    def of(begun: float, *, length_s: float, interval_s: float, kill_grace_s: float) -> Lease:
        """Leave room for three beats in a lease and for stopping the payload before its end."""
        return Lease(
            begun=begun,
            length_s=length_s,
            interval_s=min(interval_s, length_s / 3),
            stop_s=min(kill_grace_s + 5.0, length_s / 4),
        )


class Heartbeat:
    """Sends an update whenever one is due; a failed one is soon sent again."""

    def __init__(self, send: Callable[[], UpdateAnswer], lease: Lease, clock: Clock) -> None:
        """Begin with a beat that is due at once."""
        self._send = send
        self._lease = lease
        self._clock = clock
        self._renewed = lease.begun
        self._due = clock.now()
        self._delays: Iterator[float] = delays()

    def soon(self) -> None:
        """Make a beat due now, because there is news."""
        self._due = self._clock.now()

    def tick(self, *, obey: bool = True) -> None:
        """Beat if it is time to; raises when the job is to be killed (if obey), is no longer ours, or may not be."""
        if self._clock.now() >= self._due:
            self._beat(obey=obey)
        silence_s = self._clock.now() - self._renewed
        if silence_s >= self._lease.length_s - self._lease.stop_s:
            raise LeaseExpired(
                f"no update got through for {silence_s:.0f} s; the lease is {self._lease.length_s:.0f} s"
            )

    def _beat(self, *, obey: bool) -> None:
        sent = self._clock.now()
        self._due = sent + self._lease.interval_s
        try:
            answer = self._send()
        except (ServerUnreachable, ServerRefused) as error:
            self._due = self._clock.now() + min(next(self._delays), self._lease.interval_s)
            logger.warning("heartbeat failed: %s", error)
            return
        self._delays = delays()
        if answer.accepted:
            self._renewed = sent  # not the time of the answer: the server counts from when it heard us
        elif answer.kill:
            raise AttemptStale("the server says that this attempt is no longer ours")
        if answer.kill and obey:
            raise JobFailure(ErrorCode.KILLED_BY_SERVER, "killed on the server's command")
