"""The words about what is wrong with an installation: each trouble made on purpose, and found."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pki as making
import pytest
from cryptography import x509
from factories import Pki, prepare, write_config

from pandaserver.app import read_installation
from pandaserver.deploy.checks import (
    Finding,
    Verdict,
    check_all,
    check_apache,
    check_authorities,
    check_database,
    check_folders,
    check_host_certificate,
    check_robot,
    may_read,
)
from pandaserver.deploy.layout import DEBIAN
from pandaserver.deploy.plan import Choices

ME = Path.home().owner() if os.geteuid() else "root"
NOW = datetime.now(UTC)


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    """An installation with certificates of its own, in which all is good."""
    authority = making.make_authority("CA", period=making.lasting(days=100))
    host = making.issue(authority, "localhost", period=making.lasting(days=90), hosts=[x509.DNSName("localhost")])
    making.write(tmp_path / "hostcert.pem", host.certificate_pem(), mode=0o644)
    making.write(tmp_path / "hostkey.pem", host.key_pem(), mode=0o600)
    crl = making.revocation_list(authority, [], period=making.lasting(days=30))
    making.write_ca_directory(tmp_path / "certificates", authority, crl=crl)
    making.write(tmp_path / "ddm.pem", making.delegate(host, period=making.lasting(days=80)).pem(), mode=0o600)
    people = Pki(tmp_path, dict.fromkeys(("pilot", "prodman", "ddm"), "/CN=x"))
    write_config(tmp_path / "prefix/etc/panda", people, f"sqlite:///{tmp_path}/panda.db").chmod(0o640)
    (tmp_path / "prefix/etc/panda/cache").mkdir()
    return Choices(
        layout=DEBIAN, prefix=tmp_path / "prefix", user=ME, group=ME, host_cert=tmp_path / "hostcert.pem",
        host_key=tmp_path / "hostkey.pem", ca_dir=tmp_path / "certificates",
    )  # fmt: skip


def bad(findings: object) -> list[str]:
    return [f.words for f in findings if f.verdict is Verdict.BAD]  # type: ignore[attr-defined]


def warned(findings: object) -> list[str]:
    return [f.words for f in findings if f.verdict is Verdict.WARNING]  # type: ignore[attr-defined]


# ---- certificates


def test_a_good_host_certificate(choices: Choices) -> None:
    (found,) = check_host_certificate(choices, NOW)
    assert found.verdict is Verdict.GOOD and str(choices.host_cert) in found.words


@pytest.mark.parametrize(
    ("after", "words"), [({"days": 91}, "ran out"), ({"days": -2}, "clock"), ({"days": 5000}, "get a new one")]
)
def test_its_dates(choices: Choices, after: dict[str, int], words: str) -> None:
    (said,) = bad(check_host_certificate(choices, NOW + timedelta(**after)))
    assert words in said


def test_it_warns_before_the_end(choices: Choices) -> None:
    (said,) = warned(check_host_certificate(choices, NOW + timedelta(days=80)))
    assert "runs out" in said


def test_it_is_for_another_host(choices: Choices) -> None:
    (said,) = bad(check_host_certificate(replace(choices, server_name="panda.example.org"), NOW))
    assert "not made for panda.example.org but for localhost" in said


def test_a_key_that_others_may_read(choices: Choices) -> None:
    choices.host_key.chmod(0o644)
    (said,) = bad(check_host_certificate(choices, NOW))
    assert "mode 644" in said and f"chmod 600 {choices.host_key}" in said


def test_a_key_of_another_certificate(choices: Choices) -> None:
    other = making.make_authority("other", period=making.lasting(days=1))
    making.write(choices.host_key, other.key_pem(), mode=0o600)
    (said,) = bad(check_host_certificate(choices, NOW))
    assert "is not the readable key of" in said


SPOILT: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.unlink(), "cannot be read: No such file"),
    (lambda path: path.write_text("nonsense"), "no certificate in PEM"),
    (lambda path: path.write_bytes(b"\xff\xfe"), "no certificate in PEM"),
]


@pytest.mark.parametrize(("spoil", "words"), SPOILT)
def test_no_certificate(choices: Choices, spoil: Callable[[Path], object], words: str) -> None:
    spoil(choices.host_cert)
    (said,) = bad(check_host_certificate(choices, NOW))
    assert words in said


# ---- revocation lists


def test_good_authorities(choices: Choices) -> None:
    (found,) = check_authorities(choices.ca_dir, NOW)
    assert found == Finding("authorities", Verdict.GOOD, f"2 in {choices.ca_dir}, all with fresh revocation lists")


def test_no_authorities(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        assert "no authorities" in bad(check_authorities(place, NOW))[0]


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [(31, Verdict.BAD, "everybody of this authority is refused"), (29.5, Verdict.WARNING, "runs out"),
     (-1, Verdict.BAD, "the clock of this host is wrong")],
)  # fmt: skip
def test_the_age_of_a_list(choices: Choices, days: float, verdict: Verdict, words: str) -> None:
    found = list(check_authorities(choices.ca_dir, NOW + timedelta(days=days)))
    assert {finding.verdict for finding in found} == {verdict}
    assert all(words in finding.words for finding in found)


def test_a_list_that_is_missing_or_damaged(choices: Choices) -> None:
    one, other = sorted(choices.ca_dir.glob("*.r0"))
    one.unlink()
    other.write_text("nonsense")
    missing, damaged = bad(check_authorities(choices.ca_dir, NOW))
    assert "run fetch-crl" in missing and str(one) in missing
    assert "no revocation list in PEM" in damaged


# ---- the server's own


def test_the_callback_certificate_is_the_servers(choices: Choices) -> None:
    installation = read_installation(choices.config_file)
    assert bad(check_robot(installation, choices, NOW)) == []
    unreadable = list(check_robot(installation, replace(choices, user="nobody"), NOW))
    assert os.geteuid() != 0 or "cannot be read by nobody" in bad(unreadable)[0]


def test_folders(choices: Choices) -> None:
    installation = read_installation(choices.config_file)
    assert bad(check_folders(installation, choices)) == []
    installation.config.cache.directory.rmdir()
    assert "there is no folder" in bad(check_folders(installation, choices))[0]


def test_a_configuration_that_everybody_may_read(choices: Choices) -> None:
    choices.config_file.chmod(0o644)
    (said,) = bad(check_folders(read_installation(choices.config_file), choices))
    assert "mode 644 and may hold a password" in said


def test_who_may_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o600)
    assert may_read(file, ME)
    assert not may_read(tmp_path / "none", ME) or os.geteuid() == 0
    if os.geteuid() == 0:
        file.chmod(0o644)
        assert not may_read(file, "no-such-user")
        assert may_read(Path("/etc/passwd"), "nobody")
        assert not may_read(Path("/etc/shadow"), "nobody")
        assert may_read(Path("/etc"), "nobody")


def test_the_database_and_its_clock(choices: Choices) -> None:
    installation = read_installation(choices.config_file)
    (said,) = bad(check_database(installation))
    assert "panda-server db upgrade" in said
    prepare(installation.config.database.write)
    assert bad(check_database(installation)) == []
    (said,) = bad(check_database(installation, lambda: datetime.now(UTC) + timedelta(seconds=60)))
    assert "60 s apart" in said


# ---- Apache


def test_what_apache_says_is_told(choices: Choices, tmp_path: Path) -> None:
    layout = replace(DEBIAN, modules=tmp_path, apache_binary=str(tmp_path / "apache2"))
    chosen = replace(choices, layout=layout)
    assert DEBIAN.install_apache in bad(check_apache(chosen))[0]
    (tmp_path / "apache2").touch()
    assert "ssl, wsgi, gridsite" in bad(check_apache(chosen))[0]
    for name in ("ssl", "wsgi_python3", "gridsite"):
        (tmp_path / f"mod_{name}.so").touch()
    asked = list[list[str]]()

    def refuse(command: list[str]) -> tuple[int, str]:
        asked.append(command)
        return 1, "Syntax error on line 3\nInvalid command 'Foo'"

    (said,) = bad(check_apache(chosen, refuse))
    assert "Invalid command 'Foo'" in said and asked[0][-1] == "-t"
    assert bad(check_apache(chosen, lambda _command: (0, "Syntax OK"))) == []
    whole = replace(chosen, prefix=Path("/"))
    assert "configtest" in next(check_apache(whole, lambda _command: (0, "Syntax OK"))).words


def test_all_is_looked_at_even_without_a_configuration(choices: Choices) -> None:
    choices.config_file.write_text("[nonsense]\n")
    found = check_all(choices)
    assert {"configuration", "host certificate", "authorities", "Apache"} == {finding.subject for finding in found}
    assert "unknown section [nonsense]" in found[0].words
