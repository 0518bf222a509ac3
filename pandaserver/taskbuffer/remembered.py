"""What a process remembers of the database for a few seconds, so that constants are not read with every request.

Nothing is right or wrong because of what is remembered here: it is of the kind that other processes, too, may learn a
few seconds late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Engine

T = TypeVar("T")


class Remembered(Generic[T]):
    """Values by name, for each database by itself; read again when they are older than `for_s`."""

    def __init__(self, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._for_s, self._clock = for_s, clock
        self._known: WeakKeyDictionary[Engine, dict[str, tuple[float, T]]] = WeakKeyDictionary()

    def get(self, engine: Engine, name: str, read: Callable[[], T]) -> T:
        """Give what is remembered, else what `read` gives, which is remembered unless it is None."""
        known = self._known.setdefault(engine, {})  # what is forgotten while `read` reads goes nowhere
        held, now = known.get(name), self._clock()
        if held is not None and now < held[0]:
            return held[1]
        found = read()
        if found is not None:
            known[name] = (now + self._for_s, found)
        return found

    def forget(self) -> None:
        """Forget everything, of all databases."""
        self._known = WeakKeyDictionary()
