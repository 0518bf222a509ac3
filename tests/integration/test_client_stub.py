"""A small HTTPS server that speaks the user's part of the wire, and a grid of certificates to go with it."""

from __future__ import annotations

import importlib
import ipaddress
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from cryptography import x509

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
pki = importlib.import_module("pki")


class NoAnswer(Exception):
    """Raised by a handler: what was asked is done, and the connection breaks before the answer."""


@dataclass
class Heard:
    """A request as it came."""

    method: str
    call: str
    query: dict[str, str]
    content: bytes
    has_certificate: bool

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.content)


@dataclass
class Stub:
    """What the server answers to each call, and what it has heard."""

    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    handlers: dict[str, Callable[[Heard], Any]] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)

    def on(self, call: str, *answers: Any) -> None:
        """Answer a call with data, or what a function says; the last answer is repeated."""
        left = list(answers)

        def handle(heard: Heard) -> Any:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer(heard) if callable(answer) else success(answer)

        self.handlers[call] = handle

    def calls(self, call: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.call == call]

    def respond(self, heard: Heard) -> tuple[int, bytes]:
        self.heard.append(heard)
        if heard.call not in self.handlers:
            return 404, json.dumps({"StatusCode": 30, "message": "not found"}).encode()
        status, answer = self.handlers[heard.call](heard)
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def success(data: Any) -> tuple[int, Any]:
    return 200, {"success": True, "message": "", "data": data}


def refusal(
    status: int, message: str, *, named: str | None = None, value: str | None = None
) -> Callable[[Heard], tuple[int, Any]]:
    error = {"status": status, "field": named, "value": value}
    return lambda _heard: (200, {"success": False, "message": message, "data": None, "error": error})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: Stub

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        certificate = self.connection.getpeercert(binary_form=True) is not None  # type: ignore[attr-defined]
        heard = Heard(self.command, parts.path.removeprefix("/api/v1/"), query, content, certificate)
        try:
            status, answer = self.stub.respond(heard)
        except NoAnswer:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**self.stub.headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # rude clients are part of the tests


@dataclass(frozen=True)
class Grid:
    """A directory of certificates: `certificates/`, `host.pem`, `alice.pem`, and what tests add."""

    directory: Path
    authority: Any
    alice: Any

    @property
    def ca_dir(self) -> Path:
        return self.directory / "certificates"

    @property
    def proxy(self) -> Path:
        return self.directory / "alice.pem"

    def write(self, name: str, credential: Any) -> Path:
        return pki.write(self.directory / name, credential.pem(), mode=0o600)


def make_grid(directory: Path) -> Grid:
    authority = pki.make_authority("Test CA", period=pki.lasting(days=2))
    crl = pki.revocation_list(authority, [], period=pki.lasting(days=2))
    pki.write_ca_directory(directory / "certificates", authority, crl=crl)
    alice = pki.issue(authority, "Alice Adams", period=pki.lasting(days=1))
    grid = Grid(directory, authority, alice)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    grid.write("host.pem", pki.issue(authority, "localhost", period=pki.lasting(days=1), hosts=names))
    grid.write("alice.pem", pki.delegate(alice))
    return grid


def server_context(grid: Grid, *, certificate: str = "host.pem") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(grid.directory / certificate)
    context.load_verify_locations(capath=str(grid.ca_dir))
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[Stub]:
    stub = Stub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    with _Server(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        stub.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return make_grid(tmp_path_factory.mktemp("grid"))


def test_the_stub_sees_proxies_and_answers_in_the_envelope(grid: Grid) -> None:
    with serving(server_context(grid)) as stub:
        stub.on("system/is_alive", "alive=yes")
        url = f"{stub.url}/api/v1/system/is_alive"
        first = requests.get(url, verify=str(grid.ca_dir), cert=str(grid.proxy), timeout=10)
        second = requests.get(url, verify=str(grid.ca_dir), timeout=10)
    assert first.json() == {"success": True, "message": "", "data": "alive=yes"}
    assert second.ok
    assert [heard.has_certificate for heard in stub.heard] == [True, False]


def test_the_stub_gives_its_last_answer_again_and_again() -> None:
    stub = Stub()
    stub.on("x/y", 1, 2)
    heard = Heard("GET", "x/y", {}, b"", has_certificate=False)
    assert [json.loads(stub.respond(heard)[1])["data"] for _ in range(3)] == [1, 2, 2]
