"""Who is banned, as this process knows it: looked up anew every few seconds, not with every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pandaserver.errors import NotAllowed
from pandaserver.taskbuffer import users
from pandaserver.taskbuffer.buffer import TaskBuffer

REMEMBER_S = 5.0


class Bans:
    """The list of banned DNs."""

    def __init__(self, buffer: TaskBuffer, clock: Callable[[], float] = time.monotonic) -> None:
        self._buffer, self._clock = buffer, clock
        self._banned: frozenset[str] | None = None
        self._until = -1.0
        self._lock = threading.Lock()

    def check(self, dn: str) -> None:
        """Let somebody pass.

        Raises:
            NotAllowed: an operator has banned this DN.
        """
        if dn in self._known():
            text = f"{dn} may not make calls: the user is disabled (banned by the server's operators)"
            raise NotAllowed(text, field="certificate", value=dn)

    def _known(self) -> frozenset[str]:
        with self._lock:
            if self._banned is None:
                self._banned = self._look()
            now = self._clock()
            if now < self._until:
                return self._banned
            self._until = now + REMEMBER_S  # the others go on with what was known, while this one looks
        found = self._look()
        with self._lock:
            self._banned = found
        return found

    def _look(self) -> frozenset[str]:
        return frozenset(self._buffer.read(users.banned))
