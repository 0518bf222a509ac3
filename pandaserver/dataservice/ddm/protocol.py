"""What the server asks of a data management system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pandaserver.model.file import Replica

FileName = tuple[str, str]  # scope, lfn
Wanted = tuple[str, str]  # dataset, endpoint where it shall be


class ProgressState(StrEnum):
    """How it is with a dataset that is wanted at an endpoint."""

    REPLICATING = "replicating"
    OK = "ok"  # all that is in it now is there
    STUCK = "stuck"  # something failed; that may pass, and the error says what it was
    GONE = "gone"  # it is not wanted there (any more), or not known


@dataclass(frozen=True)
class Progress:
    """How much of a dataset is at an endpoint, in files."""

    state: ProgressState
    there: int
    total: int
    error: str = ""


@dataclass(frozen=True)
class StagedFile:
    """A file that a pilot stored beside its place, with a suffix to its name."""

    scope: str
    lfn: str
    endpoint: str
    suffix: str


class DDM(Protocol):
    """A catalogue of datasets and a system that moves them. Every call may be made twice.

    All calls raise DDMError when another try may help, DDMFatal when not; of these DDMUnknown for files, datasets to be
    collected and endpoints that are not there.
    """

    @property
    def stages_outputs(self) -> bool:
        """Say whether pilots may store outputs beside their place, for `register` to put them there."""

    def replicas(self, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
        """Give the good copies of files; files without any are left out."""

    def contents(self, dataset: str) -> list[FileName]:
        """List the files of a dataset, or of all datasets of a container; empty for an unknown one."""

    def register(self, placed: Mapping[str, Sequence[Replica]]) -> None:
        """Register new files, each with the copy it has, in datasets, by name, that are made if need be; all or none.

        1. Put copies that are staged (`staged_as`) in their place; never over a copy that counts.
        2. Verify that the copies are there with this size and checksum.
        3. Refuse a file of the same name with other bytes, and a frozen dataset.
        4. Where a dataset is wanted at an endpoint, bring the new files there too.
        """

    def attach(self, placed: Mapping[str, Iterable[FileName]]) -> None:
        """Put known files into datasets, by name, that are made if need be; all or none."""

    def collect(self, container: str, datasets: Iterable[str]) -> None:
        """Put known datasets into a container, which is made if need be; all or none.

        A name is that of a dataset or of a container, never of both. Only `contents` and `delete` take containers.
        """

    def freeze(self, datasets: Iterable[str]) -> None:
        """Let nothing be added to datasets any more."""

    def request(self, datasets: Iterable[str], endpoint: str) -> None:
        """Want datasets at an endpoint; the server is called back each time all of one is there."""

    def progress(self, wanted: Iterable[Wanted]) -> dict[Wanted, Progress]:
        """Tell of each pair how far it is."""

    def cancel(self, wanted: Iterable[Wanted]) -> None:
        """Want datasets at endpoints no more; the copies that are there stay."""

    def delete(self, datasets: Iterable[str]) -> None:
        """Forget datasets, and have the copies of files removed that are then in no dataset.

        Of a container only the container is forgotten.
        """

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """List what of a dataset is not at an endpoint: the truth, where a callback is only a hint."""

    def discard(self, staged: Iterable[StagedFile]) -> None:
        """Remove what was stored beside its place and never counted; most often nothing is there."""
