"""The configuration: INI files read into frozen dataclasses, all of it checked at start."""

from __future__ import annotations

import configparser
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from pandaserver.errors import ConfigError

DEFAULT_FILE = Path("/etc/panda/panda_server.cfg")

_THIS_MACHINE = ("127.0.0.1", "0.0.0.0", "::")  # told apart, not listened on  # nosec B104

T = TypeVar("T")


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True)
class ServerSection:
    """The front door."""

    host: str = "127.0.0.1"
    port: int = 25443
    url: str = ""  # as clients see it; made of host name and port where empty
    host_cert: Path = Path("/etc/grid-security/hostcert.pem")
    host_key: Path = Path("/etc/grid-security/hostkey.pem")
    ca_dir: Path = Path("/etc/grid-security/certificates")
    workers: int = 1
    threads: int = 32
    log_file: Path | None = None
    log_level: LogLevel = LogLevel.INFO
    max_body_mb: int = 20
    accept_pickles: bool = False

    @property
    def public_url(self) -> str:
        """Give the base URL that clients use."""
        host = "localhost" if self.host in _THIS_MACHINE else self.host
        return self.url.rstrip("/") or f"https://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class DatabaseSection:
    """SQLAlchemy URLs; what people look at may be read from a replica."""

    write: str
    read: str = ""


@dataclass(frozen=True, kw_only=True)
class IdentitySection:
    """Who is who: DNs in slash form or groups and roles, one per line; whose attributes and tokens count."""

    pilots: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    ddm: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()  # everybody where empty
    users: tuple[str, ...] = ()  # everybody where empty
    user_pilots: bool = False
    default_vo: str = ""
    vomsdir: Path | None = Path("/etc/grid-security/vomsdir")
    issuers: Path | None = None


@dataclass(frozen=True, kw_only=True)
class LimitsSection:
    """How much one DN may ask for, in each process."""

    user_rate: float | None = 100
    user_burst: int = 5000
    pilot_rate: float | None = None
    pilot_burst: int = 10000
    jobs_per_submission: int = 5000
    sandbox_mb_per_day: int | None = 10240


@dataclass(frozen=True, kw_only=True)
class CacheSection:
    """Sandbox files."""

    directory: Path
    max_upload_mb: int = 768


@dataclass(frozen=True, kw_only=True)
class DispatchSection:
    """Leases of attempts, and pilots that wait for a job with an open request."""

    lease_s: float = 7200
    sent_lease_s: float = 1800
    wait_max_s: float = 60
    parked_max: int | None = None  # in each process; half of the threads where empty


@dataclass(frozen=True, kw_only=True)
class BackgroundSection:
    """Background threads."""

    threads: int = 4  # for each kind of work
    lease_s: float = 60
    watch_period_s: float = 60
    recheck_period_s: float = 60
    give_up_after_s: float = 86400


@dataclass(frozen=True, kw_only=True)
class DDMSection:
    """The data management system; its callbacks show this certificate (the host's where empty)."""

    backend: str = "local"
    callback_cert: Path | None = None
    callback_key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class GridSection:
    """Where the grid is described."""

    sites: Path


@dataclass(frozen=True, kw_only=True)
class RetrySection:
    """What follows a failed attempt: rules of the installation, in front of the built-in ones."""

    rules: Path | None = None
    builtin: bool = True


@dataclass(frozen=True, kw_only=True)
class PrioritySection:
    """What moves the priority of analysis jobs; production has what it asks for."""

    raise_max: int | None = None
    daily_cpu_s: int | None = None
    ageing_after_s: float = 86400
    ageing_points: int | None = 40


_OR_ZERO = {"zero": True}  # zero has a meaning of its own


@dataclass(frozen=True, kw_only=True)
class ArchiveSection:
    """When ended jobs move into the archive, and how long they stay there."""

    after_s: float = field(default=259200, metadata=_OR_ZERO)
    keep_months: int = field(default=24, metadata=_OR_ZERO)  # 0: for ever
    period_s: float = 30
    batch: int = 500


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of the server's configuration."""

    server: ServerSection
    database: DatabaseSection
    identity: IdentitySection
    limits: LimitsSection
    cache: CacheSection
    dispatch: DispatchSection
    background: BackgroundSection
    ddm: DDMSection
    grid: GridSection
    retry: RetrySection
    priority: PrioritySection
    archive: ArchiveSection
    shares: dict[str, str] = field(default_factory=dict)  # name -> weight and patterns, as model.share reads them
    timeouts: dict[str, int] = field(default_factory=dict)  # state.subject -> seconds, where not the built-in ones


SECTIONS: dict[str, type[Any]] = {
    "server": ServerSection,
    "database": DatabaseSection,
    "identity": IdentitySection,
    "limits": LimitsSection,
    "cache": CacheSection,
    "dispatch": DispatchSection,
    "background": BackgroundSection,
    "ddm": DDMSection,
    "grid": GridSection,
    "retry": RetrySection,
    "priority": PrioritySection,
    "archive": ArchiveSection,
}
_FREE_SECTIONS = ("shares", "timeouts")  # whose keys are not fixed


def config_path(argument: str | None = None) -> Path:
    """Find the configuration: the argument, PANDA_CONFIG, or the usual place."""
    return Path(argument or os.environ.get("PANDA_CONFIG") or DEFAULT_FILE)


