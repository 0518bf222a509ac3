"""A look at the proxy: whatever is wrong with it is told before the server is asked, with what to do about it."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pandaserver.client.failures import NotAuthenticated
from pandaserver.client.proxy import check_proxy, default_proxy, duration, find_proxy, warn_if_exposed

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
pki = importlib.import_module("pki")


@pytest.fixture(scope="module")
def alice() -> Any:
    authority = pki.make_authority("Test CA", period=pki.lasting(days=9))
    return pki.issue(authority, "Alice Adams", period=pki.lasting(days=2))


@pytest.fixture(scope="module")
def proxy(alice: Any) -> Any:
    return pki.delegate(alice, period=pki.lasting(hours=12))


def written(tmp_path: Path, content: bytes) -> Path:
    return pki.write(tmp_path / "proxy.pem", content, mode=0o600)


def problem(path: Path, now: datetime | None = None) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        check_proxy(path, now)
    error = caught.value
    assert (error.exit_code, error.field, error.value) == (3, "proxy", str(path))
    assert str(path) in error.message
    return error.message


def test_good_proxy(tmp_path: Path, proxy: Any) -> None:
    path = written(tmp_path, proxy.pem())
    found = check_proxy(path)
    assert found.path == path
    assert "Alice Adams" in found.subject
    assert found.not_after == pki.NOW + timedelta(hours=12)


def test_renewed_proxy_is_another(tmp_path: Path, alice: Any, proxy: Any) -> None:
    before = check_proxy(written(tmp_path, proxy.pem()))
    assert check_proxy(written(tmp_path, proxy.pem())) == before
    assert check_proxy(written(tmp_path, pki.delegate(alice).pem())) != before


def test_expired_proxy(tmp_path: Path, proxy: Any) -> None:
    later = pki.NOW + timedelta(hours=15, minutes=20)
    said = problem(written(tmp_path, proxy.pem()), later)
    end = pki.NOW + timedelta(hours=12)
    assert f"expired at {end:%Y-%m-%d %H:%M} UTC, 3 h 20 min ago" in said
    assert "voms-proxy-init" in said


def test_certificate_that_ends_before_its_proxy(tmp_path: Path, proxy: Any) -> None:
    authority = pki.make_authority("Old CA", period=pki.lasting(hours=1))
    mixed = pki.Credential(proxy.certificate, proxy.key, (authority.certificate,))
    path = written(tmp_path, mixed.pem())
    assert check_proxy(path).not_after == pki.NOW + timedelta(hours=1)
    said = problem(path, pki.NOW + timedelta(hours=2))
    assert "CN=Old CA" in said
    assert "get a new one from your CA" in said


def test_proxy_of_the_future(tmp_path: Path, proxy: Any) -> None:
    assert "is this clock right?" in problem(written(tmp_path, proxy.pem()), pki.NOW - timedelta(days=1))


def test_missing(tmp_path: Path) -> None:
    said = problem(tmp_path / "no.pem")
    assert "does not exist" in said
    assert "X509_USER_PROXY" in said


def test_unreadable(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in problem(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_no_certificate(tmp_path: Path, content: bytes) -> None:
    assert "no certificate" in problem(written(tmp_path, content))


def test_cut_file(tmp_path: Path, proxy: Any) -> None:
    assert "no certificate" in problem(written(tmp_path, proxy.certificate_pem()[:300]))


def test_certificate_without_key(tmp_path: Path, alice: Any) -> None:
    assert "without its private key" in problem(written(tmp_path, alice.certificate_pem()))


def test_key_with_pass_phrase(tmp_path: Path, alice: Any) -> None:
    key = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    assert "pass phrase" in problem(written(tmp_path, alice.certificate_pem() + key))


def test_exposed_key(tmp_path: Path, proxy: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, proxy.pem())
    warn_if_exposed(path)
    assert caplog.messages == []
    path.chmod(0o640)
    warn_if_exposed(path)
    assert caplog.messages == [f"others may read the private key in {path}: chmod 600 it"]


def test_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    named = {"X509_USER_PROXY": "/a/named.pem"}
    assert find_proxy("/a/chosen.pem", named) == Path("/a/chosen.pem")
    assert find_proxy(None, named) == Path("/a/named.pem")
    assert find_proxy(None, {}) is None
    default_proxy().touch()
    assert find_proxy(None, {}) == default_proxy() == next(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=59), "0 min"),
        (timedelta(minutes=61), "1 h 1 min"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(seconds=-5), "0 min"),
    ],
)
def test_duration(span: timedelta, text: str) -> None:
    assert duration(span) == text


def test_moments_are_utc(tmp_path: Path, proxy: Any) -> None:
    assert check_proxy(written(tmp_path, proxy.pem())).not_after.tzinfo is UTC
