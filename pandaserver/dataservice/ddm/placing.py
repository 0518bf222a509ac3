"""Puts staged copies in their place: an attempt that counts gets the name, and what counts is never overwritten."""

from __future__ import annotations

from pandaserver.dataservice.ddm import moving
from pandaserver.dataservice.ddm.moving import Bytes, Place
from pandaserver.model.file import Replica, staged_name


def put_in_place(place: Place, replica: Replica) -> bool:
    """Verify a copy; one that is staged gets its name. False where other bytes have that name: for `replace`.

    Once it was put there, another try finds it there.

    Raises:
        DDMError: there is no such copy.
        DDMFatal: its bytes are not what was announced.
    """
    wanted, staged = bytes_of(replica), beside(place, replica)
    if not replica.staged_as or staged.storage.stat(staged.path) is None:
        moving.verify(place, wanted)
        return True
    moving.verify(staged, wanted)
    if not staged.storage.rename(staged.path, place.path):
        if not moving.is_there(place, wanted):
            return False
        staged.remove()
    return True


def replace(place: Place, replica: Replica) -> None:
    """Put a verified staged copy over a file that does not count; when that was done before, nothing is left to do."""
    staged = beside(place, replica)
    if staged.storage.stat(staged.path) is not None:
        moving.put(staged, place, bytes_of(replica))


def discard(place: Place, suffix: str) -> None:
    """Remove what an attempt left beside a place, whole or in part.

    Raises:
        DDMError: it is there and stays.
    """
    staged = place.with_name(staged_name(place.name, suffix))
    for path in staged.storage.beside(staged.path):
        name = path.rpartition("/")[2]
        if name == staged.name or (name.startswith(f".{staged.name}.") and name.endswith(".part")):
            staged.storage.remove(path)


def beside(place: Place, replica: Replica) -> Place:
    """Say where a copy is as long as it is staged."""
    return place.with_name(staged_name(replica.lfn, replica.staged_as))


def bytes_of(replica: Replica) -> Bytes:
    """Say what the bytes of a copy must be."""
    return Bytes(replica.lfn, replica.size_bytes, replica.adler32)
