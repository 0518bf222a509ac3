"""The embedded server with real TLS: who gets in, as whom, and does a rude client hold up the polite ones?"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.credentials, pytest.mark.integration]

ROOT = Path(__file__).resolve().parents[2]
ALICE = "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
THREADS = 4

RUN_TOOL = """
import runpy, sys, types
sys.modules["_venv"] = types.SimpleNamespace(enter=lambda: None)  # the tests run inside the environment already
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# An application that only says who is asking.
SERVER = """
import json, os, sys
from pathlib import Path
from pandaserver.web import gunicorn_conf
from pandaserver.web.gunicorn_conf import EmbeddedServer, EmbeddedSettings
from pandaserver.web.identity import IdentityCache, IdentityError, TrustStore, from_environ

grid, port, threads, pidfile = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])

def create():
    cache = IdentityCache(TrustStore(grid / "certificates", recheck_s=0))

    def application(environ, start_response):
        body = environ["wsgi.input"].read()
        answer = {"pid": os.getpid(), "received": len(body), "path": environ["PATH_INFO"],
                  "names": sorted(name for name in environ if "SSL" in name), "scheme": environ["wsgi.url_scheme"]}
        status = "200 OK"
        try:
            identity = from_environ(environ, cache.identify)
            answer.update(vars(identity), not_after=None) if identity else answer.update(dn=None)
        except IdentityError as error:
            status, answer["refused"] = "401 Unauthorized", error.message
        text = json.dumps(answer).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
        return [text]

    return application

gunicorn_conf.HANDSHAKE_TIMEOUT_S = 1.5
settings = EmbeddedSettings(
    grid / "hostcert.pem", grid / "hostkey.pem", grid / "certificates", port=port, threads=threads, pidfile=pidfile,
    on_worker_start=lambda: print("worker started", flush=True),
    on_worker_stop=lambda: print("worker stops", flush=True),
)
EmbeddedServer(settings, create).run()
"""

ACCEPTED = {  # name: (limited, depth)
    "user": (False, 0),
    "rfc_ec": (False, 1),
    "rfc_rsa": (False, 1),
    "rfc_depth2": (False, 2),
    "rfc_depth3": (False, 3),
    "limited": (True, 1),
    "full_from_limited": (True, 2),
    "pathlen0": (False, 1),
}
REFUSED_BY_APPLICATION = {"independent"}


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    grid: Path
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/who"

    def session(self, credential: Path | None = None) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.grid / "certificates")
        session.cert = str(credential) if credential else None
        return session

    def ask(self, credential: Path | None = None, **options: Any) -> dict[str, Any]:
        with self.session(credential) as session:
            answer: dict[str, Any] = session.get(self.url, timeout=15, **options).json()
            return answer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_up(process: subprocess.Popen[str], port: int) -> None:
    end = time.monotonic() + 15
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("the server did not start")


