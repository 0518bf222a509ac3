"""A thread that does something cheap again and again, in every process: what needs no lease."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Ticker:
    """Does `act` every `period_s`, whatever becomes of it."""

    def __init__(self, name: str, period_s: float, act: Callable[[], object]) -> None:
        self._name, self._period_s, self._act = name, period_s, act
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start in the background."""
        threading.Thread(target=self._loop, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Do it no more."""
        self._stopping.set()

    def _loop(self) -> None:
        while not self._stopping.wait(self._period_s):
            try:
                self._act()
            except Exception:
                log.exception("%s cannot be done, trying again", self._name)
