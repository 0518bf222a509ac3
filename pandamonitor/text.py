"""Words and numbers as people read them, and the normal form of diagnostics that lets equal errors meet."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def count(number: int) -> str:
    """Write a number with its thousands apart."""
    return f"{number:,}"


def size(size_bytes: float | None) -> str:
    """Write bytes with a fitting unit, three digits that count."""
    if size_bytes is None:
        return "–"
    value = float(size_bytes)
    unit = 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or value >= 99.95 else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Write a length of time with its two largest units."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    for length, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def hours(number: int) -> str:
    """Write a span of time that is chosen in hours."""
    if number <= 72:
        return f"{number} hour{'s' if number != 1 else ''}"
    return f"{number // 24} days"


def percent(part: int, whole: int) -> str:
    """Write a share; never 100 % when something is missing, never 0 % when something is there."""
    if whole == 0:
        return "–"
    share = 100 * part / whole
    if part > 0 and share < 1:
        return "< 1 %"
    return "> 99 %" if part < whole and share > 99 else f"{share:.0f} %"


def utc(moment: datetime) -> str:
    """Write a moment: date and time, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def iso(moment: datetime) -> str:
    """Write a moment for machines."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# from the longest thing to the smallest: an address holds paths, a path holds numbers
_VARYING = (
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,9}://[^\s'\",;)\]]+", re.IGNORECASE), "‹url›"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "‹id›"),
    (re.compile(r"(?<![\w.])(?:/[\w.@%+=~:-]+){2,}/?"), "‹path›"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "‹id›"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "‹id›"),
    (re.compile(r"\d+(?:[.:,]\d+)*"), "‹n›"),
)


def normal_diagnostic(diagnostic: str, length: int = 200) -> str:
    """Replace what differs from job to job (addresses, paths, ids, numbers), so that equal errors look equal."""
    text = diagnostic
    for pattern, stand_in in _VARYING:
        text = pattern.sub(stand_in, text)
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


_HIDDEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def log_text(text: str) -> str:
    """Make foreign text fit to be shown: colours off, control and direction characters visible."""
    plain = _HIDDEN.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", plain)
