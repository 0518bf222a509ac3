"""Moves bytes: what arrives has the size and checksum that it should have, or nothing arrives."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pandaserver.dataservice.ddm.storage.protocol import Storage
from pandaserver.errors import DDMError, DDMFatal


@dataclass(frozen=True)
class Bytes:
    """What the bytes of a file must be."""

    lfn: str
    size_bytes: int
    adler32: str


@dataclass(frozen=True)
class Place:
    """A path at some storage."""

    storage: Storage
    path: str

    def with_name(self, name: str) -> Place:
        """Give the place of another name in the same folder."""
        return Place(self.storage, f"{self.path.rpartition('/')[0]}/{name}")

    @property
    def name(self) -> str:
        """Give the last part of the path."""
        return self.path.rpartition("/")[2]

    def remove(self) -> None:
        """Remove what is there."""
        self.storage.remove(self.path)


def verify(place: Place, wanted: Bytes, *, read_back: bool = True) -> None:
    """Check size and adler32 of a file.

    Raises:
        DDMError: the file is not there.
        DDMFatal: its bytes are not what they should be.
    """
    found = place.storage.stat(place.path)
    if found is None:
        raise DDMError(f"cannot read {place.name}: there is no such file", field="lfn", value=place.name)
    if found.size_bytes != wanted.size_bytes:
        text = f"{place.name} has {found.size_bytes} bytes, {wanted.size_bytes} were announced"
        raise DDMFatal(text, field="fsize", value=found.size_bytes)
    if found.adler32 is not None or read_back:
        _same_checksum(wanted, found.adler32 or adler32(place.storage.read(place.path)))


def is_there(place: Place, wanted: Bytes) -> bool:
    """Say whether a file is where it should be, as it should be."""
    found = place.storage.stat(place.path)
    if found is None or found.size_bytes != wanted.size_bytes:
        return False
    return (found.adler32 or adler32(place.storage.read(place.path))) == wanted.adler32


def copy(source: Place, target: Place, wanted: Bytes, *, mark: str) -> None:
    """Copy a file so that it is at the target whole and right, or not at all.

    Bytes go once through our hands: they are read, added to the checksum and written. What lies at the target is put
    away if it is not the file that is wanted: the caller knows that it does not count.

    Args:
        mark: goes into the name of the part, by which `part_of` finds it after our death.

    Raises:
        DDMError: reading or writing failed.
        DDMFatal: the source has other bytes.
    """
    part = part_of(target, mark)
    try:
        blocks = checked(source.storage.read(source.path), wanted)
        part.storage.write(part.path, blocks, size_bytes=wanted.size_bytes)
        verify(part, wanted, read_back=part.storage.reads_back)
        put(part, target, wanted)
    except DDMError:
        _clear(part)
        raise


def part_of(target: Place, mark: str) -> Place:
    """Say under which name a copy is written until it is whole."""
    start = target.name.encode()[:180].decode(errors="ignore")
    return target.with_name(f".{start}.{mark}.part")


def put(part: Place, target: Place, wanted: Bytes) -> None:
    """Give a verified file its name; of a file there that is just like it, one stays."""
    if part.storage.rename(part.path, target.path):
        return
    if is_there(target, wanted):
        part.remove()
        return
    target.remove()
    if not part.storage.rename(part.path, target.path) and not is_there(target, wanted):
        raise DDMError(f"somebody else writes {target.name} too", field="lfn", value=target.name)


def _clear(part: Place) -> None:
    """Remove what is left of a copy that failed, if that is possible now."""
    try:
        part.remove()
    except DDMError:
        return  # the first trouble is what counts


def checked(blocks: Iterable[bytes], wanted: Bytes) -> Iterator[bytes]:
    """Hand on blocks, and end with an error when they were not the right ones.

    Raises:
        DDMFatal: so that whoever writes them knows in time.
    """
    value, size = 1, 0
    for block in blocks:
        size += len(block)
        value = zlib.adler32(block, value)
        if size > wanted.size_bytes:
            break
        yield block
    if size != wanted.size_bytes:
        said = f"more than {wanted.size_bytes}" if size > wanted.size_bytes else str(size)
        raise DDMFatal(f"{wanted.lfn} has {said} bytes, {wanted.size_bytes} were announced", field="fsize", value=said)
    _same_checksum(wanted, f"{value:08x}")


def adler32(blocks: Iterable[bytes]) -> str:
    """Compute the adler32 of blocks as 8 hex digits."""
    value = 1
    for block in blocks:
        value = zlib.adler32(block, value)
    return f"{value:08x}"


def _same_checksum(wanted: Bytes, found: str) -> None:
    if found != wanted.adler32:
        text = f"{wanted.lfn} has adler32 {found}, {wanted.adler32} was announced"
        raise DDMFatal(text, field="adler32", value=found)
