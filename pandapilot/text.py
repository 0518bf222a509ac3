"""Text that comes from jobs is hostile: these functions make it fit to be logged and sent."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """Replace control and other unprintable characters, except those in keep, by question marks."""
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)


def clip(text: str, limit_bytes: int) -> str:
    """Cut the end off so that the UTF-8 form has at most so many bytes."""
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def clip_start(text: str, limit_bytes: int) -> str:
    """Cut the beginning off so that the UTF-8 form has at most so many bytes."""
    return text.encode("utf-8", "replace")[-limit_bytes:].decode("utf-8", "ignore") if limit_bytes > 0 else ""


def harmless(raw: bytes, limit_bytes: int) -> str:
    """Decode the tail of a payload's output: lines and tabs stay, other control characters do not."""
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
    return clip_start(printable(text, keep="\n\t"), limit_bytes)
