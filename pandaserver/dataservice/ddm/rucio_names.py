"""Names as Rucio wants them: each with a scope, and only of characters that it takes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pandaserver.config_rucio import RucioSection
from pandaserver.dataservice.ddm.protocol import FileName
from pandaserver.errors import DDMFatal
from pandaserver.model.file import default_scope

T = TypeVar("T")

_DISPATCH = re.compile(r"panda\..+_dis\d+")
_NESTED = ("user", "group")  # whose scopes have folders of their own for each part


class Did(NamedTuple):
    """A data identifier: of a file, a dataset or a container."""

    scope: str
    name: str

    @property
    def wire(self) -> dict[str, str]:
        """Say it as Rucio's calls want it."""
        return {"scope": self.scope, "name": self.name}


def did_of(told: dict[str, str]) -> Did:
    """Read what Rucio's answers say."""
    return Did(told["scope"], told["name"])


@dataclass(frozen=True)
class Names:
    """Makes identifiers of names, and refuses those that a call would stumble over."""

    name_pattern: re.Pattern[str]
    scope_pattern: re.Pattern[str]

    def dataset(self, name: str) -> Did:
        """Give the identifier of a dataset or container, `scope:name` or a name that tells its scope.

        Raises:
            DDMFatal: Rucio would not take it.
        """
        scope, colon, rest = name.strip("/").partition(":")
        return self._good(Did(scope, rest) if colon else Did(default_scope(name), scope), "dataset")

    def file(self, name: FileName) -> Did:
        """Give the identifier of a file.

        Raises:
            DDMFatal: Rucio would not take it.
        """
        return self._good(Did(*name), "lfn")

    def placed(self, name: FileName) -> Did:
        """Give the identifier of a file that lies where pilots put it.

        Raises:
            DDMFatal: Rucio would not take it, or look for it elsewhere.
        """
        did = self.file(name)
        if "." in did.scope and not did.scope.startswith(_NESTED):
            text = f"scope {did.scope}: Rucio and the pilots have different places for files of a scope with a dot"
            raise DDMFatal(f"{text}, unless it begins with user or group", field="scope", value=did.scope)
        return did

    def known(self, names: Iterable[FileName]) -> list[Did]:
        """Give the identifiers of files, without those that Rucio cannot have."""
        return [Did(*name) for name in dict.fromkeys(names) if self._takes(Did(*name))]

    def _takes(self, did: Did) -> bool:
        return bool(self.scope_pattern.fullmatch(did.scope) and self.name_pattern.fullmatch(did.name))

    def _good(self, did: Did, field: str) -> Did:
        if not self.scope_pattern.fullmatch(did.scope):
            text = f"Rucio takes no scope like {did.scope!r}, of {did.name}; [rucio] scope_pattern says which"
            raise DDMFatal(text, field="scope", value=did.scope)
        if not self.name_pattern.fullmatch(did.name):
            text = f"Rucio takes no name like {did.name!r}; [rucio] name_pattern says which"
            raise DDMFatal(text, field=field, value=did.name)
        return did


def names_by(section: RucioSection) -> Names:
    """Give the names that the configuration allows."""
    return Names(re.compile(section.name_pattern), re.compile(section.scope_pattern))


def is_dispatch(name: str) -> bool:
    """Say whether a dataset only brings inputs to a site."""
    return _DISPATCH.fullmatch(name) is not None


def guid_in(text: str) -> str | None:
    """Write a GUID as Rucio keeps it; None for what is none."""
    try:
        return uuid.UUID(text).hex
    except ValueError:
        return None


def guid_out(text: str | None) -> str:
    """Write a GUID of Rucio's as pilots expect it; empty where it has none."""
    return str(uuid.UUID(text)) if text else ""


def in_parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut into parts that one call takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
