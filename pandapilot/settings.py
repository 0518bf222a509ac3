"""What the pilot was told on its command line and by its environment, checked before anything is done."""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from pandapilot.certificates import expiry
from pandapilot.codes import ExitCode
from pandapilot.failures import CannotWork

logger = logging.getLogger(__name__)

DEFAULT_CA_DIRECTORY = "/etc/grid-security/certificates"
_USUAL_PROXY = "/tmp/x509up_u{uid}"  # where grid tools leave it  # nosec B108


@dataclass(frozen=True)
class Identity:
    """How the pilot shows who it is and recognises the server; no proxy means plain HTTP to this machine."""

    proxy: Path | None
    ca_directory: Path | None


@dataclass(frozen=True)
class Settings:
    """All that can be chosen about a pilot."""

    server: str
    queue: str
    identity: Identity
    work_directory: Path
    pilot_id: str
    scheduler_id: str
    label: str | None = None
    lifetime_s: float = 86400.0
    max_jobs: int = 0
    idle_s: float = 60.0
    poll_interval_s: float = 10.0
    wait_s: float = 30.0
    heartbeat_s: float = 0.0
    final_update_s: float = 1200.0
    looping_s: float = 10800.0
    check_interval_s: float = 5.0
    kill_grace_s: float = 10.0
    retry_pause_s: float = 5.0
    log_file: Path | None = None
    dry_run: bool = False

    @property
    def reserve_s(self) -> float:
        """How much of the pilot's life is kept for stage-out, log and report."""
        return min(600.0, self.lifetime_s / 10)


def server_url(text: str, *, insecure_http: bool) -> str:
    """Check the server's URL: https, or plain http to this very machine when that was asked for."""
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"server {text!r} must look like https://host:25443")
    if parts.scheme == "http" and not (insecure_http and is_loopback(parts.hostname)):
        raise ValueError(f"server {text!r}: plain http is for tests on this machine only (--insecure-http); use https")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_identity(server: str, proxy: str | None, ca_directory: str | None) -> Identity:
    """Find proxy and CA directory by option, environment and custom; raises CannotWork when they are no use."""
    if server.startswith("http:"):
        return Identity(proxy=None, ca_directory=None)
    return Identity(
        proxy=_usable_proxy(_chosen(proxy, os.environ, "X509_USER_PROXY", _USUAL_PROXY.format(uid=os.getuid()))),
        ca_directory=_usable_directory(_chosen(ca_directory, os.environ, "X509_CERT_DIR", DEFAULT_CA_DIRECTORY)),
    )


def _chosen(option: str | None, environment: Mapping[str, str], variable: str, custom: str) -> Path:
    return Path(option or environment.get(variable) or custom).absolute()


def _usable_proxy(path: Path) -> Path:
    """Check that the file holds a certificate and its key, and that it has not expired."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password=b"")
        if (end := expiry(path.read_text(encoding="ascii", errors="replace"))) < datetime.now(timezone.utc):
            raise ValueError(f"it expired at {end:%Y-%m-%d %H:%M} UTC")
    except (OSError, ValueError) as error:
        raise CannotWork(
            ExitCode.NO_PROXY,
            f"proxy {path} is no use ({error}); make one with voms-proxy-init and name it by --proxy "
            "or X509_USER_PROXY: one PEM file with certificate and unencrypted key",
        ) from None
    if path.stat().st_mode & 0o077:
        logger.warning("proxy %s can be used by others on this machine; it should have mode 0600", path)
    return path


def _usable_directory(path: Path) -> Path:
    if not path.is_dir():
        raise CannotWork(
            ExitCode.NO_CA_DIRECTORY,
            f"CA directory {path} does not exist; name it by --ca-dir or X509_CERT_DIR: a directory with hashed names",
        )
    return path
