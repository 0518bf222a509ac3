"""The monitor's settings: an INI file and command-line flags, checked as a whole before anything starts."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pandaserver import config as server_configuration
from pandaserver.errors import ConfigError
from pandaserver.model.timeouts import TIMEOUTS, Timeout, with_overrides

SECTION = "monitor"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All there is to set; the names are the keys of the file and, with dashes, the flags."""

    database: str = ""  # SQLAlchemy URL; that of the server's configuration where empty
    server_config: Path | None = None
    host: str = "127.0.0.1"
    port: int = 25980
    cache: str = "memory"  # or memcached:HOST:PORT
    cache_s: float = 20.0
    refresh_s: float = 30.0
    title: str = "PanDA monitor"
    threads: int = 8
    log_level: str = "INFO"
    timeouts: tuple[Timeout, ...] = TIMEOUTS  # from the server's configuration, no key of its own


_KEYS = {f.name: str(f.type) for f in fields(Settings) if f.name != "timeouts"}
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def load(file: Path | None, overrides: Mapping[str, str | None]) -> Settings:
    """Read a file, let what `overrides` says count more, and fill in from the server's configuration.

    Raises:
        ConfigError: naming the key, its value, and what is allowed.
    """
    texts = _read(file) if file else {}
    texts |= {key: text for key, text in overrides.items() if text is not None}
    unknown = set(texts) - set(_KEYS)
    if unknown:
        raise ConfigError(f"{file}: unknown key {min(unknown)}; known are {', '.join(_KEYS)}", field=min(unknown))
    values: dict[str, Any] = {key: _value(key, text) for key, text in texts.items()}
    return _checked(Settings(**(values | _from_server(values))))


def _read(file: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with file.open(encoding="utf-8") as lines:
            parser.read_file(lines)
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration {file}: {error}", field="config", value=file) from error
    strange = set(parser.sections()) - {SECTION}
    if strange:
        raise ConfigError(f"{file}: unknown section [{min(strange)}]; there is only [{SECTION}]", field=min(strange))
    texts = dict(parser[SECTION]) if SECTION in parser else {}
    if texts.get("server_config"):
        texts["server_config"] = str(file.parent / texts["server_config"])
    return texts


def _value(key: str, text: str) -> object:
    kind = _KEYS[key]
    if kind == "str":
        return text
    if kind.startswith("Path"):
        return Path(text) if text else None
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError as error:
        raise ConfigError(f"{key} = {text!r} is no number", field=key, value=text) from error


def _from_server(values: Mapping[str, Any]) -> dict[str, Any]:
    path = values.get("server_config")
    if path is None:
        return {}
    server = server_configuration.load(path)
    database = values.get("database") or server.database.read or server.database.write
    return {"database": database, "timeouts": with_overrides(server.timeouts)}


def _checked(settings: Settings) -> Settings:
    if not settings.database:
        raise ConfigError("no database: say --database URL or --server-config FILE", field="database")
    limits = {"port": (1, 65535), "threads": (1, 256), "cache_s": (0, 3600), "refresh_s": (2, 3600)}
    for key, (low, high) in limits.items():
        value = getattr(settings, key)
        if not low <= value <= high:
            raise ConfigError(f"{key} = {value}: allowed is {low} to {high}", field=key, value=value)
    if settings.log_level not in _LOG_LEVELS:
        text = f"log_level = {settings.log_level!r}: known are {', '.join(_LOG_LEVELS)}"
        raise ConfigError(text, field="log_level", value=settings.log_level)
    memcached_address(settings.cache)
    return settings


def memcached_address(cache: str) -> tuple[str, int] | None:
    """Read `memcached:HOST:PORT`; None for `memory`.

    Raises:
        ConfigError: it is neither.
    """
    if cache == "memory":
        return None
    kind, _, address = cache.partition(":")
    host, _, port = address.rpartition(":")
    if kind != "memcached" or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"cache = {cache!r}: say memory or memcached:HOST:PORT", field="cache", value=cache)
    return host.strip("[]"), int(port)
