"""Logging in at Rucio as in production: by a proxy, over TLS, and only to a server whose authority is believed."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from factories import Pki

from pandaserver.config_rucio import RucioSection
from pandaserver.dataservice.ddm.rucio_client import RucioConnection
from pandaserver.errors import DDMError


class Front(ThreadingHTTPServer):
    """What stands in front of a Rucio: it sees certificates, gives tokens for them, and answers whoever has one."""

    daemon_threads = True

    def __init__(self, pki: Pki) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.directory / "hostcert.pem", pki.directory / "hostkey.pem")
        context.load_verify_locations(capath=str(pki.directory / "certificates"))
        context.verify_mode, context.verify_flags = ssl.CERT_OPTIONAL, ssl.VerifyFlags.VERIFY_ALLOW_PROXY_CERTS
        self.context, self.seen, self.tokens = context, list[dict[str, Any]](), 0

    def get_request(self) -> tuple[Any, Any]:
        plain, address = super().get_request()
        return self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that do not believe us go away."""


class Answers(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Be quiet."""

    def do_GET(self) -> None:
        server, certificate = self.server, self.connection.getpeercert()
        assert isinstance(server, Front)
        server.seen.append({"path": self.path, "certificate": certificate, "account": self.headers["X-Rucio-Account"]})
        if self.path.startswith("/auth/"):
            server.tokens += 1
            self.answer(200 if certificate else 401, {}, {"X-Rucio-Auth-Token": f"token-{server.tokens}"})
        elif self.headers["X-Rucio-Auth-Token"] != f"token-{server.tokens}":
            self.answer(401, {"ExceptionClass": "CannotAuthenticate", "ExceptionMessage": "no such token"}, {})
        else:
            self.answer(200, {"account": "panda"}, {})

    def answer(self, status: int, data: dict[str, Any], headers: dict[str, str]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def front(pki: Pki) -> Iterator[Front]:
    server = Front(pki)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def connection(front: Front, pki: Pki, ca_dir: Path, proxy: str = "alice") -> RucioConnection:
    url = f"https://localhost:{front.server_port}"
    return RucioConnection(RucioSection(url=url, proxy=pki.proxy(proxy), timeout_s=20), ca_dir)


def test_a_proxy_logs_in_and_again_when_its_token_has_ended(front: Front, pki: Pki) -> None:
    rucio = connection(front, pki, pki.directory / "certificates")
    assert rucio.ask("whoami") == {"account": "panda"}
    first, second = front.seen
    assert first["path"] == "/auth/x509_proxy" and first["account"] == "panda"
    names = [value for part in first["certificate"]["subject"] for key, value in part if key == "commonName"]
    assert len(names) >= 2, "the proxy itself is shown, below the user's certificate"
    assert second["path"] == "/accounts/whoami" and not second["certificate"], "the token is enough"
    front.tokens += 1
    assert rucio.ask("whoami") == {"account": "panda"}
    assert [one["path"] for one in front.seen].count("/auth/x509_proxy") == 2


def test_a_server_of_another_authority_is_not_believed(
    front: Front, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pki.directory / "ca.pem"))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(pki.directory / "ca.pem"))
    with pytest.raises(DDMError) as refused:
        connection(front, pki, tmp_path).ask("whoami")
    assert type(refused.value) is DDMError
    assert front.seen == [], "nothing was said to it"


def test_proxies_of_the_environment_are_not_used(front: Front, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert connection(front, pki, pki.directory / "certificates").ask("whoami") == {"account": "panda"}
