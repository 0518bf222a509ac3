"""Looks at an installation as its server will, and says in words what is wrong and what to do."""

from __future__ import annotations

import grp
import os
import pwd
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from pandaserver.app import Installation, read_installation
from pandaserver.deploy.plan import Choices
from pandaserver.errors import PandaError, shorten
from pandaserver.taskbuffer import migrate
from pandaserver.taskbuffer.clock import Clock, database_time, utc_now
from pandaserver.taskbuffer.database import Database

_SOON = timedelta(days=14)
_CRL_SOON = timedelta(hours=24)
_CLOCKS_APART = timedelta(seconds=5)
_CONFIGTEST_TIMEOUT_S = 30
_OTHERS = 0o077
_WORLD = 0o007


class Verdict(StrEnum):
    """How good something is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was seen."""

    subject: str
    verdict: Verdict
    words: str


Findings = Iterator[Finding]


def check_all(choices: Choices, clock: Clock = utc_now) -> list[Finding]:
    """Look at everything; what cannot be looked at is bad and says why."""
    try:
        installation: Installation | None = read_installation(choices.config_file)
        findings = [Finding("configuration", Verdict.GOOD, str(choices.config_file))]
    except PandaError as error:
        installation, findings = None, [Finding("configuration", Verdict.BAD, error.message)]
    findings += check_host_certificate(choices, clock())
    findings += check_authorities(choices.ca_dir, clock())
    if installation is not None:
        findings += check_robot(installation, choices, clock())
        findings += check_folders(installation, choices)
        findings += check_database(installation, clock)
    findings += check_apache(choices)
    return findings


# ---- certificates


def check_host_certificate(choices: Choices, now: datetime) -> Findings:
    """Look at the certificate of this host and its key."""
    yield from _check_pair("host certificate", choices.host_cert, choices.host_key, now)
    certificate = _read_certificate(choices.host_cert)
    if isinstance(certificate, x509.Certificate) and choices.server_name not in _host_names(certificate):
        text = f"{choices.host_cert} is not made for {choices.server_name} but for {_listed(_host_names(certificate))}"
        yield Finding("host certificate", Verdict.BAD, text)


def check_robot(installation: Installation, choices: Choices, now: datetime) -> Findings:
    """Look at the certificate with which the server calls itself: its user, other than Apache's root, must read it."""
    ddm, server = installation.config.ddm, installation.config.server
    certificate, key = ddm.callback_cert or server.host_cert, ddm.callback_key or server.host_key
    yield from _check_pair("callback certificate", certificate, key, now)
    for path in (certificate, key):
        if path.exists() and not may_read(path, choices.user):
            text = f"{path} cannot be read by {choices.user}, as whom the server runs: chown {choices.user} {path}"
            yield Finding("callback certificate", Verdict.BAD, text)


def _check_pair(subject: str, certificate: Path, key: Path, now: datetime) -> Findings:
    found = _read_certificate(certificate)
    if isinstance(found, str):
        yield Finding(subject, Verdict.BAD, found)
        return
    yield _check_dates(subject, certificate, found, now)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        yield Finding(subject, Verdict.BAD, f"{key} is not the readable key of {certificate}: {error}")
        return
    mode = key.stat().st_mode & 0o777
    if mode & _OTHERS:
        text = f"{key} has mode {mode:03o}, so that others may read the key: chmod 600 {key}"
        yield Finding(subject, Verdict.BAD, text)


def _check_dates(subject: str, path: Path, certificate: x509.Certificate, now: datetime) -> Finding:
    end, begin = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now < begin:
        return Finding(subject, Verdict.BAD, f"{path} counts from {begin:%F %T} UTC: is the clock wrong?")
    if now > end:
        return Finding(subject, Verdict.BAD, f"{path} ran out at {end:%F %T} UTC: get a new one")
    if end - now < _SOON:
        return Finding(subject, Verdict.WARNING, f"{path} runs out at {end:%F %T} UTC: get a new one")
    return Finding(subject, Verdict.GOOD, f"{path}, until {end:%F}")


def _read_certificate(path: Path) -> x509.Certificate | str:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"{path} is no certificate in PEM: {shorten(str(error))}"


def _host_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nobody (it has no subjectAltName)"


def check_authorities(directory: Path, now: datetime) -> Findings:
    """Look at every authority's revocation list: where it is stale, everybody of that authority is refused."""
    stems = sorted(path.stem for path in directory.glob("*.0")) if directory.is_dir() else []
    if not stems:
        text = f"there are no authorities (*.0) in {directory}: install those of your grid (ca-policy-egi-core?)"
        yield Finding("authorities", Verdict.BAD, text)
        return
    troubles = [trouble for stem in stems if (trouble := _check_crl(directory / f"{stem}.r0", now))]
    yield from troubles
    if not troubles:
        yield Finding("authorities", Verdict.GOOD, f"{len(stems)} in {directory}, all with fresh revocation lists")