@contextlib.contextmanager
def running(grid: Path, directory: Path) -> Iterator[Server]:
    port = free_port()
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        SERVER,
        str(grid),
        str(port),
        str(THREADS),
        str(directory / "server.pid"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GUNICORN_CMD_ARGS": "--workers=7 --nonsense"}
    with (
        (directory / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment, text=True) as process,
    ):
        try:
            wait_until_up(process, port)
            yield Server(process, grid, port, directory)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
            process.wait(timeout=15)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("grid")
    tool = [sys.executable, "-c", RUN_TOOL, str(ROOT / "tools"), str(ROOT / "tools" / "make-certs")]
    subprocess.run([*tool, str(directory), "--all"], check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def server(grid: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(grid, tmp_path_factory.mktemp("server")) as server:
        yield server


# ---- who gets in


def test_without_certificate_anonymous(server: Server) -> None:
    answer = server.ask()
    assert (answer["dn"], answer["names"], answer["scheme"]) == (None, ["SSL_CLIENT_VERIFY"], "https")


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(server: Server, name: str) -> None:
    answer = server.ask(server.grid / "creds" / f"{name}.pem")
    assert (answer["dn"], answer["limited"], answer["depth"]) == (ALICE, *ACCEPTED[name])


def test_refused_by_the_application(server: Server) -> None:
    assert "independent" in server.ask(server.grid / "creds" / "independent.pem")["refused"]


def test_everything_else_fails_in_the_handshake(server: Server) -> None:
    others = {path.stem: path for path in (server.grid / "creds").glob("*.pem")}
    names = sorted(others.keys() - ACCEPTED.keys() - REFUSED_BY_APPLICATION)
    assert len(names) >= 12
    for name in names:
        with pytest.raises(requests.ConnectionError):
            server.ask(others[name])


def test_certificate_and_key_in_two_files(server: Server) -> None:
    with server.session() as session:
        session.cert = (str(server.grid / "bobcert.pem"), str(server.grid / "bobkey.pem"))
        assert session.get(server.url, timeout=15).json()["dn"].endswith("CN=Bob Brown")


def test_curl_agrees(server: Server) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is part of every system that PanDA runs on"
    verdicts = {}
    for path in (server.grid / "creds").glob("*.pem"):
        command = [curl, "-sS", "-q", "--noproxy", "*", "-m", "15", "--capath", str(server.grid / "certificates")]
        done = subprocess.run([*command, "--cert", str(path), server.url], capture_output=True, text=True, check=False)
        verdicts[path.stem] = done.returncode == 0 and ALICE in done.stdout
    assert {name for name, good in verdicts.items() if good} == set(ACCEPTED)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_tls_versions_and_no_resumption(server: Server, version: ssl.TLSVersion) -> None:
    context = client_context(server)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(server.grid / "alice.pem")
    session = None
    for _ in range(2):
        with connect(server, context, session=session) as connection:
            assert ALICE in exchange(connection)
            assert not connection.session_reused
            session = connection.session


def test_old_tls_is_refused(server: Server) -> None:
    context = client_context(server)
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(server, context):
        pass


def test_headers_do_not_make_an_identity(server: Server) -> None:
    pem = (server.grid / "bobcert.pem").read_text().replace("\n", " ")
    forged = {f"SSL{_}Client{_}{name}": value for _ in "_-" for name, value in (("Verify", "SUCCESS"), ("Cert", pem))}
    answer = server.ask(headers={**forged, "X-Forwarded-Proto": "http", "SCRIPT_NAME": "/x", "PATH_INFO": "/y"})
    assert answer["dn"] is None
    assert answer["path"] == "/who"
    assert server.ask(server.grid / "alice.pem", headers=forged)["dn"] == ALICE


def test_identity_belongs_to_the_connection(server: Server) -> None:
    with server.session(server.grid / "alice.pem") as alice, server.session(server.grid / "bob.pem") as bob:
        answers = [session.get(server.url, timeout=15).json()["dn"] for session in (alice, bob, alice, bob)]
    assert answers == [ALICE, ALICE.replace("Alice Adams", "Bob Brown")] * 2


def refused(server: Server, who: str) -> bool:
    try:
        server.ask(server.grid / f"{who}.pem")
    except requests.ConnectionError:
        return True
    return False


def test_new_revocation_list_counts_soon(tmp_path: Path) -> None:
    tool = [sys.executable, "-c", RUN_TOOL, str(ROOT / "tools"), str(ROOT / "tools" / "make-certs")]
    subprocess.run([*tool, str(tmp_path / "grid")], check=True, capture_output=True)
    with running(tmp_path / "grid", tmp_path) as server:
        assert server.ask(server.grid / "alice.pem")["dn"] == ALICE
        for path in (server.grid / "certificates").glob("*.r0"):
            path.unlink()
        give_up = time.monotonic() + 20
        while not refused(server, "alice"):
            assert time.monotonic() < give_up, "the old list still counts"
            time.sleep(0.1)
        assert server.ask()["dn"] is None


# ---- rude clients


def client_context(server: Server) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.grid / "ca.pem"))


@contextlib.contextmanager
def connect(server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=15) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
    ):
        yield secure


def exchange(connection: ssl.SSLSocket) -> str:
    connection.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@contextlib.contextmanager
