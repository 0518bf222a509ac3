"""Reads the configuration file into frozen dataclasses and refuses it whole when a single word of it is wrong."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Mapping
from configparser import ConfigParser, SectionProxy
from configparser import Error as IniError
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from schedulers.breaker import BreakerRules
from schedulers.errors import ConfigError

QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
ON_STOP = ("leave", "cancel")


@dataclass(frozen=True)
class SchedulerConfig:
    """The section [scheduler]: whom to ask, how often, and the limits over all queues."""

    server: str
    state_dir: Path
    proxy: Path | None = None
    ca_dir: Path | None = None
    scheduler_id: str = field(default_factory=lambda: f"panda-scheduler@{socket.gethostname()}")
    interval_s: float = 60.0
    request_timeout_s: float = 20.0
    back_end: str = "fork"
    command_prefix: tuple[str, ...] = ()
    max_total: int = 100
    on_stop: str = "leave"
    stop_grace_s: float = 30.0
    keep_logs_s: float = 86400.0
    short_pilot_s: float = 20.0
    bad_pilots: int = 5
    pause_s: float = 30.0
    pause_max_s: float = 1800.0

    @property
    def breaker_rules(self) -> BreakerRules:
        """The keys that say when a queue is given a rest."""
        return BreakerRules(self.short_pilot_s, self.bad_pilots, self.pause_s, self.pause_max_s)


@dataclass(frozen=True)
class PilotConfig:
    """The section [pilot]: what is sent."""

    command: tuple[str, ...]
    work_dir: Path | None = None
    proxy: Path | None = None
    lifetime_s: int | None = None
    max_jobs: int | None = None
    idle_s: int | None = None
    poll_interval_s: float | None = None
    extra_options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QueueConfig:
    """A section [queue NAME]: how much is sent to it."""

    name: str
    slots: int = 1
    label: str = ""
    weight: float = 1.0
    min_pending: int = 0
    max_pending: int = 10
    max_running: int = 100
    per_cycle: int = 10
    test_pilots: int = 1
    starting_s: float = 30.0


@dataclass(frozen=True)
class Config:
    """The whole file."""

    scheduler: SchedulerConfig
    pilot: PilotConfig
    queues: tuple[QueueConfig, ...]


@dataclass(frozen=True)
class Kind:
    """One kind of value: how it is read, and in which words it is asked for."""

    read: Callable[[str], Any]
    wanted: str


def _number(kind: type[int] | type[float], lowest: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not lowest <= value < 1e9:
            raise ValueError(text)
        return value

    return read


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(text)
    return text.rstrip("/")


def _choice(*words: str) -> Kind:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Kind(read, f"one of {', '.join(words)}")


def _path(text: str) -> Path:
    if not text:
        raise ValueError(text)
    return Path(text).expanduser()


def _command(text: str) -> tuple[str, ...]:
    words = tuple(shlex.split(text))
    if not words or ("/" in words[0] and not words[0].startswith("/")):
        raise ValueError(text)
    return words


def _environment(text: str) -> dict[str, str]:
    pairs = [line.strip().partition("=") for line in text.splitlines() if line.strip()]
    if not all(name.isidentifier() and equals for name, equals, _ in pairs):
        raise ValueError(text)
    return {name: value for name, _, value in pairs}


COUNT = Kind(_number(int, 0), "a whole number, 0 or more")
POSITIVE = Kind(_number(int, 1), "a whole number, 1 or more")
SECONDS = Kind(_number(float, 0), "seconds, 0 or more")
WHOLE_SECONDS = Kind(_number(int, 0), "whole seconds, 0 or more")
INTERVAL = Kind(_number(float, 0.1), "seconds, 0.1 or more")
WORDS = Kind(lambda text: tuple(shlex.split(text)), "words as in a shell")
PATH = Kind(_path, "a path")
TEXT = Kind(str, "text")

KINDS: Mapping[type, Mapping[str, Kind]] = {
    SchedulerConfig: {
        "server": Kind(_url, "a URL such as https://host:25443"),
        "state_dir": PATH,
        "proxy": PATH,
        "ca_dir": PATH,
        "scheduler_id": TEXT,
        "interval_s": INTERVAL,
        "request_timeout_s": INTERVAL,
        "back_end": TEXT,
        "command_prefix": WORDS,
        "max_total": COUNT,
        "on_stop": _choice(*ON_STOP),
        "stop_grace_s": SECONDS,
        "keep_logs_s": SECONDS,
        "short_pilot_s": SECONDS,
        "bad_pilots": POSITIVE,
        "pause_s": SECONDS,
        "pause_max_s": SECONDS,
    },
    PilotConfig: {
        "command": Kind(_command, "a command, an absolute path or a name on the PATH"),
        "work_dir": PATH,
        "proxy": PATH,
        "lifetime_s": WHOLE_SECONDS,
        "max_jobs": POSITIVE,
        "idle_s": WHOLE_SECONDS,
        "poll_interval_s": INTERVAL,
        "extra_options": WORDS,
        "environment": Kind(_environment, "lines of the form NAME=value"),
    },
    QueueConfig: {
        "slots": POSITIVE,
        "label": TEXT,
        "weight": Kind(_number(float, 0), "a number, 0 or more"),
        "min_pending": COUNT,
        "max_pending": COUNT,
        "max_running": COUNT,
        "per_cycle": COUNT,
        "test_pilots": COUNT,
        "starting_s": SECONDS,
    },
}

Section = TypeVar("Section", SchedulerConfig, PilotConfig, QueueConfig)


def read_config(path: Path) -> Config:
    """Read and check the file; relative paths in it start at the folder it is in."""
    parser = ConfigParser(interpolation=None, default_section="", delimiters=("=",))
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, IniError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    _check_sections(parser, path)
    queues = tuple(_queue(parser[name], path) for name in parser.sections() if _is_queue(name))
    if len(queues) != len({queue.name for queue in queues}):
        raise ConfigError(f"{path}: the same queue has two sections: {', '.join(sorted(q.name for q in queues))}")
    return Config(
        _section(SchedulerConfig, parser["scheduler"], path),
        _section(PilotConfig, parser["pilot"], path),
        queues,
    )


def _check_sections(parser: ConfigParser, path: Path) -> None:
    wanted = "[scheduler], [pilot] and one [queue NAME] for each queue"
    for name in parser.sections():
        if name not in ("scheduler", "pilot") and not _is_queue(name):
            raise ConfigError(f"{path}: unknown section [{name}]; allowed are {wanted}")
    for name in ("scheduler", "pilot"):
        if not parser.has_section(name):
            raise ConfigError(f"{path}: section [{name}] is missing; needed are {wanted}")
    if not any(_is_queue(name) for name in parser.sections()):
        raise ConfigError(f"{path}: no section [queue NAME]; needed are {wanted}")


def _is_queue(section_name: str) -> bool:
    return section_name.split(maxsplit=1)[:1] == ["queue"]


def _queue(section: SectionProxy, path: Path) -> QueueConfig:
    name = section.name.removeprefix("queue").strip()
    if not QUEUE_NAME.fullmatch(name):
        raise ConfigError(
            f"{path}: [{section.name}]: not a queue name: {name!r}; letters, digits and _ . - are allowed"
        )
    queue = _section(QueueConfig, section, path, name=name)
    if queue.min_pending > queue.max_pending:
        where = f"{path}: [{section.name}] min_pending = {queue.min_pending}"
        raise ConfigError(f"{where}: must not exceed max_pending = {queue.max_pending}")
    return queue


def _section(cls: type[Section], section: SectionProxy, path: Path, **given: str) -> Section:
    kinds = KINDS[cls]
    values: dict[str, Any] = dict(given)
    for key, text in section.items():
        where = f"{path}: [{section.name}] {key} = {text}"
        if key not in kinds:
            raise ConfigError(f"{where}: unknown key; allowed are {', '.join(kinds)}")
        try:
            values[key] = _absolute(kinds[key].read(text), path)
        except ValueError as error:
            raise ConfigError(f"{where}: {kinds[key].wanted} is expected") from error
    missing = [f.name for f in fields(cls) if f.default is f.default_factory is MISSING and f.name not in values]
    if missing:
        raise ConfigError(f"{path}: [{section.name}]: {', '.join(missing)} must be given")
    return cls(**values)


def _absolute(value: object, path: Path) -> object:
    return path.absolute().parent / value if isinstance(value, Path) else value
