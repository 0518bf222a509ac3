"""Keeps the TLS context of the embedded server until one of its files changes: making one costs a connection dear."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

RECHECK_S = 1.0

_Seen = frozenset[tuple[str, int, int, int]]


class TlsContexts:
    """Gives a context; new files (host certificate, authorities, revocation lists) count within a second.

    A context remembers the authorities and lists that it has read, so a new one is made when any of the files changes.
    Files that cannot be used, because they are just being written, leave the old one in place.
    """

    def __init__(
        self,
        make: Callable[[], ssl.SSLContext],
        files: tuple[Path, ...],
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._files, self._directory, self._clock = make, files, directory, clock
        self._lock = threading.Lock()
        self._seen: _Seen = frozenset()
        self._context: ssl.SSLContext | None = None
        self._next_look = 0.0

    def current(self) -> ssl.SSLContext:
        """Give the context of the files as they are now.

        Raises:
            OSError: there was never a good one.
        """
        with self._lock:
            if self._context is None or self._clock() >= self._next_look:
                self._context = self._look(self._context)
                self._next_look = self._clock() + RECHECK_S
            return self._context

    def _look(self, old: ssl.SSLContext | None) -> ssl.SSLContext:
        try:
            seen = frozenset(self._stats())
            if old is None or seen != self._seen:
                old, self._seen = self._make(), seen
        except OSError:
            if old is None:
                raise
            log.exception("host certificate or authorities cannot be read anew: going on with what was read before")
        return old

    def _stats(self) -> Iterator[tuple[str, int, int, int]]:
        for path in (*self._files, *self._directory.iterdir()):
            found = path.stat()
            yield str(path), found.st_mtime_ns, found.st_size, found.st_ino
