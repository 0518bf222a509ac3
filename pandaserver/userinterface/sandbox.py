"""Sandboxes: files that users leave for their jobs, in the cache directory."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pandaserver.errors import BadInput, Conflict, TooLarge
from pandaserver.taskbuffer import counters, submissions
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.submissions import SandboxFile

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_BLOCK = 256 * 1024


@dataclass(frozen=True)
class SandboxStore:
    """The cache directory, with its limit in bytes per file."""

    buffer: TaskBuffer
    directory: Path
    max_bytes: int

    def put(self, name: str, owner: str, stream: IO[bytes]) -> SandboxFile:
        """Keep an uploaded file; the same file again is no error, another under its name is.

        Raises:
            BadInput, TooLarge: the name or the size is not acceptable.
            Conflict: the name is taken.
        """
        clean = self._clean(name)
        part = self.directory / f".{uuid.uuid4().hex}.part"
        try:
            size, digest = self._write(part, stream)
            new = SandboxFile(name=clean, owner=owner, size_bytes=size, sha256=digest, created_at=self.buffer.now())
            return self._keep(part, new)
        finally:
            part.unlink(missing_ok=True)

    def find(self, name: str) -> SandboxFile | None:
        """Tell what is known of a file; None where no user left it: operators may put others into the directory."""
        return self.buffer.read(lambda c: submissions.sandbox(c, name))

    def _clean(self, name: str) -> str:
        clean = re.split(r"[/\\]", name)[-1]  # clients send paths
        if not _NAME.fullmatch(clean):
            rule = "letters, digits and _ . + -, not beginning with a dot, at most 200 characters"
            raise BadInput(f"the file's name is no good: {rule}", field="file", value=name)
        return clean

    def _write(self, part: Path, stream: IO[bytes]) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        with part.open("xb") as file:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > self.max_bytes:
                    raise TooLarge(f"the file is larger than {self.max_bytes} bytes", field="file", value=size)
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return size, digest.hexdigest()

    def _keep(self, part: Path, new: SandboxFile) -> SandboxFile:
        """Record the file, then put it in its place: nobody finds it before it is known whose it is."""
        target = self.directory / new.name
        if target.exists() and _digest(target) != new.sha256:
            raise _taken(new)
        kept = self.find(new.name) or self.buffer.run(lambda c: _recorded(c, new))
        if not _same(kept, new):
            raise _taken(new)
        part.chmod(0o644)
        try:
            os.link(part, target)  # fails where a rename would overwrite
        except FileExistsError:
            if _digest(target) != new.sha256:
                raise _taken(new) from None
        return kept


def _recorded(connection: Connection, new: SandboxFile) -> SandboxFile:
    counters.take(connection, "sandbox")  # of two equal uploads at the same moment one waits here for the other
    known = submissions.sandbox(connection, new.name)
    if known is None:
        submissions.add_sandbox(connection, new)
    return known or new


def _same(one: SandboxFile, other: SandboxFile) -> bool:
    return (one.owner, one.sha256) == (other.owner, other.sha256)


def _taken(new: SandboxFile) -> Conflict:
    return Conflict(f"there is another file {new.name}; choose another name", field="file", value=new.name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
