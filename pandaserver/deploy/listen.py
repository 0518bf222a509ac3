"""Finds out whether the distribution's own Apache listens on a port already: to say it twice is an error there."""

from __future__ import annotations

import re
from pathlib import Path

from pandaserver.deploy.layout import Layout

_OPEN = re.compile(r"<IfModule\s+(!?)(?:mod_)?(\w+?)(?:_module|\.c)?\s*>", re.IGNORECASE)
_CLOSE = re.compile(r"</IfModule\s*>", re.IGNORECASE)
_LISTEN = re.compile(r"Listen\s+(?:\S*:)?(\d+)\b", re.IGNORECASE)


def listens_already(layout: Layout, port: int, root: Path = Path("/")) -> bool:
    """Read the files in which the distribution says where Apache listens."""
    texts = []
    for path in layout.ports:
        file = root / path.relative_to("/")
        if file.is_file():
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
    return any(port in _ports(text, layout, root) for text in texts)


def _ports(text: str, layout: Layout, root: Path) -> set[int]:
    """Give the ports of one file, but for those that count only with modules that are not there."""
    found, counts = set[int](), [True]
    for line in map(str.strip, text.splitlines()):
        if opened := _OPEN.match(line):
            counts.append(_is_loaded(opened[2], layout, root) != bool(opened[1]))
        elif _CLOSE.match(line):
            counts.pop()
        elif (said := _LISTEN.match(line)) and all(counts):
            found.add(int(said[1]))
    return found


def _is_loaded(module: str, layout: Layout, root: Path) -> bool:
    """Tell whether a module is loaded; where there is no folder of those that are, it is when it is installed."""
    if layout.loaded is not None:
        return (root / layout.loaded.relative_to("/") / f"{module}.load").exists()
    return (root / layout.modules.relative_to("/") / f"mod_{module}.so").exists()
