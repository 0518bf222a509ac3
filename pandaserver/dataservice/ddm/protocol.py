"""What the server asks of a data management system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pandaserver.model.file import Replica

FileName = tuple[str, str]  # scope, lfn


class DDM(Protocol):
    """A catalogue of datasets and a system that moves them. Every call may be made twice.

    All calls raise DDMError when another try may help, DDMFatal when not.
    """

    def replicas(self, names: Iterable[FileName]) -> dict[FileName, list[Replica]]:
        """Give the good copies of files; files without any are left out."""

    def contents(self, dataset: str) -> list[FileName]:
        """List the files of a dataset; empty for an unknown one."""

    def register(self, placed: Mapping[str, Sequence[Replica]]) -> None:
        """Register new files, each with the copy it has, in datasets, by name, that are made if need be; all or none.

        1. Verify that the copies are there with this size and checksum.
        2. Refuse a file of the same name with other bytes, and a frozen dataset.
        3. Where a dataset is wanted at an endpoint, bring the new files there too.
        """

    def attach(self, placed: Mapping[str, Iterable[FileName]]) -> None:
        """Put known files into datasets, by name, that are made if need be; all or none."""

    def freeze(self, datasets: Iterable[str]) -> None:
        """Let nothing be added to datasets any more."""

    def request(self, datasets: Iterable[str], endpoint: str) -> None:
        """Want datasets at an endpoint; the server is called back each time all of one is there."""

    def cancel(self, dataset: str, endpoint: str) -> None:
        """Want it there no more."""

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """List what of a dataset is not at an endpoint: the truth, where a callback is only a hint."""
