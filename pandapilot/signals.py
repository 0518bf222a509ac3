"""Signals to the pilot: remembered when they come, and acted upon at the next safe place."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pandapilot.codes import SIGNAL_CODES
from pandapilot.failures import Interrupted

logger = logging.getLogger(__name__)


class Signals:
    """Remembers the first signal received; a second one does not disturb the work of ending."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self.received: int | None = None
        self._raised = self._waiting = False

    def install(self) -> None:
        """Take over the signals by which batch systems and people stop a pilot, whatever the parent had set."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take the payload's exit code from us
        for number in SIGNAL_CODES:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            if self._waiting:
                self.check()

    @contextmanager
    def ending_the_wait(self) -> Iterator[None]:
        """Let a signal raise Interrupted at once: only where the pilot holds nothing and waits for long."""
        self.check()
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def check(self) -> None:
        """Raise Interrupted, once, if a signal was received."""
        if self.received is not None and not self._raised:
            self._raised = True
            logger.warning("received %s: ending", signal.Signals(self.received).name)
            raise Interrupted(self.received)
