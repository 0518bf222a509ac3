"""Looks at the user's proxy before the server does, because TLS says no without saying why."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from pandaserver.client.failures import NotAuthenticated

log = logging.getLogger(__name__)

RENEW = "make a new one with voms-proxy-init or grid-proxy-init"
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Proxy:
    """A proxy file that looks usable; `not_after` is when the first of its certificates expires."""

    path: Path
    subject: str
    not_after: datetime


def default_proxy() -> Path:
    """Give the place where grid tools put a user's proxy."""
    return Path(tempfile.gettempdir()) / f"x509up_u{os.getuid()}"


def find_proxy(chosen: str | None, environ: Mapping[str, str]) -> Path | None:
    """Choose the proxy: what was asked for, X509_USER_PROXY, or the usual place if there is one."""
    named = chosen or environ.get("X509_USER_PROXY")
    if named:
        return Path(named)
    return default_proxy() if default_proxy().exists() else None


def check_proxy(path: Path, now: datetime | None = None) -> Proxy:
    """Read a proxy and see whether it can be used.

    Raises:
        NotAuthenticated: it cannot; the message says why and what to do.
    """
    content = _read(path)
    certificates = _certificates(content, path)
    _check_key(content, path)
    _check_dates(certificates, path, now or datetime.now(UTC))
    return Proxy(
        path=path,
        subject=certificates[0].subject.rfc4514_string(),
        not_after=min(each.not_valid_after_utc for each in certificates),
    )


def warn_if_exposed(path: Path) -> None:
    """Say so when the private key in a proxy file is not private."""
    if path.stat().st_mode & 0o077:
        log.warning("others may read the private key in %s: chmod 600 it", path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except FileNotFoundError:
        raise _unusable(path, f"proxy file {path} does not exist: {RENEW}, or name it by X509_USER_PROXY") from None
    except OSError as error:
        raise _unusable(path, f"proxy file {path} cannot be read: {error.strerror}") from error


def _certificates(content: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        text = f"proxy file {path} holds no certificate in PEM form that can be understood: {RENEW}"
        raise _unusable(path, text) from error


def _check_key(content: bytes, path: Path) -> None:
    if b"PRIVATE KEY-----" not in content:
        text = f"{path} holds a certificate without its private key: give the proxy, not the certificate ({RENEW})"
        raise _unusable(path, text)
    if b"ENCRYPTED" in content:
        raise _unusable(path, f"the private key in {path} has a pass phrase: give a proxy ({RENEW})")


def _check_dates(certificates: list[x509.Certificate], path: Path, now: datetime) -> None:
    for place, each in enumerate(certificates):
        if now > each.not_valid_after_utc:
            raise _unusable(path, _expired(each, path, is_proxy=place == 0, now=now))
        if now < each.not_valid_before_utc:
            text = f"the proxy {path} is valid from {_moment(each.not_valid_before_utc)} only: is this clock right?"
            raise _unusable(path, text)


def _expired(certificate: x509.Certificate, path: Path, *, is_proxy: bool, now: datetime) -> str:
    end = certificate.not_valid_after_utc
    when = f"expired at {_moment(end)}, {duration(now - end)} ago"
    if is_proxy:
        return f"the proxy {path} {when}: {RENEW}"
    name = certificate.subject.rfc4514_string()
    return f"the certificate of {name}, from which the proxy {path} was made, {when}: get a new one from your CA"


def duration(span: timedelta) -> str:
    """Write a time span as people say it, in its two largest units."""
    minutes = max(0, int(span.total_seconds() // 60))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _unusable(path: Path, text: str) -> NotAuthenticated:
    return NotAuthenticated(text, field="proxy", value=str(path))
