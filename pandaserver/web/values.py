"""Reads values as they come: text from forms and query strings, or JSON."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

_MAX_ID = 2**62


def text(value: Any) -> str:
    """Read text."""
    if not isinstance(value, str):
        raise ValueError(f"text is expected, not {type(value).__name__}")
    if "\x00" in value:
        raise ValueError("it has a zero byte in it")
    return value


def whole_number(value: Any) -> int:
    """Read a whole number, also from digits."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"a whole number is expected, not {type(value).__name__}")
    try:
        number = int(value) if len(str(value)) < 20 else _MAX_ID + 1
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
    if read != read or abs(read) == float("inf"):
        raise ValueError("a finite number is expected")
    return read


def from_json(value: Any) -> Any:
    """Read JSON inside a form field; JSON that came as JSON is taken as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON (pickles of old clients are not read): {error}") from None


def job_ids(value: Any) -> list[int]:
    """Read a list of job ids: a JSON list, one number, or numbers with commas or blanks between."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = value.replace(",", " ").split()
    read = from_json(value)
    return [whole_number(v) for v in (read if isinstance(read, list) else [read])]


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
