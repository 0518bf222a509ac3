"""Reads INI files into frozen dataclasses: every key is known, every value has the type of its field."""

from __future__ import annotations

import configparser
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from pandaserver.errors import ConfigError

T = TypeVar("T")


def read_ini(path: Path) -> configparser.ConfigParser:
    """Read an INI file as it stands: names keep their case, nothing is interpolated."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}", field="config", value=path) from error
    return parser


def build(kind: type[T], values: Mapping[str, str], *, where: str, base: Path, **given: Any) -> T:
    """Fill a section's dataclass from its text values; relative paths are below `base`."""
    hints = typing.get_type_hints(kind)
    allowed = {f.name: f for f in fields(kind) if f.name not in given}  # type: ignore[arg-type]
    unknown = set(values) - set(allowed)
    if unknown:
        text = f"{where}: unknown key {min(unknown)}; known are {', '.join(allowed)}"
        raise ConfigError(text, field=min(unknown))
    needed = [n for n, f in allowed.items() if f.default is MISSING and f.default_factory is MISSING]
    absent = [name for name in needed if name not in values]
    if absent:
        raise ConfigError(f"{where}: key {absent[0]} is missing", field=absent[0])
    told = {name: read_value(text, hints[name], f"{where} {name}", base) for name, text in values.items()}
    return kind(**told, **given)


_TRUE, _FALSE = {"yes", "true", "on", "1"}, {"no", "false", "off", "0"}
LARGEST = 1_000_000_000
URL = re.compile(r"[a-z][a-z0-9+]*://\S{1,1000}")


def read_value(text: str, hint: Any, where: str, base: Path) -> Any:
    """Make a value of the text of a key; ConfigError names where it stands."""
    if isinstance(hint, types.UnionType):
        if not text:
            return None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if hint is Path:
        if not text:
            raise ConfigError(f"{where} is empty: name a file or directory", field=where)
        return base / text
    if typing.get_origin(hint) is tuple:
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    if hint is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"{where} = {text!r}: say yes or no", field=where, value=text)
        return text.lower() in _TRUE
    try:
        return _in_range(hint(text))
    except ValueError as error:
        raise ConfigError(f"{where} = {text!r} is not acceptable: {error}", field=where, value=text) from error


def _in_range(value: Any) -> Any:
    """No number of the configuration is negative, and the largest are times and sizes."""
    if isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value <= LARGEST):
        raise ValueError(f"a number from 0 to {LARGEST} is expected")
    return value
