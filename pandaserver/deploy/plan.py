"""What an installation shall be: all choices in one place, and every file that follows from them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pandaserver.config import Config
from pandaserver.deploy.layout import Layout
from pandaserver.deploy.listen import listens_already
from pandaserver.errors import ConfigError

_MB = 1024 * 1024
_INFLATED = 10  # Apache inflates up to so many times what the application takes
_LONGER_THAN_WAIT_S = 60
_FIELD = re.compile(r"@\{([a-z_]+)\}")
_OUR_OWN_LINES = ("error_documents", "private_user", "monitor_listen")
_SAFE = re.compile(r"[A-Za-z0-9_.:/@+ =\[\]-]*")

FRONT_ERRORS = {
    400: "the front end does not understand the request",
    403: "this is not allowed here: the plain HTTP port is for reading, use HTTPS",
    404: "there is no such address",
    408: "the request came too slowly and was given up",
    413: "the request is larger than the front end takes",
    414: "the address of the request is too long: send the parameters as a body",
    500: "the request could not be answered: a fault of the server, or a body that cannot be inflated",
    502: "the server is being restarted: try again",
    503: "the server is busy or being restarted: try again",
    504: "the server did not answer in time: ask what has become of the request before it is repeated",
}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the person who installs decides."""

    layout: Layout
    prefix: Path = Path("/")
    server_name: str = "localhost"
    address: str = ""  # all of them where empty
    user: str = "panda"
    group: str = "panda"
    scheduler_user: str = "panda-pilot"  # sends pilots, which run other people's programs where the back end is fork
    host_cert: Path = Path("/etc/grid-security/hostcert.pem")
    host_key: Path = Path("/etc/grid-security/hostkey.pem")
    ca_dir: Path = Path("/etc/grid-security/certificates")
    tls_port: int = 25443
    plain_port: int = 25080
    monitor_port: int | None = None  # no monitor behind Apache where None
    processes: int = 2
    python_home: Path = Path(sys.prefix)
    apache_user: str = ""  # the layout's where empty

    def below(self, path: str | Path) -> Path:
        """Put a path of the system below the prefix."""
        return self.prefix / Path(path).relative_to("/")

    @property
    def is_private(self) -> bool:
        """Tell whether this is an Apache of its own in a folder, and not that of the system."""
        return self.prefix != Path("/")

    @property
    def private_conf(self) -> Path:
        """Give the main file of such an Apache."""
        return self.config_dir / "httpd.conf"

    @property
    def config_dir(self) -> Path:
        """Give the folder of PanDA's own configuration."""
        return self.below("/etc/panda")

    @property
    def config_file(self) -> Path:
        """Give the file of the server's configuration."""
        return self.config_dir / "panda_server.cfg"

    @property
    def lib_dir(self) -> Path:
        """Give the folder of what Apache reads of PanDA."""
        return self.below("/usr/lib/panda")

    @property
    def state_dir(self) -> Path:
        """Give the folder of what PanDA keeps."""
        return self.below("/var/lib/panda")

    @property
    def log_dir(self) -> Path:
        """Give the folder of PanDA's own log."""
        return self.below("/var/log/panda")


@dataclass(frozen=True)
class File:
    """A file of the installation."""

    path: Path
    text: str
    kept: bool = False  # is the operator's, once it is there
    secret: bool = False  # may hold passwords: only root and the server read it


@dataclass(frozen=True)
class Folder:
    """A folder of the installation, and to whom it belongs."""

    path: Path
    mode: int
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class Link:
    """A symbolic link of the installation."""

    path: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """Everything that shall be there."""

    folders: tuple[Folder, ...]
    files: tuple[File, ...]
    links: tuple[Link, ...]


def sources() -> Path:
    """Find the folder with httpd/ and conf/: beside the package in a source tree, else below share/."""
    for candidate in (Path(__file__).resolve().parents[2], Path(sys.prefix) / "share" / "panda"):
        if (candidate / "httpd" / "panda.conf").is_file():
            return candidate
    raise ConfigError(f"the templates (httpd/) are neither in the source tree nor in {sys.prefix}/share/panda")


