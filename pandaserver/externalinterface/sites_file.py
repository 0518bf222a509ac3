"""The sites file of a running server: read at the start and whenever it has changed; a wrong one changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from pandaserver.externalinterface.sites import Mistake, SitesError, load_topology
from pandaserver.externalinterface.words import counted
from pandaserver.model.grid import Source, Topology
from pandaserver.model.gridchange import Change
from pandaserver.taskbuffer import sources, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

LOOK_S = 2.0
_MOST_LOGGED = 100
_Signature = tuple[int, int, int] | None  # None: there is no file


class SitesFile:
    """Keeps the database in step with the file; every process looks for itself, the first one loads it.

    A changed file is taken when it is the same in two looks, so that one that is being written is not read half.
    """

    def __init__(self, buffer: TaskBuffer, path: Path, *, needed: Collection[str] = ()) -> None:
        """Look at nothing yet; `needed` are queues that other parts of the configuration name."""
        self._buffer, self._path, self._needed = buffer, path, frozenset(needed)
        self._seen: _Signature = None
        self._loaded: _Signature = None

    def begin(self) -> None:
        """Load it at the start of a server.

        Raises:
            SitesError: it is wrong, and the database has no grid with which the server could go on.
        """
        self._seen = self._loaded = self._signature()
        try:
            self._load()
        except SitesError as error:
            if not topology.of(self._buffer).queues:
                raise
            self._note_problem(error)

    def look(self) -> bool:
        """Load it if it has changed; say whether it had."""
        now = self._signature()
        settled, self._seen = now == self._seen, now
        if now == self._loaded or not settled:
            return False
        try:
            self._load()
        except SitesError as error:
            self._note_problem(error)
        self._loaded = now
        return True

    def _signature(self) -> _Signature:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> None:
        wanted = load_topology(self._path)

        def work(connection: Connection) -> Sequence[Change]:
            self._check_needed(connection, wanted)
            now = self._buffer.now()
            changes = topology.apply(connection, wanted, source=Source.FILE, now=now)
            sources.note_read(connection, Source.FILE, str(self._path), now=now, changes=[*map(str, changes)])
            return changes

        changes = self._buffer.run(work)
        topology.forget()
        log_changes(str(self._path), changes)

    def _check_needed(self, connection: Connection, wanted: Topology) -> None:
        missing = self._needed - set(wanted.queues)
        missing -= topology.described_elsewhere(connection, Source.FILE) if missing else set()
        if missing:
            raise SitesError([_still_needed(self._path, name) for name in sorted(missing)])

    def _note_problem(self, error: SitesError) -> None:
        """Tell operators, and go on with what was there before."""
        said = counted(len(error.mistakes), "mistake")
        log.error("%s in %s, which changes nothing now: what it said before holds", said, self._path)
        for mistake in error.mistakes[:_MOST_LOGGED]:
            log.error("%s", mistake)
        now = self._buffer.now()
        self._buffer.run(
            lambda c: sources.note_problem(c, Source.FILE, str(self._path), now=now, problem=error.message)
        )


def _still_needed(path: Path, name: str) -> Mistake:
    text = f"{path}: [queue {name}] is gone, and [retry] rules name it: keep it, status = offline, or change the rules"
    return Mistake(str(path), "queue", name, text)


def log_changes(place: str, changes: Sequence[Change]) -> None:
    """Write into the log what changed in the grid."""
    for change in changes[:_MOST_LOGGED]:
        log.info("%s: %s", place, change)
    more = len(changes) - _MOST_LOGGED
    if changes:
        not_shown = f", {more} of them not shown" if more > 0 else ""
        log.info("%s is in force, %s%s", place, counted(len(changes), "change"), not_shown)