def load(path: Path) -> Config:
    """Read and check a configuration file; the sites file it names is externalinterface.sites' to read.

    Raises:
        ConfigError: naming file, section, key and value, and what is allowed.
    """
    parser = read_ini(path)
    unknown = set(parser.sections()) - set(SECTIONS) - set(_FREE_SECTIONS)
    if unknown:
        known = ", ".join(sorted([*SECTIONS, *_FREE_SECTIONS]))
        raise ConfigError(f"{path}: unknown section [{min(unknown)}]; known are {known}", field=min(unknown))
    parts = {
        name: build(kind, parser[name] if parser.has_section(name) else {}, where=f"{path} [{name}]", base=path.parent)
        for name, kind in SECTIONS.items()
    }
    for name, part in parts.items():
        _check_numbers(part, f"{path} [{name}]")
    _check_database(parts["database"], f"{path} [database]")
    _check_dns(parts["identity"], f"{path} [identity]")
    _check_submission(parts["limits"], f"{path} [limits]")
    database: DatabaseSection = parts["database"]
    urls = {name: _beside(url, path.parent) for name, url in vars(database).items()}
    parts["database"] = DatabaseSection(**urls)
    _check_parked(parts["dispatch"], parts["server"], f"{path} [dispatch]")
    _check_batch(parts["archive"], f"{path} [archive]")
    shares, seconds = (dict(parser[name]) if name in parser else {} for name in _FREE_SECTIONS)
    return Config(**parts, shares=shares, timeouts=_seconds(seconds, f"{path} [timeouts]"))


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
    told = {name: _value(text, hints[name], f"{where} {name}", base) for name, text in values.items()}
    return kind(**told, **given)


_TRUE, _FALSE = {"yes", "true", "on", "1"}, {"no", "false", "off", "0"}
_LARGEST = 1_000_000_000
URL = re.compile(r"[a-z][a-z0-9+]*://\S{1,1000}")


def _value(text: str, hint: Any, where: str, base: Path) -> Any:
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
    if isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value <= _LARGEST):
        raise ValueError(f"a number from 0 to {_LARGEST} is expected")
    return value


_MAX_PORT = 65535


def _check_numbers(section: Any, where: str) -> None:
    """No period, lease, size or number of threads makes sense as zero."""
    numbers = {k: v for k, v in vars(section).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    or_zero = {f.name for f in fields(section) if f.metadata == _OR_ZERO}
    for key, value in numbers.items():
        if (value <= 0 and not (value == 0 and key in or_zero)) or (key == "port" and value > _MAX_PORT):
            rule = f"a port from 1 to {_MAX_PORT}" if key == "port" else "a number above 0"
            raise ConfigError(f"{where} {key} = {value}: {rule} is expected", field=key, value=value)


def _check_database(database: DatabaseSection, where: str) -> None:
    for key in ("write", "read"):
        url = getattr(database, key)
        if url and not URL.fullmatch(url):
            text = f"{where} {key} is no URL; say sqlite:////var/lib/panda/panda.db or mysql+pymysql://USER:PASSWORD@HOST/NAME"
            raise ConfigError(text, field=key)  # without the value: it may hold a password


_FQAN = re.compile(r"(/[A-Za-z0-9_.*?\[\]-]+)+(/Role=[A-Za-z0-9_.*?\[\]-]+)?")


def is_dn(entry: str) -> bool:
    """Tell a DN in slash form from a VOMS attribute, whose first part is the name of a VO."""
    return "=" in entry.strip("/").partition("/")[0]


def _check_dns(identity: IdentitySection, where: str) -> None:
    """A DN in another form would never be equal to that of a certificate."""
    for key in ("pilots", "operators", "ddm", "producers", "users"):
        for entry in getattr(identity, key):
            if not entry.startswith("/") or not (is_dn(entry) or _FQAN.fullmatch(entry)):
                text = (
                    f"{where} {key}: {entry!r} is no DN in slash form, such as /DC=org/O=Grid/CN=Alice, and no VOMS"
                    " attribute, such as /atlas/Role=pilot; one per line"
                )
                raise ConfigError(text, field=key, value=entry)


_MOST_JOBS = 5000


def _check_submission(limits: LimitsSection, where: str) -> None:
    """One transaction takes a submission."""
    if limits.jobs_per_submission > _MOST_JOBS:
        text = f"{where} jobs_per_submission = {limits.jobs_per_submission}: at most {_MOST_JOBS}"
        raise ConfigError(text, field="jobs_per_submission", value=limits.jobs_per_submission)


def _check_parked(dispatch: DispatchSection, server: ServerSection, where: str) -> None:
    """Requests that wait in every thread would hold up all others."""
    most = dispatch.parked_max
    if most is not None and most >= server.threads:
        text = f"{where} parked_max = {most}: it must be less than [server] threads, {server.threads}"
        raise ConfigError(text, field="parked_max", value=most)


_MOST_IN_BATCH = 1000


def _check_batch(archive: ArchiveSection, where: str) -> None:
    """A transaction that is too large holds others up."""
    if archive.batch > _MOST_IN_BATCH:
        text = f"{where} batch = {archive.batch}: at most {_MOST_IN_BATCH} jobs go in one transaction"
        raise ConfigError(text, field="batch", value=archive.batch)


def _seconds(overrides: dict[str, str], where: str) -> dict[str, int]:
    """Read `state.subject = seconds` lines."""
    for name, text in overrides.items():
        if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) <= _LARGEST:
            rule = f"whole seconds, from 1 to {_LARGEST}"
            raise ConfigError(f"{where} {name} = {text!r}: {rule}", field=name, value=text)
    return {name: int(text) for name, text in overrides.items()}


def _beside(url: str, base: Path) -> str:
    """Let a SQLite file without absolute path lie beside the configuration."""
    start, name = "sqlite:///", url.removeprefix("sqlite:///")
    return f"{start}{(base / name).absolute()}" if url.startswith(start) and not name.startswith((":", "/")) else url
