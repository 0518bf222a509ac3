"""Jobs that are equal to the brokerage are answered together: which queues can take them, and why others cannot."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pandaserver.brokerage.advice import advise
from pandaserver.brokerage.criteria import PREFERENCES, not_tier1, refusal
from pandaserver.model.choice import Advice, Load, Refusal, Rejected, Request, Snapshot, Wish
from pandaserver.model.grid import Queue


@dataclass(frozen=True)
class Key:
    """What jobs have in common that are answered together."""

    wish: Wish
    tier1_bonus: bool
    tier1_only: bool


@dataclass(frozen=True)
class Answer:
    """What is the same for all jobs of a group."""

    fit: Mapping[str, Queue]
    rejected: tuple[Rejected, ...]
    may_pass: bool = False
    advice: Advice | None = None
    by_endpoint: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def key_of(request: Request, snapshot: Snapshot, harmless_mb: int | None) -> Key:
    """Say with whom a job is answered together; what makes no difference in this snapshot is left out.

    Args:
        harmless_mb: so much input every queue takes; None when no queue has a limit.
    """
    wish, rules = request.wish, snapshot.rules
    same: dict[str, object] = {}
    if wish.owner and not (rules.allow or rules.deny):
        same["owner"] = ""
    if wish.input_mb and (harmless_mb is None or wish.input_mb <= harmless_mb):
        same["input_mb"] = 0
    number = len(request.inputs)
    many = rules.tier1_only_inputs is not None and number >= rules.tier1_only_inputs
    urgent = rules.tier1_only_priority is not None and request.priority >= rules.tier1_only_priority
    return Key(
        replace(wish, **same) if same else wish,  # type: ignore[arg-type]
        tier1_bonus=number > rules.tier1_inputs or wish.input_mb > rules.tier1_input_mb,
        tier1_only=wish.production and (many or urgent),
    )


def answer(key: Key, snapshot: Snapshot) -> Answer:
    """Ask every queue; what is preferred counts as long as it leaves a queue."""
    grid, wish = snapshot.topology.queues, key.wish
    said = {name: refusal(wish, grid[name], snapshot) for name in sorted(grid)}
    against = {name: r for name, r in said.items() if r is not None}
    fit = [grid[name] for name, r in said.items() if r is None]
    for prefer in (*PREFERENCES, not_tier1) if key.tier1_only else PREFERENCES:
        dropped = prefer(wish, fit, snapshot)
        if rest := [queue for queue in fit if queue.name not in dropped]:
            against |= dropped
            fit = rest
    by_endpoint: dict[str, tuple[str, ...]] = {}
    for queue in fit:
        by_endpoint[queue.endpoint] = (*by_endpoint.get(queue.endpoint, ()), queue.name)
    return Answer(
        fit={queue.name: queue for queue in fit},
        rejected=_together(against),
        may_pass=not fit and any(r.passing for r in against.values()),
        advice=None if fit else advise(wish, snapshot),
        by_endpoint=by_endpoint,
    )


def _together(against: Mapping[str, Refusal]) -> tuple[Rejected, ...]:
    """Put queues together of which the same was said."""
    queues: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], Refusal] = {}
    for name, refused in against.items():
        mark = refused.criterion, refused.reason
        queues.setdefault(mark, []).append(name)
        first.setdefault(mark, refused)
    return tuple(
        Rejected(tuple(queues[mark]), one.criterion, one.reason, one.value, one.limit) for mark, one in first.items()
    )


class Scale:
    """The queues that can take the jobs of a group, always in the order of their weights."""

    def __init__(self, answer: Answer, tier1_bonus: float) -> None:
        """Weigh nothing yet; queues of Tier-1 are so much lighter."""
        self._fit, self._bonus = answer.fit, tier1_bonus
        self.weights: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []
        self.seen = 0  # of the choices of this round

    def weigh(self, name: str, load: Load) -> None:
        """Take account of the load of a queue."""
        if name not in self._fit:
            return
        if name in self.weights:
            del self._order[bisect_left(self._order, (self.weights[name], name))]
        value = load.weight / (self._bonus if self._fit[name].tier == 1 else 1.0)
        self.weights[name] = value
        insort(self._order, (value, name))

    def lightest(self, number: int, spread: float, lot: int) -> list[str]:
        """Give the lightest queues; where more are as good as the best, some of these by lot."""
        equal = bisect_right(self._order, (self._order[0][0] * (1 + spread), _LAST)) if spread else 0
        if equal <= number:
            return [name for _, name in self._order[:number]]
        start = lot % equal
        window = [self._order[(start + n) % equal] for n in range(number)]
        return [name for _, name in window]


_LAST = "\U0010ffff"  # after every name