def fill(template: str, values: Mapping[str, object]) -> str:
    """Put values in place of @{name}.

    Raises:
        ConfigError: a value could end a quoted word or a line of the file it goes into.
    """

    def value(found: re.Match[str]) -> str:
        return str(values[found[1]])

    for name, given in values.items():
        if name not in _OUR_OWN_LINES and not _SAFE.fullmatch(str(given)):
            raise ConfigError(f"{name} = {given!r} has characters that configuration files cannot hold", field=name)
    return _FIELD.sub(value, template)


def make_plan(choices: Choices, config: Config | None) -> Plan:
    """Say what shall be there; sizes and threads are those of the configuration that is there already, if one is."""
    templates, values = sources(), _values(choices, config)
    files = [
        *_apache_files(choices, templates / "httpd", values),
        *_own_files(choices, templates, values),
        *_unit_files(choices, templates / "httpd", values),
    ]
    return Plan(tuple(_folders(choices, files)), tuple(files), tuple(_links(choices)))


def with_values(sample: str, changed: Mapping[tuple[str, str], object]) -> str:
    """Write values over those of a sample configuration; comments stay, and lists of names become empty."""
    lines, section, left = list[str](), "", dict(changed)
    dropping = False  # the further lines of a list that was changed
    for line in sample.splitlines():
        if dropping and line.startswith((" ", "\t")):
            continue
        key = line.partition("=")[0].strip()
        section = line.strip("[]") if line.startswith("[") else section
        dropping = (section, key) in left
        lines.append(f"{key} = {left.pop((section, key))}".rstrip() if dropping else line)
    if left:
        raise ConfigError(f"the sample configuration has no {min(left)}")
    return "\n".join(lines) + "\n"


def _values(choices: Choices, config: Config | None) -> dict[str, object]:
    threads = config.server.threads if config else 32
    body_mb = config.server.max_body_mb if config else 20
    upload_mb = config.cache.max_upload_mb if config else 768
    wait_s = config.dispatch.wait_max_s if config else 60
    layout = choices.layout
    listen = f"[{choices.address}]" if ":" in choices.address else choices.address
    process_user = f"user={choices.user} group={choices.group} " if os.geteuid() == 0 else ""
    plain: tuple[str, ...] = (
        "server_name",
        "user",
        "group",
        "host_cert",
        "host_key",
        "ca_dir",
        "tls_port",
        "plain_port",
    )
    plain += (
        "scheduler_user",
        "monitor_port",
        "processes",
        "python_home",
        "config_dir",
        "lib_dir",
        "state_dir",
        "log_dir",
    )
    return {name: getattr(choices, name) for name in plain} | {
        "listen": f"{listen}:" if listen else "",
        "monitor_listen": _monitor_listen(choices, f"{listen}:" if listen else ""),
        "threads": threads,
        "timeout_s": round(wait_s) + _LONGER_THAN_WAIT_S,
        "max_body_bytes": (body_mb + 1) * _MB,
        "max_upload_bytes": (upload_mb + 2) * _MB,
        "inflate_limit_bytes": _INFLATED * body_mb * _MB,
        "process_user": process_user,
        "modules": layout.modules,
        "run_dir": choices.below(layout.run_dir),
        "apache_log_dir": choices.below(layout.apache_log_dir),
        "apache_ctl": layout.apache_ctl,
        "bin_dir": choices.python_home / "bin",
        "apache_binary": layout.apache_binary,
        "prefix": choices.prefix,
        "private_conf": choices.private_conf,
        "include": choices.below(layout.enabled or layout.sites),
        "private_user": _private_user(choices),
        "error_documents": "\n".join(f"ErrorDocument {code} /panda-errors/{code}.json" for code in FRONT_ERRORS),
    }


def _monitor_listen(choices: Choices, address: str) -> str:
    """Say where the monitor's host listens, unless the distribution's Apache listens there: on 443 it often does."""
    if not choices.is_private and listens_already(choices.layout, choices.monitor_port or 0):
        return f"# Apache listens on {choices.monitor_port} already."
    return f"Listen {address}{choices.monitor_port}"


def _private_user(choices: Choices) -> str:
    """Say as whom Apache answers requests, where it starts as root; an ordinary user's Apache stays his."""
    user = choices.apache_user or choices.layout.apache_user
    return f"User {user}\nGroup {user}" if os.geteuid() == 0 else ""