def plain_connections(server: Server, count: int, *, first: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=15))
            connection.sendall(first)
            connections.append(connection)
        yield connections


def seconds_for_a_polite_client(server: Server) -> float:
    start = time.monotonic()
    assert server.ask(server.grid / "alice.pem")["dn"] == ALICE
    return time.monotonic() - start


def test_silent_clients_cost_nothing(server: Server) -> None:
    with plain_connections(server, 10 * THREADS):
        assert seconds_for_a_polite_client(server) < 2


def test_half_a_handshake_costs_one_thread(server: Server) -> None:
    with plain_connections(server, THREADS - 1, first=b"\x16\x03"):
        assert seconds_for_a_polite_client(server) < 2


def test_half_handshakes_on_all_threads_are_over_soon(server: Server) -> None:
    with plain_connections(server, THREADS, first=b"\x16\x03"):
        assert seconds_for_a_polite_client(server) < 4


def test_clients_that_never_close_hold_up_nobody(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(THREADS):
            connection = stack.enter_context(connect(server, client_context(server)))
            connection.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
        assert seconds_for_a_polite_client(server) + seconds_for_a_polite_client(server) < 1.9


def test_garbage_holds_up_nobody(server: Server) -> None:
    with plain_connections(server, THREADS, first=b"GARBAGE " * 50):
        assert seconds_for_a_polite_client(server) + seconds_for_a_polite_client(server) < 1.9


def test_half_a_request_costs_one_thread(server: Server) -> None:
    with connect(server, client_context(server)) as connection:
        connection.sendall(b"GET /who HTTP/1.1\r\nHost: local")
        assert seconds_for_a_polite_client(server) < 2
        connection.sendall(b"host\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)


def test_plain_http_on_this_port_is_told_so(server: Server) -> None:
    with server.session() as session:
        answer = session.get(f"http://localhost:{server.port}/", timeout=15)
    assert answer.status_code == 400
    assert "https://" in answer.text


def test_silence_is_not_logged_as_an_error(server: Server) -> None:
    with plain_connections(server, 2, first=b"\x16\x03"):
        pass
    server.ask()
    log = (server.directory / "server.log").read_text()
    assert "Traceback" not in log
    assert "Socket error" not in log


def test_long_request_line(server: Server) -> None:
    with server.session() as session:
        assert session.get(f"{server.url}?ids={'1,' * 3500}", timeout=15).status_code == 200
        assert session.get(f"{server.url}?ids={'1,' * 5000}", timeout=15).status_code == 414


def test_upload(server: Server) -> None:
    with server.session(server.grid / "alice.pem") as session:
        answer = session.post(server.url, data=b"x" * 5_000_000, timeout=15).json()
    assert (answer["received"], answer["dn"]) == (5_000_000, ALICE)


# ---- many clients, start and stop


def test_fifty_connections_at_once(server: Server) -> None:
    people = ["alice", "bob", "prodman", "pilot", "ddm"]

    def visit(number: int) -> tuple[str, set[str]]:
        with server.session(server.grid / f"{people[number % 5]}.pem") as session:
            return people[number % 5], {session.get(server.url, timeout=25).json()["dn"] for _ in range(4)}

    with ThreadPoolExecutor(max_workers=50) as pool:
        answers = list(pool.map(visit, range(50)))
    seen = {(name, dn) for name, dns in answers for dn in dns}
    assert (len(answers), len(seen), len({dn for _, dn in seen})) == (50, 5, 5)


def test_worker_comes_back_when_killed_and_stop_is_quick(grid: Path, tmp_path: Path) -> None:
    with running(grid, tmp_path) as server:
        pidfile = tmp_path / "server.pid"
        assert int(pidfile.read_text()) == server.process.pid
        first = server.ask()["pid"]
        os.kill(first, signal.SIGKILL)
        second = server.ask()["pid"]
        assert second not in (first, server.process.pid)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
        assert time.monotonic() - start < 7
        assert not pidfile.exists()
    log = (tmp_path / "server.log").read_text()
    assert (log.count("worker started"), log.count("worker stops")) == (2, 1)
    assert "Traceback" not in log
