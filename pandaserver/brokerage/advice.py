"""The cheapest change that would let a job run: the smallest relaxation of its wish that makes some queue fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pandaserver.brokerage.criteria import refusals
from pandaserver.model.choice import Advice, Change, Snapshot, Wish
from pandaserver.model.grid import Queue


@dataclass(frozen=True)
class _Way:
    """How a queue could be made to fit; `closed` says what else stands against it, which may pass."""

    queue: str
    changes: tuple[Change, ...]
    closed: str = ""

    @property
    def cost(self) -> tuple[float, str]:
        """Order ways by how much they hurt."""
        return sum(change.cost for change in self.changes), self.queue


def changed(wish: Wish, changes: tuple[Change, ...]) -> Wish:
    """Give the wish with changes made."""
    values: dict[str, Any] = {change.field: change.value for change in changes}
    return replace(wish, **values) if values else wish


def advise(wish: Wish, snapshot: Snapshot) -> Advice | None:
    """Say what to change or what to wait for; None when a queue fits as it is, or when nothing would help."""
    found = [_way(wish, queue, snapshot) for queue in snapshot.topology.queues.values()]
    ways = sorted((way for way in found if way is not None), key=lambda way: way.cost)
    at_once = next((way for way in ways if not way.closed), None)
    if at_once is not None and not at_once.changes:
        return None
    later = next((way for way in ways if way.closed), None)
    patience = later if later is not None and not later.changes else None
    if at_once is not None:
        text = f"{_text(at_once)}; then {at_once.queue} can take the job"
        return Advice(f"{text}. Or {_wait(patience)}" if patience else text, at_once.queue, at_once.changes)
    if later is None:
        return None
    return Advice(_wait(later) if patience else f"{_text(later)}, and {_wait(later)}", later.queue, later.changes)


def _text(way: _Way) -> str:
    return " and ".join(change.text for change in way.changes)


def _wait(way: _Way) -> str:
    return f"wait for {way.queue}: {way.closed}"


def _way(wish: Wish, queue: Queue, snapshot: Snapshot) -> _Way | None:
    """Find what has to change for one queue; None when that is not in the hands of the user."""
    made = dict[str, Change]()
    while True:
        against = refusals(changed(wish, tuple(made.values())), queue, snapshot)
        if any(r.change is None and not r.passing for r in against):
            return None
        open_to_change = [r.change for r in against if r.change is not None]
        if not open_to_change:
            return _Way(queue.name, tuple(made.values()), "; ".join(r.reason for r in against))
        made |= {change.field: change for change in open_to_change}  # one that is made may bring another to light
