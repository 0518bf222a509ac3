"""Reading what a payload left behind without being led astray by symbolic links, pipes or sheer size."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading if it is a regular file and not a link; anything else raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def is_regular(path: Path) -> bool:
    """Tell whether there is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def read_regular(path: Path, limit_bytes: int) -> bytes | None:
    """Return the content, or None where there is no regular file or it is larger than the limit."""
    try:
        with open_regular(path) as stream:
            content = stream.read(limit_bytes + 1)
    except OSError:
        return None
    return content if len(content) <= limit_bytes else None


def tail_of(path: Path, limit_bytes: int) -> bytes:
    """Return the last bytes of a regular file, nothing where there is none."""
    try:
        with open_regular(path) as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - limit_bytes))
            return stream.read(limit_bytes)
    except OSError:
        return b""


def create(path: Path, mode: int = 0o600) -> BinaryIO:
    """Open a new file for writing; a file or link that is already there raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, mode)
    return os.fdopen(descriptor, "wb")


@dataclass(frozen=True)
class TreeFacts:
    """The size of a directory tree and when something in it was last written."""

    size_bytes: int = 0
    files: int = 0
    newest_ns: int = 0


def tree_facts(directory: Path) -> TreeFacts:
    """Walk a directory that is changing under our feet, without following links."""
    size_bytes = files = newest_ns = 0
    todo = [os.fspath(directory)]
    while todo:
        for entry in _entries(todo.pop()):
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(facts.st_mode):
                todo.append(entry.path)
            size_bytes += facts.st_size
            files += 1
            newest_ns = max(newest_ns, facts.st_mtime_ns)
    return TreeFacts(size_bytes=size_bytes, files=files, newest_ns=newest_ns)


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def remove_tree(directory: Path) -> None:
    """Remove a directory with all that is in it, also what was made unreadable; what resists stays."""
    for parent, names, _ in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