def _check_crl(path: Path, now: datetime) -> Finding | None:
    subject, renew = "revocation list", "run fetch-crl, then apachectl graceful"
    try:
        crl = x509.load_pem_x509_crl(path.read_bytes())
    except OSError as error:
        text = f"{path} cannot be read ({error.strerror}), so everybody of this authority is refused: {renew}"
        return Finding(subject, Verdict.BAD, text)
    except ValueError as error:
        return Finding(subject, Verdict.BAD, f"{path} is no revocation list in PEM ({shorten(str(error))}): {renew}")
    end = crl.next_update_utc
    if now < crl.last_update_utc:
        text = f"{path} is from {crl.last_update_utc:%F %T} UTC, which is yet to come: the clock of this host is wrong"
        return Finding(subject, Verdict.BAD, text)
    if end is not None and now > end:
        text = f"{path} ran out at {end:%F %T} UTC, so everybody of this authority is refused: {renew}"
        return Finding(subject, Verdict.BAD, text)
    if end is not None and end - now < _CRL_SOON:
        return Finding(subject, Verdict.WARNING, f"{path} runs out at {end:%F %T} UTC: {renew}")
    return None


# ---- files


def may_read(path: Path, user: str) -> bool:
    """Tell whether a user other than us can get to a file or into a folder, as far as modes tell."""
    if os.geteuid() != 0:
        return os.access(path, os.R_OK)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return False
    if account.pw_uid == 0:
        return True
    groups = {account.pw_gid} | {group.gr_gid for group in grp.getgrall() if user in group.gr_mem}
    whole = path.resolve()
    passes = all(_lets(parent.stat(), account.pw_uid, groups, 0o1) for parent in whole.parents)
    return passes and _lets(whole.stat(), account.pw_uid, groups, 0o5 if whole.is_dir() else 0o4)


def _lets(status: os.stat_result, uid: int, groups: set[int], wanted: int) -> bool:
    """Compare with the bits of the owner, of the group, or of all others: only one of them counts."""
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return (status.st_mode >> shift) & wanted == wanted


def check_folders(installation: Installation, choices: Choices) -> Findings:
    """Look at what the server reads and writes."""
    mode = choices.config_file.stat().st_mode & 0o777
    if mode & _WORLD:
        text = f"{choices.config_file} has mode {mode:03o} and may hold a password: chmod 640 {choices.config_file}"
        yield Finding("configuration", Verdict.BAD, text)
    if not may_read(choices.config_file, choices.user):
        text = f"{choices.config_file} cannot be read by {choices.user}: chgrp {choices.group} {choices.config_file}"
        yield Finding("configuration", Verdict.BAD, text)
    if choices.ca_dir.is_dir() and not may_read(choices.ca_dir, choices.user):
        text = f"{choices.ca_dir} cannot be read by {choices.user}: open it and the folders above it (chmod o+rx)"
        yield Finding("authorities", Verdict.BAD, text)
    cache = installation.config.cache.directory
    yield Finding("sandboxes", *_look_at_folder(cache, choices.user))
    log = installation.config.server.log_file
    if log is not None:
        yield Finding("log", *_look_at_folder(log.parent, choices.user))


def _look_at_folder(path: Path, user: str) -> tuple[Verdict, str]:
    if not path.is_dir():
        return Verdict.BAD, f"there is no folder {path}: install -d -o {user} {path}"
    owner = path.stat().st_uid
    if os.geteuid() == 0 and owner != _uid(user):
        return Verdict.BAD, f"{path} does not belong to {user}, who has to write there: chown {user} {path}"
    return Verdict.GOOD, str(path)


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


# ---- database and clock


def check_database(installation: Installation, clock: Clock = utc_now) -> Findings:
    """Look whether the database answers, has the right tables, and has the same time as this host."""
    database = Database(installation.config.database.write)
    try:
        migrate.check_current(database)
        yield Finding("database", Verdict.GOOD, "it answers and has the tables of this version")
        apart = abs(database.read(database_time) - clock())
        if apart > _CLOCKS_APART:
            text = f"this clock and the database's are {apart.total_seconds():.0f} s apart: use NTP on both"
            yield Finding("clock", Verdict.BAD, text)
        else:
            yield Finding("clock", Verdict.GOOD, "this host and the database have the same time")
    except PandaError as error:
        yield Finding("database", Verdict.BAD, error.message)
    except OSError as error:
        yield Finding("database", Verdict.BAD, f"no answer: {shorten(str(error))}")
    finally:
        database.close()


# ---- Apache


Run = Callable[[list[str]], tuple[int, str]]


def run_command(command: list[str]) -> tuple[int, str]:
    """Run a command; give its exit code and what it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CONFIGTEST_TIMEOUT_S, check=False
    )
    return done.returncode, done.stdout + done.stderr


def check_apache(choices: Choices, run: Run = run_command) -> Findings:
    """Let Apache read its configuration."""
    layout = choices.layout
    missing = [name for name in ("ssl", "wsgi", "gridsite") if not _module_is_there(layout.modules, name)]
    if not Path(layout.apache_binary).exists() or missing:
        what = f"Apache's modules {', '.join(missing)} are" if missing else "Apache is"
        yield Finding("Apache", Verdict.BAD, f"{what} not installed: {layout.install_apache}")
        return
    private = [layout.apache_binary, "-f", str(choices.private_conf), "-t"]
    command = private if choices.is_private else [layout.apache_ctl, "configtest"]
    try:
        code, said = run(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        code, said = 1, str(error)
    words = " ".join(line.strip() for line in said.splitlines() if line.strip())
    verdict = Verdict.BAD if code else Verdict.GOOD
    yield Finding("Apache", verdict, f"{' '.join(command)}: {shorten(words, 500)}")


def _module_is_there(modules: Path, name: str) -> bool:
    """Look for a module; that of mod_wsgi has the version of Python in its name on some systems."""
    return any(modules.glob(f"mod_{name}*.so"))
