"""Sandboxes: files that users leave for their jobs, in the cache directory."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pandaserver.errors import BadInput, Conflict, TooLarge
from pandaserver.taskbuffer import submissions
from pandaserver.taskbuffer.buffer import TaskBuffer
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
        known = self.buffer.read(lambda c: submissions.sandbox(c, new.name))
        if known is None:
            part.chmod(0o644)
            try:
                os.link(part, self.directory / new.name)  # fails where a rename would overwrite
            except FileExistsError:
                known = self._adopt(new)
            else:
                self.buffer.run(lambda c: submissions.add_sandbox(c, new))
                return new
        if (known.owner, known.sha256) != (new.owner, new.sha256):
            raise Conflict(f"there is another file {new.name}; choose another name", field="file", value=new.name)
        return known

    def _adopt(self, new: SandboxFile) -> SandboxFile:
        """Record a file that a killed process had stored and not recorded, or that another is just storing."""
        content = (self.directory / new.name).read_bytes()
        if hashlib.sha256(content).hexdigest() != new.sha256:
            raise Conflict(f"there is another file {new.name}; choose another name", field="file", value=new.name)

        return self.buffer.run(
            lambda c: _recorded(submissions.sandbox(c, new.name), new, lambda: submissions.add_sandbox(c, new))
        )


def _recorded(known: SandboxFile | None, new: SandboxFile, add: Callable[[], None]) -> SandboxFile:
    if known is None:
        add()
    return known or new
