"""The trust store follows its directory, and lets nobody in when it is in doubt."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pandaserver.web.identity import IdentityCache, IdentityError, TrustStore, identify

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
pki = importlib.import_module("pki")


def pem_chain(credential: pki.Credential) -> list[str]:
    certificates = (credential.certificate, *credential.chain)
    return [each.public_bytes(pki.serialization.Encoding.PEM).decode() for each in certificates]


@pytest.fixture
def own_directory(tmp_path: Path) -> tuple[Path, pki.Credential]:
    authority = pki.make_authority("Own CA", period=pki.lasting(days=1))
    crl = pki.revocation_list(authority, [], period=pki.lasting(hours=5))
    pki.write_ca_directory(tmp_path / "ca", authority, crl=crl)
    return tmp_path / "ca", authority


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_new_revocation_list_counts_after_the_next_look(own_directory: tuple[Path, pki.Credential]) -> None:
    directory, authority = own_directory
    clock, user = Clock(), pki.issue(authority, "Somebody", period=pki.lasting(hours=5))
    trust = TrustStore(directory, recheck_s=30, clock=clock)
    proxy = pem_chain(pki.delegate(user))
    cache = IdentityCache(trust)
    assert cache.identify(proxy).depth == 1
    new_list = pki.revocation_list(authority, [user.certificate], period=pki.lasting(hours=6))
    pki.write_ca_directory(directory, authority, crl=new_list)
    assert cache.identify(proxy).depth == 1
    clock.seconds = 31
    with pytest.raises(IdentityError, match="revoked"):
        identify(proxy, trust=trust)
    with pytest.raises(IdentityError, match="revoked"):
        cache.identify(proxy)
    assert trust.generation == 2


def test_unchanged_directory_is_not_read_again(own_directory: tuple[Path, pki.Credential]) -> None:
    clock = Clock()
    trust = TrustStore(own_directory[0], recheck_s=10, clock=clock)
    clock.seconds = 100
    assert trust.refresh() == 1


def test_removed_authority_is_trusted_no_more(own_directory: tuple[Path, pki.Credential]) -> None:
    directory, authority = own_directory
    user = pem_chain(pki.issue(authority, "Somebody", period=pki.lasting(hours=1)))
    trust = TrustStore(directory, recheck_s=0)
    assert identify(user, trust=trust).depth == 0
    for path in directory.glob("*.0"):
        path.unlink()
    with pytest.raises(IdentityError, match="no authority"):
        identify(user, trust=trust)


def test_vanished_directory_keeps_what_was_read(
    own_directory: tuple[Path, pki.Credential], caplog: pytest.LogCaptureFixture
) -> None:
    directory, authority = own_directory
    trust = TrustStore(directory, recheck_s=0)
    directory.rename(directory.with_name("elsewhere"))
    assert identify(pem_chain(pki.issue(authority, "Somebody", period=pki.lasting(hours=1))), trust=trust)
    assert "going on with what was read before" in caplog.text


def test_directory_must_exist_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TrustStore(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["missing", "stale", "of another authority", "unreadable"])
def test_without_a_current_revocation_list_nobody_gets_in(
    own_directory: tuple[Path, pki.Credential], damage: str
) -> None:
    directory, authority = own_directory
    impostor = pki.make_authority("Own CA", period=pki.lasting(days=1))
    contents = {
        "missing": b"",
        "stale": pki.revocation_list(authority, [], period=pki.over()),
        "of another authority": pki.revocation_list(impostor, [], period=pki.lasting(days=1)),
        "unreadable": b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    }
    for path in directory.glob("*.r0"):
        path.write_bytes(contents[damage])
    user = pki.issue(authority, "Somebody", period=pki.lasting(hours=1))
    with pytest.raises(IdentityError, match="revocation list"):
        identify(pem_chain(user), trust=TrustStore(directory))


def test_expired_authority(own_directory: tuple[Path, pki.Credential]) -> None:
    directory, authority = own_directory
    user = pki.issue(authority, "Somebody", period=pki.lasting(days=9))
    later = datetime.now(UTC) + timedelta(days=3)
    with pytest.raises(IdentityError, match="authority's own certificate"):
        identify(pem_chain(user), trust=TrustStore(directory), now=later)


def test_certificate_in_the_directory_that_is_no_authority(own_directory: tuple[Path, pki.Credential]) -> None:
    directory, authority = own_directory
    user = pki.issue(authority, "Somebody", period=pki.lasting(hours=1))
    (directory / "12345678.0").write_bytes(user.certificate_pem())
    forged = pki.bare_certificate(user, pki.grid_name("Admin"), key=pki.ec_key())
    with pytest.raises(IdentityError, match="no authority"):
        identify(pem_chain(forged), trust=TrustStore(directory))


def test_damaged_files_are_left_out(
    own_directory: tuple[Path, pki.Credential], caplog: pytest.LogCaptureFixture
) -> None:
    directory, authority = own_directory
    (directory / "00000000.0").write_bytes(b"\xff not a certificate")
    (directory / "README").write_text("not looked at")
    user = pki.issue(authority, "Somebody", period=pki.lasting(hours=1))
    assert identify(pem_chain(user), trust=TrustStore(directory)).depth == 0
    assert "00000000.0 is left out" in caplog.text
