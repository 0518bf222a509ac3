"""Takes the command lines out of a page: what is rehearsed is the page itself."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

_BLOCK = re.compile(r"(?:<!-- ([^\n]*?) -->\n)?```(\w*)\n(.*?)^```$", re.S | re.M)
_REHEARSED = re.compile(r"rehearsed: ([a-z-]+)(?:, ends with (\d+): \S.*)?")
_NOT_REHEARSED = re.compile(r"not rehearsed: (\S.*)")
_UNFINISHED = ("here-document", "unexpected end of file", "unexpected EOF")


class PageError(Exception):
    """A block of the page does not say whether it can be rehearsed, or is no shell."""


@dataclass(frozen=True)
class Block:
    """A block of commands, under the name by which the page marks it."""

    name: str
    commands: tuple[str, ...]
    exit_code: int = 0  # of the last command; all others end with 0


def read_page(text: str) -> dict[str, Block]:
    """Give the blocks that are rehearsed, in their order.

    Raises:
        PageError: a block has no mark, or two have the same name.
    """
    blocks: dict[str, Block] = {}
    for mark, _language, content in _BLOCK.findall(text):
        if _NOT_REHEARSED.fullmatch(mark):
            continue
        found = _REHEARSED.fullmatch(mark)
        if not found:
            raise PageError(f"this block has no mark (rehearsed: NAME, not rehearsed: REASON): {content[:200]!r}")
        name, code = found.groups()
        if name in blocks:
            raise PageError(f"two blocks have the name {name}")
        blocks[name] = Block(name, tuple(split(content)), int(code or 0))
    return blocks


def split(content: str) -> list[str]:
    """Split a block into commands as a shell reads them: with what continues a line, and with here-documents."""
    commands, lines = list[str](), list[str]()
    for line in content.splitlines():
        if not lines and (not line.strip() or line.lstrip().startswith("#")):
            continue
        lines.append(line)
        if is_complete("\n".join(lines)):
            commands.append("\n".join(lines))
            lines = []
    if lines:
        raise PageError(f"this command has no end: {lines[0]!r}")
    return commands


def is_complete(text: str) -> bool:
    """Ask bash whether a command ends here.

    Raises:
        PageError: bash does not understand it.
    """
    if text.endswith("\\"):
        return False
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, env={"LC_ALL": "C"}, check=False)
    if any(words in done.stderr for words in _UNFINISHED):
        return False
    if done.returncode:
        raise PageError(f"no shell: {done.stderr.strip()}")
    return True
