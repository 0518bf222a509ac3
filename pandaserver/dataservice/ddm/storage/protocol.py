"""What is asked of storage, whatever it is; paths are relative to the root of an endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Stat:
    """What storage says of a file; not every storage knows checksums."""

    size_bytes: int
    adler32: str | None = None


@dataclass(frozen=True)
class Credentials:
    """With what to show who we are, and by what to know whom to believe."""

    certificate: Path | None = None  # or a proxy, with its key
    key: Path | None = None
    ca_dir: Path | None = None


class Storage(Protocol):
    """Files below the root of an endpoint. All raise DDMError for what may pass."""

    @property
    def reads_back(self) -> bool:
        """Say whether written bytes are to be read again where storage gives no checksum."""

    def stat(self, path: str) -> Stat | None:
        """Give the facts of a file, None where there is none."""

    def read(self, path: str) -> Iterator[bytes]:
        """Give the bytes in blocks; one that is not there, or ends too soon, is a DDMError."""

    def write(self, path: str, blocks: Iterable[bytes], *, size_bytes: int) -> None:
        """Write a new file, with the folders that it needs; when it fails, a part of it may be left."""

    def rename(self, path: str, new: str) -> bool:
        """Give a file another name in the same folder; False, and nothing done, where that is taken."""

    def remove(self, path: str) -> None:
        """Remove a file; when it is not there, that is fine too."""

    def beside(self, path: str) -> list[str]:
        """List the paths of all files in the folder of this one."""
