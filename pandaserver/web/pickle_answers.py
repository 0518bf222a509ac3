"""Writes answers as the clients of 2007 to 2012 read them: pickles in the text protocol (0), of plain data and jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pandaserver.web.attributes import FILE_ATTRIBUTES, FILES, JOB_ATTRIBUTES, UNSET
from pandaserver.web.pickles import Kind, Spec

_MODULE = "pandaserver.taskbuffer"


def write_pickle(data: Any) -> str:
    """Write plain data, moments and jobs (Spec) in the text protocol, for clients of all Pythons."""
    written: list[str] = []
    _write(data, written.append)
    return "".join([*written, "."])


def job_spec(described: dict[str, Any] | None) -> Spec | None:
    """Make the object of a job that is described by attribute names; a job that is not there stays None."""
    if described is None:
        return None
    files = [_spec(Kind.FILE, each, FILE_ATTRIBUTES, last=None) for each in described[FILES]]
    return _spec(Kind.JOB, described, JOB_ATTRIBUTES, last=files)


def _spec(kind: Kind, told: dict[str, Any], attributes: Sequence[str], *, last: Any) -> Spec:
    return Spec(kind, [*(UNSET if told.get(name) is None else told[name] for name in attributes), last])


def _write(data: Any, out: Callable[[str], None]) -> None:
    if isinstance(data, list | tuple):
        _write_items("l" if isinstance(data, list) else "t", data, out)
    elif isinstance(data, dict):
        _write_items("d", [part for item in data.items() for part in item], out)
    elif isinstance(data, Spec):
        _write_spec(data, out)
    elif isinstance(data, datetime):
        parts = (data.year, data.month, data.day, data.hour, data.minute, data.second)
        out("cdatetime\ndatetime\n")
        _write_items("t", parts, out)
        out("R")
    else:
        out(_scalar(data))


def _write_items(code: str, items: Sequence[Any], out: Callable[[str], None]) -> None:
    out("(")
    for item in items:
        _write(item, out)
    out(code)


def _write_spec(spec: Spec, out: Callable[[str], None]) -> None:
    name = spec.kind.value
    out(f"ccopy_reg\n_reconstructor\n(c{_MODULE}.{name}\n{name}\nc__builtin__\nobject\nNtR")
    _write(spec.values, out)
    out("b")


def _scalar(value: Any) -> str:
    if value is None:
        return "N"
    if isinstance(value, bool):
        return f"I0{int(value)}\n"
    if isinstance(value, int):
        return f"L{value}L\n" if abs(value) > _LARGEST_PLAIN else f"I{value}\n"
    if isinstance(value, float):
        return f"F{value!r}\n"
    return f"V{_escaped(str(value))}\n"


_LARGEST_PLAIN = 2**31 - 1
_TO_ESCAPE = re.compile(r"[^\x20-\x5b\x5d-\x7e]")


def _escaped(text: str) -> str:
    return _TO_ESCAPE.sub(lambda found: _code_of(ord(found[0])), text)


def _code_of(number: int) -> str:
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
