"""Storage back ends: how bytes come from and go to a URL, one implementation per URL scheme."""

from __future__ import annotations

import hashlib
import os
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from pandapilot.clock import Tick
from pandapilot.files import create, open_regular

CHUNK_BYTES = 1024 * 1024
LONGEST_STAGED_NAME = 200


@dataclass(frozen=True)
class FileFacts:
    """By what a copy is recognised as complete."""

    size_bytes: int
    adler32: str


class StorageProtocol(Protocol):
    """A way to storage; every call may be repeated, and calls tick every now and then while it works."""

    def exists(self, url: str) -> bool:
        """Tell whether there is a file at the URL."""

    def get(self, url: str, target: Path, tick: Tick) -> FileFacts:
        """Copy a file here.

        1. target must not exist before; 2. on an error nothing is left of it; 3. the facts are those of the bytes
        that were written; 4. errors are OSError.
        """

    def put(self, source: Path, url: str, tick: Tick) -> FileFacts:
        """Copy a file there.

        1. The name appears only with the whole content, read back and compared; 2. an older file of that name is
        replaced; 3. on an error nothing new is left; 4. errors are OSError.
        """


class LocalStorage:
    """Storage that is mounted here as a directory: file://localhost/path."""

    def exists(self, url: str) -> bool:
        """Tell whether there is a file at the URL."""
        return _local_path(url).is_file()

    def get(self, url: str, target: Path, tick: Tick) -> FileFacts:
        """Copy a file here."""
        with _local_path(url).open("rb") as source, create(target) as sink:
            try:
                return _copy(source, sink, tick)
            except BaseException:
                target.unlink()
                raise

    def put(self, source: Path, url: str, tick: Tick) -> FileFacts:
        """Copy a file there under a temporary name, compare, and rename."""
        target = _local_path(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.name.encode()[:LONGEST_STAGED_NAME].decode(errors="ignore")
        part = target.parent / f".{name}.{uuid.uuid4().hex}.part"
        try:
            with open_regular(source) as stream, create(part, mode=0o644) as sink:
                facts = _copy(stream, sink, tick)
                os.fsync(sink.fileno())
            if facts_of(part, tick) != facts:
                raise OSError(f"{target} does not read back as it was written")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return facts


STORAGES: Mapping[str, StorageProtocol] = {"file": LocalStorage()}


def storage_for(url: str) -> StorageProtocol:
    """Choose the back end by the scheme of the URL; raises OSError for one that has none."""
    scheme = urlsplit(url).scheme
    if scheme not in STORAGES:
        raise OSError(f"no storage back end for {url!r}; known are: {', '.join(sorted(STORAGES))}")
    return STORAGES[scheme]


def deterministic_path(scope: str, lfn: str) -> str:
    """Return the place of a file below the root of an endpoint, spread over directories by a hash of its name."""
    digest = hashlib.md5(f"{scope}:{lfn}".encode(), usedforsecurity=False).hexdigest()
    return f"{scope.replace('.', '/')}/{digest[0:2]}/{digest[2:4]}/{lfn}"


def staged_path(scope: str, lfn: str, suffix: str) -> str:
    """Return where a file waits beside its place until the server puts it there; long names are cut to leave room."""
    folder = deterministic_path(scope, lfn).rpartition("/")[0]
    return f"{folder}/{lfn[: LONGEST_STAGED_NAME - len(suffix)]}{suffix}"


def facts_of(path: Path, tick: Tick) -> FileFacts:
    """Read a file to its end for size and checksum."""
    with path.open("rb") as stream:
        return _copy(stream, None, tick)


def _copy(source: BinaryIO, sink: BinaryIO | None, tick: Tick) -> FileFacts:
    size, checksum = 0, 1
    while chunk := source.read(CHUNK_BYTES):
        tick()
        size += len(chunk)
        checksum = zlib.adler32(chunk, checksum)
        if sink is not None:
            sink.write(chunk)
    if sink is not None:
        sink.flush()
    return FileFacts(size_bytes=size, adler32=f"{checksum:08x}")


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.hostname not in (None, "localhost") or not path.startswith("/") or ".." in path.split("/"):
        raise OSError(f"{url!r} must look like file://localhost/path")
    return Path(path)
