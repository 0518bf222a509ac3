"""Storage that is a folder of this machine: `file://`."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pandaserver.dataservice.ddm.storage.protocol import BLOCK, Stat
from pandaserver.errors import DDMError

_libc = ctypes.CDLL(None, use_errno=True)
_HERE, _NO_REPLACE = -100, 1  # AT_FDCWD, RENAME_NOREPLACE


class Folder:
    """Implements `Storage`."""

    reads_back = False  # they would come from memory, not from the disk

    def __init__(self, root: Path) -> None:
        self._root = root

    def stat(self, path: str) -> Stat | None:
        """See `Storage`."""
        with _told(path, "cannot read"):
            try:
                return Stat((self._root / path).stat().st_size)
            except FileNotFoundError:
                return None

    def read(self, path: str) -> Iterator[bytes]:
        """See `Storage`."""
        with _told(path, "cannot read"), (self._root / path).open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block

    def write(self, path: str, blocks: Iterable[bytes], *, size_bytes: int) -> None:
        """See `Storage`; the bytes are on the disk when it returns."""
        place = self._root / path
        with _told(path, "cannot write"):
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())

    def rename(self, path: str, new: str) -> bool:
        """See `Storage`."""
        with _told(path, "cannot rename"):
            try:
                os.link(self._root / path, self._root / new)
            except FileExistsError:
                return False
            except PermissionError:  # the kernel gives no second name to a file of somebody else, such as the pilot's
                return _rename_without_replacing(self._root / path, self._root / new)
            (self._root / path).unlink(missing_ok=True)
        return True

    def remove(self, path: str) -> None:
        """See `Storage`."""
        with _told(path, "cannot remove"):
            (self._root / path).unlink(missing_ok=True)

    def beside(self, path: str) -> list[str]:
        """See `Storage`."""
        folder = (self._root / path).parent
        with _told(path, "cannot list the folder of"):
            try:
                return [entry.relative_to(self._root).as_posix() for entry in folder.iterdir()]
            except FileNotFoundError:
                return []


def _rename_without_replacing(path: Path, new: Path) -> bool:
    """Rename with no more than the right to write into the folder; not every network file system can."""
    if not _libc.renameat2(_HERE, os.fsencode(path), _HERE, os.fsencode(new), _NO_REPLACE):
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    raise OSError(number, os.strerror(number))


@contextmanager
def _told(path: str, what: str) -> Iterator[None]:
    """Say of an error what it is about.

    Raises:
        DDMError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        name = path.rpartition("/")[2]
        raise DDMError(f"{what} {name}: {error.strerror or error}", field="lfn", value=name) from error
