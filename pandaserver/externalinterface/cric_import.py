"""Brings queue and storage data as CRIC publishes them into the database: by hand, or again and again as a duty."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from pandaserver.errors import ConfigError, NotAvailable, PandaError
from pandaserver.externalinterface.cric import Found, read_endpoints, read_queues
from pandaserver.externalinterface.safejson import read_json
from pandaserver.externalinterface.sites import Mistake
from pandaserver.externalinterface.sites_file import log_changes
from pandaserver.externalinterface.words import counted
from pandaserver.model.grid import Source, Topology
from pandaserver.model.gridchange import Change
from pandaserver.taskbuffer import sources, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection

log = logging.getLogger(__name__)

_TIMES_S = (10.0, 60.0)  # to connect, and for each piece of the answer
_LARGEST = 64 * 1024 * 1024
_PIECE = 256 * 1024
_TOLD = 20


@dataclass(frozen=True)
class Imported:
    """What an import changed, or would change; which entries are wrong; which the sites file describes already."""

    changes: tuple[Change, ...]
    mistakes: tuple[Mistake, ...]
    from_file: tuple[str, ...]
    queues: int
    endpoints: int


@dataclass(frozen=True)
class CricImport:
    """An import from two places, each a file or an https URL; without endpoints those that are there are used."""

    buffer: TaskBuffer
    queues: str
    endpoints: str
    ca_dir: Path

    def run(self, *, dry: bool = False) -> Imported:
        """Import in one transaction, or tell only what that would change.

        Raises:
            ConfigError: what is there is no queue or storage data at all; nothing has changed.
            NotAvailable: it cannot be had now.
        """
        storage = read_endpoints(fetch(self.endpoints, self.ca_dir), self.endpoints) if self.endpoints else None
        document = fetch(self.queues, self.ca_dir)
        if dry:
            return self.buffer.read(lambda c: self._import(c, document, storage, dry=True))
        done = self.buffer.run(lambda c: self._import(c, document, storage, dry=False))
        topology.forget()
        log_changes(self.queues, done.changes)
        return done

    def run_once(self) -> int:
        """Import as a duty: what goes wrong is noted for operators; tell how much changed."""
        try:
            done = self.run()
        except PandaError as error:
            log.error("nothing imported from %s: %s", self.queues, error.message)
            now = self.buffer.now()
            text = error.message
            self.buffer.run(lambda c: sources.note_problem(c, Source.CRIC, self.queues, now=now, problem=text))
            return 0
        for mistake in done.mistakes[:_TOLD]:
            log.warning("%s", mistake)
        return len(done.changes)

    def _import(self, connection: Connection, document: Any, storage: Found | None, *, dry: bool) -> Imported:
        before = topology.endpoints_of(connection, Source.CRIC)
        kept = before if storage is None else before & storage.bad
        new = storage.entries if storage else {}
        usable = topology.endpoints_of(connection, Source.FILE) | kept | set(new)
        found = read_queues(document, self.queues, usable)
        wanted = Topology(queues=dict(found.entries), endpoints=dict(new))
        others = topology.described_elsewhere(connection, Source.CRIC)
        mistakes = (*(storage.mistakes if storage else ()), *found.mistakes)
        if dry:
            changes = topology.differences(connection, wanted, source=Source.CRIC, keep=kept | found.bad)
        else:
            changes = self._apply(connection, wanted, kept | found.bad, mistakes)
        return Imported(
            changes,
            mistakes,
            tuple(sorted(others & (set(found.entries) | set(new)))),
            queues=len(found.entries),
            endpoints=len(new),
        )

    def _apply(
        self, connection: Connection, wanted: Topology, keep: Collection[str], mistakes: Collection[Mistake]
    ) -> tuple[Change, ...]:
        now = self.buffer.now()
        changes = topology.apply(connection, wanted, source=Source.CRIC, now=now, keep=keep)
        problem = f"{counted(len(mistakes), 'entry', 'entries')} left out\n{shown(mistakes)}" if mistakes else ""
        told = [str(change) for change in changes]
        sources.note_read(connection, Source.CRIC, self.queues, now=now, changes=told, problem=problem)
        return changes


def shown(mistakes: Collection[Mistake]) -> str:
    """Write mistakes one below the other, not too many of them."""
    lines = [str(mistake) for mistake in mistakes]
    return "\n".join([*lines[:_TOLD], *([f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else [])])


def fetch(place: str, ca_dir: Path) -> Any:
    """Read a JSON document from a file or an https URL, whose certificate is verified.

    Raises:
        ConfigError: it is not JSON, too large, or the place is neither a file nor an https URL.
        NotAvailable: it cannot be had now.
    """
    if "://" in place and not place.startswith("https://"):
        raise ConfigError(f"{place}: a file or an https URL is expected", field="cric", value=place)
    content = _download(place, ca_dir) if "://" in place else _file(Path(place))
    try:
        return read_json(content)
    except ValueError as error:
        raise ConfigError(f"{place} is no JSON that can be used: {error}", field="cric", value=place) from error


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _not_too_large(str(path), file.read(_LARGEST + 1))
    except OSError as error:
        raise NotAvailable(f"cannot read {path}: {error.strerror}", field="cric", value=path) from error


def _download(url: str, ca_dir: Path) -> bytes:
    content = b""
    try:
        with requests.Session() as session:
            session.trust_env = False
            options: dict[str, Any] = {"verify": str(ca_dir), "timeout": _TIMES_S, "allow_redirects": False}
            with session.get(url, stream=True, **options) as answer:
                if answer.status_code != requests.codes.ok:
                    raise NotAvailable(f"{url} answers with HTTP status {answer.status_code}", field="cric", value=url)
                for piece in answer.iter_content(_PIECE):
                    content = _not_too_large(url, content + piece)
    except (requests.RequestException, OSError) as error:
        raise NotAvailable(f"cannot get {url}: {error}", field="cric", value=url) from error
    return content


def _not_too_large(place: str, content: bytes) -> bytes:
    if len(content) > _LARGEST:
        raise ConfigError(f"{place} has more than {_LARGEST} bytes", field="cric", value=place)
    return content
