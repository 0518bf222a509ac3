"""The groups and roles that an organisation gives to its people, as VOMS writes them: /atlas/higgs/Role=production."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_FQAN = re.compile(rf"((?:/{_WORD})+)(?:/Role=({_WORD}))?(?:/Capability={_WORD})?")
_LONGEST = 255
NO_ROLE = "NULL"


@dataclass(frozen=True)
class Fqan:
    """A group of a virtual organisation, and a role in it (empty: member)."""

    group: tuple[str, ...]  # the organisation first
    role: str = ""

    @property
    def vo(self) -> str:
        """Give the virtual organisation."""
        return self.group[0]

    @property
    def working_group(self) -> str:
        """Give the group below the organisation; empty for the organisation itself."""
        return "/".join(self.group[1:])

    def __str__(self) -> str:
        return "".join(f"/{word}" for word in self.group) + (f"/Role={self.role}" if self.role else "")


def read_fqan(text: str) -> Fqan:
    """Read one; the role NULL is none, capabilities mean nothing.

    Raises:
        ValueError: it is none.
    """
    found = _FQAN.fullmatch(text) if len(text) <= _LONGEST else None
    if not found:
        raise ValueError("an FQAN looks like /vo/group/Role=name")
    role = found[2] or ""
    return Fqan(tuple(found[1].split("/")[1:]), "" if role == NO_ROLE else role)
