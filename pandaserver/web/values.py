"""Reads values as they come: text from forms and query strings, or JSON."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

_MAX_ID = 2**62
_PICKLE_STARTS = ("(lp", "]q", "(dp", "(i", "ccopy_reg", "\x80")


def text(value: Any) -> str:
    """Read text."""
    if not isinstance(value, str):
        raise ValueError(f"text is expected, not {type(value).__name__}")
    if "\x00" in value:
        raise ValueError("it has a zero byte in it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it has half a character in it (a lone surrogate)") from None
    return value


def whole_number(value: Any) -> int:
    """Read a whole number, also from digits, or from what JSON of other languages makes of it (5.0)."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"a whole number is expected, not {type(value).__name__}")
    try:
        number = int(value) if len(str(value)) <= 20 else _MAX_ID + 1
    except ValueError:
        raise ValueError("a whole number is expected") from None
    if abs(number) > _MAX_ID:
        raise ValueError("the number is too large")
    return number


def number(value: Any) -> float:
    """Read a number, also from digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"a number is expected, not {type(value).__name__}")
    try:
        read = float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number is expected") from None
    if not math.isfinite(read):
        raise ValueError("a finite number is expected")
    return read


def scalar(value: Any) -> Any:
    """Read text, a number or a truth value, whichever it is: no structure."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return whole_number(value)
    return number(value) if isinstance(value, float) else text(value)


def strict_json(document: str | bytes) -> Any:
    """Read JSON as the standard has it: no NaN, and no name twice in an object."""
    try:
        return json.loads(document, parse_constant=_no_constant, object_pairs_hook=_once_each)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.80} is there twice in one object")
    return read


def from_json(value: Any) -> Any:
    """Read JSON inside a form field; JSON that came as JSON is taken as it is."""
    if not isinstance(value, str):
        return value
    try:
        return strict_json(value)
    except ValueError as error:
        raise ValueError(f"it is no JSON{_if_pickle(value)}: {error}") from None


def _if_pickle(value: str) -> str:
    return " but a pickle, as clients of before 2020 send, and is not read" if value.startswith(_PICKLE_STARTS) else ""


def job_ids(value: Any) -> list[int]:
    """Read a list of job ids: a JSON list, one number, or numbers with commas or blanks between."""
    if isinstance(value, str) and not value.lstrip().startswith("[") and not _if_pickle(value):
        value = value.replace(",", " ").split()
    read = from_json(value)
    return [whole_number(v) for v in (read if isinstance(read, list) else [read])]


def objects(value: Any) -> list[dict[str, Any]]:
    """Read a list of JSON objects."""
    read = from_json(value)
    if not isinstance(read, list) or not all(isinstance(one, dict) for one in read):
        raise ValueError("a list of objects is expected")
    return read


def plain(data: Any, *, marked_times: bool) -> Any:
    """Make data JSON can carry; moments become text, or the marked form that API clients turn back into moments."""
    if isinstance(data, datetime):
        if marked_times:
            return {"__datetime__": data.replace(tzinfo=None).isoformat()}
        return data.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(data, dict):
        return {key: plain(value, marked_times=marked_times) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value, marked_times=marked_times) for value in data]
    return data
