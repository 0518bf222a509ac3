"""How numbers of things are said."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Say a number of things: 1 change, 2 changes."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