def _apache_files(choices: Choices, templates: Path, values: Mapping[str, object]) -> Iterator[File]:
    sites = choices.below(choices.layout.sites)
    monitor = choices.monitor_port is not None
    for name in ("panda.conf", *(["panda-monitor.conf"] if monitor else [])):
        yield File(sites / name, fill(_read(templates / name), values))
    for name in ("panda-common.conf", "panda.wsgi", *(["panda-monitor.wsgi"] if monitor else [])):
        yield File(choices.lib_dir / name, fill(_read(templates / name), values))
    if choices.is_private:
        yield File(choices.private_conf, fill(_read(templates / "private.conf"), values))
    error = _read(templates / "errors.json")
    for code, text in FRONT_ERRORS.items():
        filled = error.replace("@{status}", str(code)).replace("@{text}", text)
        yield File(choices.lib_dir / "errors" / f"{code}.json", filled)


def _own_files(choices: Choices, templates: Path, values: Mapping[str, object]) -> Iterator[File]:
    """Give PanDA's own configuration, made of the samples."""
    own = choices.config_dir
    server = {
        ("server", "port"): choices.tls_port,
        ("server", "url"): f"https://{choices.server_name}:{choices.tls_port}",
        ("server", "host_cert"): choices.host_cert,
        ("server", "host_key"): choices.host_key,
        ("server", "ca_dir"): choices.ca_dir,
        ("server", "log_file"): choices.log_dir / "server.log",
        ("database", "write"): "mysql+pymysql://panda:CHANGE-ME@localhost/panda?charset=utf8mb4",
        ("identity", "pilots"): "",
        ("identity", "operators"): "",
        ("identity", "ddm"): "",
        ("cache", "directory"): choices.state_dir / "cache",
        ("ddm", "callback_cert"): own / "robotcert.pem",
        ("ddm", "callback_key"): own / "robotkey.pem",
    }
    yield File(
        choices.config_file, with_values(_read(templates / "conf" / "panda_server.cfg"), server), kept=True, secret=True
    )
    reader = "mysql+pymysql://panda_reader:CHANGE-ME@localhost/panda?charset=utf8mb4"
    monitor = with_values(_read(templates / "conf" / "monitor.cfg"), {("monitor", "database"): reader})
    yield File(own / "monitor.cfg", monitor, kept=True, secret=True)
    scheduler = {("scheduler", "server"): server["server", "url"], ("scheduler", "ca_dir"): choices.ca_dir}
    yield File(own / "scheduler.cfg", with_values(_read(templates / "conf" / "scheduler.cfg"), scheduler), kept=True)
    for sample in sorted((templates / "conf").glob("*.cfg")):
        if sample.name not in ("panda_server.cfg", "monitor.cfg", "scheduler.cfg"):
            yield File(own / sample.name, _read(sample), kept=True, secret=True)


def _unit_files(choices: Choices, templates: Path, values: Mapping[str, object]) -> Iterator[File]:
    units = choices.below("/etc/systemd/system")
    for template in sorted((templates / "systemd").iterdir()):
        yield File(units / template.name, fill(_read(template), values))
    yield File(choices.below("/etc/logrotate.d/panda"), fill(_read(templates / "logrotate.conf"), values))


def _folders(choices: Choices, files: list[File]) -> Iterator[Folder]:
    user, group = choices.user, choices.group
    apache_user = choices.apache_user or choices.layout.apache_user
    yield Folder(choices.config_dir, 0o755)
    yield Folder(choices.config_dir / "httpd-local", 0o755)
    yield Folder(choices.state_dir, 0o755, user, group)
    yield Folder(choices.state_dir / "cache", 0o750, user, group)
    yield Folder(choices.state_dir / "gridsite", 0o700, apache_user, "root")
    yield Folder(choices.log_dir, 0o750, user, group)
    yield Folder(choices.below(choices.layout.run_dir), 0o755)
    yield Folder(choices.below(choices.layout.apache_log_dir), 0o750, "root", choices.layout.apache_log_group)
    for path in sorted({file.path.parent for file in files} - {choices.config_dir}):
        yield Folder(path, 0o755)


def _links(choices: Choices) -> Iterator[Link]:
    """Give the links by which Debian's Apache takes the files."""
    if choices.layout.enabled is not None:
        enabled, sites = choices.below(choices.layout.enabled), choices.below(choices.layout.sites)
        for name in ("panda.conf", *(["panda-monitor.conf"] if choices.monitor_port is not None else [])):
            yield Link(enabled / name, sites / name)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
