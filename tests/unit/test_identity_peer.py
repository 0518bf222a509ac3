"""The middleware and the settings of the embedded server, without a server."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pandaserver.errors import ConfigError
from pandaserver.web.gunicorn_conf import EmbeddedServer, EmbeddedSettings, PatientWorker, options
from pandaserver.web.peer import client_variables, verified_chain, with_client_certificates


class Newer:
    """A connection of Python 3.13 and later: certificates in DER from a public method."""

    def get_verified_chain(self) -> list[bytes]:
        return [b"leaf", b"root"]


class Certificate:
    def __init__(self, text: str) -> None:
        self.text = text

    def public_bytes(self) -> str:
        return self.text


class Private:
    def __init__(self, chain: list[Certificate] | None) -> None:
        self.chain = chain

    def get_verified_chain(self) -> list[Certificate] | None:
        return self.chain


class OlderConnection:
    """A connection of Python 3.11 and 3.12: the chain is known to its private object only."""

    def __init__(self, private: Private | None) -> None:
        self._sslobj = private


def test_chain_of_newer_pythons() -> None:
    first, second = verified_chain(Newer())  # type: ignore[arg-type]
    assert base64.b64encode(b"leaf").decode() in first
    assert second.startswith("-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("private", "chain"),
    [
        (None, []),
        (Private(None), []),
        (Private([]), []),
        (Private([Certificate("leaf"), Certificate("root")]), ["leaf", "root"]),
    ],
)
def test_chain_of_older_pythons(private: Private | None, chain: list[str]) -> None:
    assert verified_chain(OlderConnection(private)) == chain  # type: ignore[arg-type]


def application(environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
    return [",".join(sorted(name for name in environ if name.startswith("SSL"))).encode()]


@pytest.mark.parametrize("connection", [None, "text"])
def test_without_tls_nothing_is_believed(connection: object) -> None:
    forged = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": "x", "SSL_CLIENT_CERT_CHAIN_7": "y"}
    environ = {**forged, "gunicorn.socket": connection}
    assert list(with_client_certificates(application)(environ, lambda *_: lambda _: None)) == [b""]


def test_plain_socket_gives_no_variables() -> None:
    with socket.socket() as plain:
        assert client_variables(plain) == {}


def test_tls_without_certificate_is_none() -> None:
    context = ssl.create_default_context()
    with socket.socket() as plain, context.wrap_socket(plain, server_hostname="x") as secure:
        assert client_variables(secure) == {"SSL_CLIENT_VERIFY": "NONE"}


@pytest.fixture
def settings(tmp_path: Path) -> EmbeddedSettings:
    for name in ("cert.pem", "key.pem", "12345678.0"):
        (tmp_path / name).touch()
    return EmbeddedSettings(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path)


def test_options_are_known_to_gunicorn(settings: EmbeddedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--threads 99")
    config = EmbeddedServer(settings, lambda: application).cfg  # type: ignore[arg-type,return-value]
    assert (config.address, config.threads, config.workers) == ([("127.0.0.1", 25443)], 32, 1)
    assert config.worker_class is PatientWorker
    assert config.is_ssl
    assert config.control_socket_disable
    assert config.forwarded_allow_ips == []
    assert (config.accesslog, config.pidfile) == (None, None)


def test_options_follow_the_settings(settings: EmbeddedSettings, tmp_path: Path) -> None:
    changed = EmbeddedSettings(
        settings.host_cert, settings.host_key, tmp_path, host="::1", port=1, pidfile=tmp_path / "pid", access_log=True
    )
    made = options(changed)
    assert (made["bind"], made["pidfile"], made["accesslog"]) == ("[::1]:1", str(tmp_path / "pid"), "-")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("cert.pem", "no such file: .*cert.pem"),
        ("key.pem", "no such file: .*key.pem"),
        ("12345678.0", "no authorities"),
    ],
)
def test_missing_files_are_named(settings: EmbeddedSettings, tmp_path: Path, missing: str, message: str) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match=message):
        options(settings)


def test_wrapping_happens_when_the_worker_loads(settings: EmbeddedSettings) -> None:
    made = []

    def create() -> Any:
        made.append(1)
        return application

    server = EmbeddedServer(settings, create)
    assert not made
    assert list(server.load()({"SSL_CLIENT_VERIFY": "SUCCESS"}, None)) == [b""]
    assert made == [1]


def test_hooks(settings: EmbeddedSettings, tmp_path: Path) -> None:
    calls: list[str] = []
    hooked = EmbeddedSettings(
        settings.host_cert,
        settings.host_key,
        tmp_path,
        on_worker_start=lambda: calls.append("start"),
        on_worker_stop=lambda: calls.append("stop"),
    )
    config = EmbeddedServer(hooked, lambda: application).cfg  # type: ignore[arg-type,return-value]

    class Worker:
        pid = 0

    config.post_worker_init(Worker())
    config.worker_exit(None, Worker())
    assert calls == ["start"], "the parent of a vanished worker must not stop what runs elsewhere"
