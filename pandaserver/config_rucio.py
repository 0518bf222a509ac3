"""What the server has to know of the Rucio that manages its data: the section [rucio] of the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from pandaserver.errors import ConfigError

_HERE = ("localhost", "127.0.0.1", "::1")


class RucioLogin(StrEnum):
    """How the server says to Rucio who it is."""

    X509_PROXY = "x509_proxy"
    USERPASS = "userpass"


@dataclass(frozen=True, kw_only=True)
class RucioSection:
    """Rucio, where [ddm] backend says so."""

    url: str = ""
    auth_url: str = ""  # the same where empty
    account: str = "panda"
    login: RucioLogin = RucioLogin.X509_PROXY
    proxy: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_dir: Path | None = None  # [server] ca_dir where empty
    timeout_s: float = 60
    rses: tuple[str, ...] = ()  # "ENDPOINT RSE", where the two have different names
    input_activity: str = "Production Input"
    output_activity: str = "Production Output"
    input_lifetime_s: int = 604800
    dataset_metadata: tuple[str, ...] = ()  # "KEY VALUE", given to each dataset that is made
    make_scopes: bool = False
    name_pattern: str = r"[/A-Za-z0-9][/A-Za-z0-9._-]{0,249}"
    scope_pattern: str = r"[A-Za-z0-9._-]{1,25}"
    hermes_username: str = ""
    hermes_password_file: Path | None = None

    @property
    def rse_of(self) -> dict[str, str]:
        """Give the RSEs of endpoints, where the two have different names."""
        return pairs(self.rses)


def pairs(lines: tuple[str, ...]) -> dict[str, str]:
    """Read lines of a name and what it stands for."""
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in lines)}


def check_rucio(section: RucioSection, where: str, *, used: bool) -> None:
    """Refuse what Rucio could not be asked with.

    Raises:
        ConfigError: naming the key.
    """
    for key in ("name_pattern", "scope_pattern"):
        _check_pattern(getattr(section, key), key, where)
    for key in ("rses", "dataset_metadata"):
        _check_pairs(getattr(section, key), key, where)
    if bool(section.hermes_username) != bool(section.hermes_password_file):
        raise _error(where, "hermes_username", section.hermes_username, "it goes with hermes_password_file")
    for key in ("url", "auth_url"):
        if getattr(section, key):
            _check_url(getattr(section, key), key, where)
    if used:
        _check_login(section, where)


def _check_pattern(text: str, key: str, where: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise _error(where, key, text, f"it is no regular expression: {error}") from error


def _check_pairs(lines: tuple[str, ...], key: str, where: str) -> None:
    for line in lines:
        if len(line.split(maxsplit=1)) != 2:
            raise _error(where, key, line, "two words in a line, with a blank between them")
    values = [line.split(maxsplit=1)[1] for line in lines]
    if key == "rses" and len(set(values)) < len(values):
        raise _error(where, key, max(values, key=values.count), "two endpoints cannot be the same RSE")


def _check_url(url: str, key: str, where: str) -> None:
    """Passwords and proxies go there: not in the clear, unless it is this machine."""
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise _error(where, key, url, "say https://HOST:PORT")
    if parts.scheme == "http" and parts.hostname not in _HERE:
        raise _error(where, key, url, "https is needed to any other machine")


def _check_login(section: RucioSection, where: str) -> None:
    if not section.url:
        raise _error(where, "url", "", "[ddm] backend is rucio: say where it is")
    if section.login is RucioLogin.USERPASS and not (section.username and section.password_file):
        raise _error(where, "username", section.username, "login = userpass needs username and password_file")
    if section.login is RucioLogin.X509_PROXY and section.proxy is None:
        raise _error(where, "proxy", "", "login = x509_proxy needs the file of a proxy")


def secret(path: Path | None, key: str) -> str:
    """Read a file with a password.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[rucio] {key}: cannot read {path}: {error}", field=key, value=path) from error
    if not text:
        raise ConfigError(f"[rucio] {key}: {path} is empty", field=key, value=path)
    return text


def _error(where: str, key: str, value: str, text: str) -> ConfigError:
    return ConfigError(f"{where} {key} = {value!r}: {text}", field=key, value=value)
