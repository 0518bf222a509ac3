"""What the server asks of a data management system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def register(self, dataset: str, replicas: Sequence[Replica]) -> None:
        """Register new files, each with the copy it has, in a dataset that is made if need be.

        1. Verify that the copy is there with this size and checksum.
        2. Refuse a file of the same name with other bytes, and a frozen dataset.
        3. Where the dataset is wanted at an endpoint, bring the new files there too.
        """

    def attach(self, dataset: str, names: Iterable[FileName]) -> None:
        """Put known files into a dataset that is made if need be."""

    def freeze(self, dataset: str) -> None:
        """Let nothing be added any more."""

    def request(self, dataset: str, endpoint: str) -> None:
        """Want a dataset at an endpoint; the server is called back each time all of it is there."""

    def cancel(self, dataset: str, endpoint: str) -> None:
        """Want it there no more."""

    def missing_at(self, dataset: str, endpoint: str) -> list[FileName]:
        """List what of a dataset is not at an endpoint: the truth, where a callback is only a hint."""
