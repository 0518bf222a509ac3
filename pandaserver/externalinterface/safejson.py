"""JSON from outside: only what every reader of JSON understands, and not too much of it."""

from __future__ import annotations

import json
import math
from typing import Any

_DEEPEST = 20


def read_json(document: str | bytes) -> Any:
    """Read a document; NaN, infinite numbers, half characters and deep nesting are refused.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        read = json.loads(document, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_plain(read)
    return read


def check_plain(value: Any, deepest: int = _DEEPEST) -> None:
    """Refuse what cannot be written again as it came, or is nested deeper than people nest."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("it has half a character in it (a lone surrogate)") from None
    elif isinstance(value, dict | list):
        if not deepest:
            raise ValueError("it is nested too deeply")
        for one in value if isinstance(value, list) else [*value.keys(), *value.values()]:
            check_plain(one, deepest - 1)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number
