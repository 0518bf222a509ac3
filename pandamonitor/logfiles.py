"""Looks into log tarballs at local endpoints. Who wrote them ran somebody's code: nothing in them is believed."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from pandamonitor.text import log_text
from pandaserver.errors import NotFound, PandaError
from pandaserver.model.grid import Endpoint

MAX_TARBALL_BYTES = 512 * 1024 * 1024
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
MAX_READ_BYTES = 1024 * 1024  # at once: headers that claim to be larger are lies
MAX_MEMBERS = 2000
SHOWN_BYTES = 256 * 1024


# all that tarfile and gzip raise when the bytes are not what they should be; headers can hold headers without end
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, RecursionError, ValueError, OverflowError)


class Unusable(PandaError):
    """The tarball is there and cannot be shown."""


@dataclass(frozen=True)
class Member:
    """One thing in a tarball."""

    number: int
    name: str
    size_bytes: int
    modified_at: datetime | None
    kind: str  # file, folder, link, other


@dataclass(frozen=True)
class Shown:
    """The text of a member, its end only when it is long."""

    member: Member
    text: str
    skipped_bytes: int
    binary: bool = False


def place(endpoint: Endpoint, scope: str, lfn: str) -> Path:
    """Give the place of a file at a local endpoint: root/scope/xx/yy/lfn, xx and yy from the MD5 of scope:lfn.

    Raises:
        NotFound: the endpoint is no local folder, or a part of the name would lead out of it.
    """
    url = urlsplit(endpoint.url)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise NotFound(f"endpoint {endpoint.name} is not a folder of this machine", field="endpoint")
    digest = hashlib.md5(f"{scope}:{lfn}".encode(errors="replace"), usedforsecurity=False).hexdigest()
    parts = [*scope.split("."), digest[0:2], digest[2:4], lfn]
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
        raise NotFound("scope or name of the file is not sensible", field="lfn", value=lfn)
    return Path(unquote(url.path)).joinpath(*parts)


def list_members(root: Path, path: Path) -> list[Member]:
    """List what is in a tarball.

    Raises:
        NotFound: there is no such file below `root`.
        Unusable: it is no tarball, or larger than is looked at.
    """
    with _opened(root, path) as tar:
        return [_member(number, info) for number, info in _each(tar)]


def show_member(root: Path, path: Path, number: int) -> Shown:
    """Read one member of a tarball as text.

    Raises:
        NotFound: there is no such file, or no member with this number.
        Unusable: the tarball or the member cannot be shown.
    """
    with _opened(root, path) as tar:
        for index, info in _each(tar):
            if index == number:
                return _shown(tar, _member(index, info), info)
    raise NotFound(f"the tarball has no member number {number}", field="member", value=number)


def _each(tar: tarfile.TarFile) -> Iterator[tuple[int, tarfile.TarInfo]]:
    for number, info in enumerate(tar):
        if number >= MAX_MEMBERS:
            return
        yield number, info


def _member(number: int, info: tarfile.TarInfo) -> Member:
    kind = "file" if info.isreg() and not info.issparse() else "folder" if info.isdir() else "other"
    kind = "link" if info.issym() or info.islnk() else kind
    try:
        modified_at = datetime.fromtimestamp(info.mtime, UTC)
    except (OverflowError, ValueError, OSError):
        modified_at = None
    return Member(number, log_text(info.name).replace("\n", "\\n")[:300], info.size, modified_at, kind)


def _shown(tar: tarfile.TarFile, member: Member, info: tarfile.TarInfo) -> Shown:
    reader = tar.extractfile(info) if member.kind == "file" else None
    if reader is None:
        raise Unusable(f"member {member.number} is a {member.kind}, which has no text", field="member")
    skipped = max(0, info.size - SHOWN_BYTES)
    reader.seek(skipped)
    data = reader.read(SHOWN_BYTES)
    if b"\0" in data[:8192]:
        return Shown(member, "", 0, binary=True)
    text = data.decode("utf-8", errors="replace")
    return Shown(member, log_text(text.partition("\n")[2] if skipped and "\n" in text else text), skipped)


@contextmanager
def _opened(root: Path, path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with (
            _regular_file(root, path) as file,
            _unpacked(file) as stream,
            tarfile.open(fileobj=cast(BinaryIO, _Capped(stream)), mode="r:") as tar,
        ):
            yield tar
    except (*_DAMAGE, _TooMuch) as error:
        raise Unusable(f"the log tarball cannot be shown: {error}", field="log") from error
    except OSError as error:
        raise NotFound(f"the log tarball cannot be read: {error.strerror or error}", field="log") from error


def _regular_file(root: Path, path: Path) -> BinaryIO:
    """Open a plain file that is really below the root: a payload may have left a link to somewhere else."""
    real = path.resolve(strict=True)
    if not real.is_relative_to(root.resolve()):
        raise NotFound("the log tarball is a link that leads out of its endpoint", field="log")
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_TARBALL_BYTES:
        os.close(descriptor)
        raise Unusable("the log tarball is no plain file, or larger than is looked at here", field="log")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _unpacked(file: BinaryIO) -> Iterator[IO[bytes]]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        yield file
        return
    with gzip.GzipFile(fileobj=file, mode="rb") as stream:
        yield cast(IO[bytes], stream)


class _TooMuch(Exception):
    """A tarball claims or holds more than is looked at."""


class _Capped:
    """A file that is read forwards only, up to a limit: what is kept at once, and what is unpacked in all.

    Jumps are made when something is read. The one step back that tarfile makes, to see that the last byte before a
    header is there, is answered from memory: in a packed file it could mean to unpack all again.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0
        self._last = b""

    def read(self, length: int = -1) -> bytes:
        """Read a piece of sensible length."""
        if not 0 <= length <= MAX_READ_BYTES:
            raise _TooMuch(f"a header of {length} bytes")
        if self._position + length > MAX_UNPACKED_BYTES:
            raise _TooMuch(f"more than {MAX_UNPACKED_BYTES // 1024 // 1024} MB unpacked")
        behind = self._file.tell() - self._position
        if behind == 1 and length == 1:
            self._position += 1
            return self._last
        if behind > 0:
            raise _TooMuch("a jump backwards")
        return self._read_on(length)

    def _read_on(self, length: int) -> bytes:
        if self._file.tell() != self._position:
            self._file.seek(self._position)
        data = self._file.read(length)
        self._last = data[-1:] or self._last
        self._position += len(data)
        return data

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Note where to read next."""
        self._position = position
        return position

    def seekable(self) -> bool:
        """Say that jumps are possible: forward ones are."""
        return True

    def tell(self) -> int:
        """Tell where will be read next."""
        return self._position
