"""How much of one kind of work is taken at a time: enough to be cheap, and not so much that anything waits for long."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_S = 2.0  # a bunch shall take no longer, or its first piece would wait too long for its last
_FIRST_GUESS_S = 0.1  # a piece takes, of which nothing is known yet


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How many pieces of one kind of work make a bunch at most, and how long they may collect.

    The pause lets pieces collect that come one by one all the time. It follows the beginning of a bunch: the first
    piece after a silence is done at once; and there is none as long as there is more to do than a bunch takes.
    """

    at_once: int = 1
    pause_s: float = 0.0


class Pace:
    """The pace of one kind of work in one process; it is told the time, and has no thread of its own."""

    def __init__(self, measure: Measure, threads: int) -> None:
        """Let at most so many threads do this kind of work; where they do full bunches quickly, half of them."""
        self._measure, self._threads = measure, threads
        self._piece_s, self._not_before_s, self._running = _FIRST_GUESS_S, 0.0, 0

    @property
    def largest(self) -> int:
        """Say how many pieces make a full bunch: fewer where each takes long."""
        return max(1, min(self._measure.at_once, int(_LONGEST_S / self._piece_s)))

    @property
    def _free(self) -> int:
        quick = 1 < self._measure.at_once == self.largest
        return (max(1, self._threads // 2) if quick else self._threads) - self._running

    def room(self, now_s: float) -> int:
        """Say how many pieces may be begun now."""
        if self._free <= 0 or now_s < self._not_before_s:
            return 0
        return self._free if self._measure.at_once == 1 else self.largest

    def pause_left_s(self, now_s: float) -> float:
        """Say how long nothing may be begun."""
        return max(0.0, self._not_before_s - now_s)

    def begun(self, pieces: int, now_s: float) -> bool:
        """Note that a bunch was begun; give True where more may follow at once."""
        full = pieces >= self.largest
        self._running += 1
        self._not_before_s = now_s if full else now_s + self._measure.pause_s
        return full and self._free > 0

    def ended(self, pieces: int, seconds: float) -> None:
        """Note that a bunch has ended, and how long it took."""
        self._running -= 1
        self._piece_s = max(seconds / pieces, 1e-6)
