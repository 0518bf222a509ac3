"""What differs between two descriptions of the grid, in words that people read in logs and in previews."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pandaserver.model.grid import Topology

_LONGEST = 80


class What(StrEnum):
    """What happened to an entry."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class Change:
    """One queue, endpoint or link that differs; `keys` has what it was and is, where it was there before and after."""

    kind: str  # queue, endpoint, link
    name: str
    what: What
    keys: tuple[tuple[str, Any, Any], ...] = ()

    def __str__(self) -> str:
        said = "; ".join(_difference(*key) for key in self.keys)
        return f"{self.kind} {self.name} {self.what}" + (f": {said}" if said else "")


def compare(before: Topology, after: Topology) -> tuple[Change, ...]:
    """List what was added, removed and changed, by kind and name."""
    kinds = (
        ("queue", before.queues, after.queues),
        ("endpoint", before.endpoints, after.endpoints),
        ("link", _links(before), _links(after)),
    )
    return tuple(change for kind, old, new in kinds for change in _differences(kind, old, new))


@dataclass(frozen=True)
class _Link:
    at_once: int


def _links(grid: Topology) -> dict[str, _Link]:
    return {" ".join(link): _Link(number) for link, number in grid.links.items()}


def _differences(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield Change(kind, name, What.ADDED)
        elif name not in new:
            yield Change(kind, name, What.REMOVED)
        elif old[name] != new[name]:
            yield Change(kind, name, What.CHANGED, _keys(vars(old[name]), vars(new[name])))


def _keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    return tuple((key, old.get(key), value) for key, value in new.items() if old.get(key) != value)


def _difference(key: str, old: Any, new: Any) -> str:
    """Say of a list what came and went, of another value what it was and is."""
    if isinstance(old, tuple) and isinstance(new, tuple):
        came, went = [one for one in new if one not in old], [one for one in old if one not in new]
        signs = [*(f"+{_entry(one)}" for one in came), *(f"-{_entry(one)}" for one in went)]
        return f"{key} {_cut(' '.join(signs)) or 'in another order'}"
    return f"{key} {_shown(old)} -> {_shown(new)}"


def _entry(one: Any) -> str:
    return f"{one[0]}={one[1]}" if isinstance(one, tuple) else str(one)


def _shown(value: Any) -> str:
    return _cut(str(value)) or "(none)"


def _cut(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
