"""The configuration: INI files read into frozen dataclasses, all of it checked at start."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from pandaserver.config_rucio import RucioSection, check_rucio
from pandaserver.errors import ConfigError
from pandaserver.ini import LARGEST, URL, build, read_ini

DEFAULT_FILE = Path("/etc/panda/panda_server.cfg")

_THIS_MACHINE = ("127.0.0.1", "0.0.0.0", "::")  # told apart, not listened on  # nosec B104


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
    """How much one DN, or one address without a certificate, may ask for, in each process."""

    user_rate: float | None = 100
    user_burst: int = 5000
    pilot_rate: float | None = None
    pilot_burst: int = 10000
    anonymous_rate: float | None = 200
    anonymous_burst: int = 20000
    jobs_per_submission: int = 5000
    sandbox_mb_per_day: int | None = 10240


@dataclass(frozen=True, kw_only=True)
class CacheSection:
    """Sandbox files."""

    directory: Path
    max_upload_mb: int = 768
    public: bool = True


@dataclass(frozen=True, kw_only=True)
class SecretsSection:
    """Secrets that users leave for their jobs."""

    key_file: Path | None = None


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
    """The data management system, and what it shows to this server with its callbacks and to storage."""

    backend: str = "local"
    callback_cert: Path | None = None
    callback_key: Path | None = None
    storage_cert: Path | None = None
    storage_key: Path | None = None
    storage_ca_dir: Path | None = None
    poll_period_s: float = 45
    dispatch_kept_s: float = 259200


@dataclass(frozen=True, kw_only=True)
class NotificationSection:
    """Mail to users whose jobs have ended; none where no host is named."""

    smtp_host: str = ""
    smtp_port: int = 25
    starttls: bool = True
    sender: str = ""
    domain: str = ""
    monitor: str = ""


@dataclass(frozen=True, kw_only=True)
class GridSection:
    """Where the grid is described: a file of our own, and queue and storage data as CRIC publishes them."""

    sites: Path
    cric: str = ""
    cric_endpoints: str = ""
    cric_period_s: float = 600


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
class BrokerageSection:
    """How queues are chosen, and when jobs that wait are sent elsewhere; `allow` and `deny` are lines `QUEUES DN`."""

    seed: str = ""
    spread: float = field(default=0.1, metadata=_OR_ZERO)
    finalists: int = 2
    much_worse: float = 2.0
    tier1_bonus: float = 2.0
    tier1_inputs: int = field(default=4, metadata=_OR_ZERO)
    tier1_input_mb: int = field(default=500, metadata=_OR_ZERO)
    tier1_only_inputs: int | None = 20
    tier1_only_priority: int | None = 950
    pilots_within_s: float | None = 10800
    silent_jobs: int = field(default=10, metadata=_OR_ZERO)
    free_min_mb: int = field(default=1000, metadata=_OR_ZERO)
    free_per_job_mb: int = field(default=250, metadata=_OR_ZERO)
    backlog_mb: int = 100_000
    bunch_jobs: int = 20
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rebroker_period_s: float = 300
    rebroker_most: int | None = 500
    overshoot_ratio: float | None = 3.0
    overshoot_after_s: float = field(default=3600, metadata=_OR_ZERO)


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
    secrets: SecretsSection
    dispatch: DispatchSection
    background: BackgroundSection
    ddm: DDMSection
    rucio: RucioSection
    notification: NotificationSection
    grid: GridSection
    retry: RetrySection
    priority: PrioritySection
    archive: ArchiveSection
    brokerage: BrokerageSection
    shares: dict[str, str] = field(default_factory=dict)  # name -> weight and patterns, as model.share reads them
    timeouts: dict[str, int] = field(default_factory=dict)  # state.subject -> seconds, where not the built-in ones


SECTIONS: dict[str, type[Any]] = {
    "server": ServerSection,
    "database": DatabaseSection,
    "identity": IdentitySection,
    "limits": LimitsSection,
    "cache": CacheSection,
    "secrets": SecretsSection,
    "dispatch": DispatchSection,
    "background": BackgroundSection,
    "ddm": DDMSection,
    "rucio": RucioSection,
    "notification": NotificationSection,
    "grid": GridSection,
    "retry": RetrySection,
    "priority": PrioritySection,
    "archive": ArchiveSection,
    "brokerage": BrokerageSection,
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
    _check_notification(parts["notification"], f"{path} [notification]")
    database: DatabaseSection = parts["database"]
    urls = {name: _beside(url, path.parent) for name, url in vars(database).items()}
    parts["database"] = DatabaseSection(**urls)
    _check_parked(parts["dispatch"], parts["server"], f"{path} [dispatch]")
    check_rucio(parts["rucio"], f"{path} [rucio]", used=parts["ddm"].backend == "rucio")
    _check_batch(parts["archive"], f"{path} [archive]")
    _check_access(parts["brokerage"], f"{path} [brokerage]")
    _check_cric(parts["grid"], f"{path} [grid]")
    shares, seconds = (dict(parser[name]) if name in parser else {} for name in _FREE_SECTIONS)
    return Config(**parts, shares=shares, timeouts=_seconds(seconds, f"{path} [timeouts]"))


MAIL_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,180}[A-Za-z0-9])?")
_MAX_PORT = 65535


def _check_numbers(section: Any, where: str) -> None:
    """No period, lease, size or number of threads makes sense as zero."""
    numbers = {k: v for k, v in vars(section).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    or_zero = {f.name for f in fields(section) if f.metadata == _OR_ZERO}
    for key, value in numbers.items():
        if (value <= 0 and not (value == 0 and key in or_zero)) or (key.endswith("port") and value > _MAX_PORT):
            rule = f"a port from 1 to {_MAX_PORT}" if key.endswith("port") else "a number above 0"
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


def _check_notification(notification: NotificationSection, where: str) -> None:
    """Nobody takes mail that comes from nowhere."""
    if notification.smtp_host and not MAIL_ADDRESS.fullmatch(notification.sender):
        text = f"{where} sender = {notification.sender!r}: an address is expected, such as panda@example.org"
        raise ConfigError(text, field="sender", value=notification.sender)
    if notification.domain and not MAIL_ADDRESS.fullmatch(f"somebody@{notification.domain}"):
        text = f"{where} domain = {notification.domain!r}: the part of addresses behind the @ is expected"
        raise ConfigError(text, field="domain", value=notification.domain)


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


def _check_cric(grid: GridSection, where: str) -> None:
    """What decides where jobs run comes from a file of this host or over a verified connection."""
    for key in ("cric", "cric_endpoints"):
        place = getattr(grid, key)
        if place and not (place.startswith("/") or (place.startswith("https://") and URL.fullmatch(place))):
            said = f"{where} {key} = {place!r}: the full path of a file or an https URL is expected"
            raise ConfigError(said, field=key, value=place)
    if grid.cric_endpoints and not grid.cric:
        raise ConfigError(f"{where} cric_endpoints: it belongs to cric, which is empty", field="cric_endpoints")


def _check_access(brokerage: BrokerageSection, where: str) -> None:
    """A pattern of queues that stood alone would be about nobody."""
    for key in ("allow", "deny"):
        for line in getattr(brokerage, key):
            if len(line.split(None, 1)) < 2:
                text = f"{where} {key}: {line!r} names no user; say QUEUES DN, both may have * and ? and [abc]"
                raise ConfigError(text, field=key, value=line)


def _seconds(overrides: dict[str, str], where: str) -> dict[str, int]:
    """Read `state.subject = seconds` lines."""
    for name, text in overrides.items():
        if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) <= LARGEST:
            rule = f"whole seconds, from 1 to {LARGEST}"
            raise ConfigError(f"{where} {name} = {text!r}: {rule}", field=name, value=text)
    return {name: int(text) for name, text in overrides.items()}


def _beside(url: str, base: Path) -> str:
    """Let a SQLite file without absolute path lie beside the configuration."""
    start, name = "sqlite:///", url.removeprefix("sqlite:///")
    return f"{start}{(base / name).absolute()}" if url.startswith(start) and not name.startswith((":", "/")) else url
