"""The scheduler against a server on a real socket: its client, and the command from end to end."""

from __future__ import annotations

import gzip
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509

from schedulers import server as server_module
from schedulers.batch.fork import ForkBatch
from schedulers.batch.protocol import BatchSettings
from schedulers.errors import ServerUnknown
from schedulers.main import main
from schedulers.server import PandaServer

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
JOBS = "getJobStatisticsPerSite"
QUEUES = "getSiteSpecs"


class Stub:
    """Answers what it is told to; without TLS unless given a context."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Any] = {JOBS: {}, QUEUES: {"Q": {"status": "online", "corecount": 1}}}
        self.status, self.headers, self.raw = 200, {}, None
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if context else 'http'}://localhost:{self.http.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                certificate = getattr(self.connection, "getpeercert", lambda: None)()
                stub.seen.append((self.path, dict(self.headers), certificate))
                body = stub.raw if stub.raw is not None else json.dumps(stub.answers[self.path.split("/")[-1]]).encode()
                self.send_response(stub.status)
                for name, value in {**stub.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Stay silent."""

        return Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Stub]]:
    stubs: list[tuple[Stub, threading.Thread]] = []

    def start(context: ssl.SSLContext | None = None) -> Stub:
        stub = Stub(context)
        stub.http.daemon_threads = True
        stub.http.handle_error = lambda *_: None  # a client that turns away from a bad certificate is no accident
        thread = threading.Thread(target=stub.http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        stubs.append((stub, thread))
        return stub

    yield start
    for stub, thread in stubs:
        stub.http.shutdown()
        thread.join()
        stub.http.server_close()


@pytest.fixture
def stub(serve) -> Stub:
    return serve()


# --- the client ---


def test_the_two_questions(stub):
    stub.answers = {JOBS: {"Q": {"activated": 3, "running": 1}, "R": {}}, QUEUES: {"Q": {"status": "test"}, "R": {}}}
    with PandaServer(stub.url + "/") as server:
        assert server.job_counts() == {"Q": {"activated": 3, "running": 1}, "R": {}}
        assert server.queue_status() == {"Q": "test"}, "a queue without status is unknown"
    assert [path for path, _, _ in stub.seen] == [f"/server/panda/{JOBS}", f"/server/panda/{QUEUES}"]


def test_compressed_answers_are_read(stub):
    stub.raw, stub.headers = gzip.compress(b'{"Q": {"activated": 3}}'), {"Content-Encoding": "gzip"}
    with PandaServer(stub.url) as server:
        assert server.job_counts() == {"Q": {"activated": 3}}


def test_the_environment_has_no_say(stub, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with PandaServer(stub.url) as server:
        assert server.job_counts() == {}


@pytest.mark.parametrize(
    ("status", "raw", "words"),
    [
        (500, b"it broke", "HTTP 500: it broke"),
        (302, b"", "HTTP 302"),
        (200, b"", "not JSON"),
        (200, b"<html>", "not JSON"),
        (200, b"[" * 100_000, "not JSON"),
        (200, b"[]", "a JSON object by queue"),
        (200, b"null", "a JSON object by queue"),
        (200, b'{"StatusCode": 30, "message": "no"}', "job statistics of StatusCode"),
        (200, b'{"Q": {"activated": -1}}', "job statistics of Q"),
        (200, b'{"Q": {"activated": "3"}}', "job statistics of Q"),
        (200, b'{"Q": {"activated": true}}', "job statistics of Q"),
        (200, b'{"Q": [3]}', "job statistics of Q"),
    ],
)
def test_what_cannot_be_used_is_unknown(stub, status, raw, words):
    stub.status, stub.raw, stub.headers = status, raw, {"Location": "/elsewhere"}
    with PandaServer(stub.url) as server, pytest.raises(ServerUnknown) as caught:
        server.job_counts()
    assert words in str(caught.value)
    assert len(stub.seen) == 1, "a redirection is not followed"


def test_an_answer_without_end_is_cut_off(stub, monkeypatch):
    monkeypatch.setattr(server_module, "LARGEST_ANSWER_BYTES", 1000)
    stub.raw, stub.headers = gzip.compress(b" " * 10**6), {"Content-Encoding": "gzip"}
    with PandaServer(stub.url) as server, pytest.raises(ServerUnknown, match="more than 1000 bytes"):
        server.job_counts()


def test_a_server_that_is_not_there_is_unknown(free_port):
    with PandaServer(f"http://127.0.0.1:{free_port}") as server, pytest.raises(ServerUnknown, match="refused"):
        server.queue_status()


def test_a_server_that_says_nothing_is_unknown_after_the_time_limit(stub):
    stub.answers = {}
    stub.http.finish_request = lambda *_: time.sleep(0.5)
    with PandaServer(stub.url, timeout_s=0.2) as server, pytest.raises(ServerUnknown):
        server.job_counts()


class Authority:
    """A certificate authority in a directory as grid people have them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder / name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / f"{X509.from_cryptography(certificate).subject_name_hash():08x}.0").write_bytes(pem)
        self.certificate_file = self.folder / "ca.pem"
        self.certificate_file.write_bytes(pem)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: Any) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            self.name,
            subject,
            key.public_key(),
            x509.random_serial_number(),
            datetime.now(UTC) - timedelta(hours=1),
            datetime.now(UTC) + timedelta(hours=1),
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name: str) -> Path:
        """Write certificate and key into one file, as a proxy has them."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, x509.SubjectAlternativeName([x509.DNSName(name)]))
        path = self.folder / f"{name}.pem"
        encoding = serialization.Encoding.PEM
        plain = serialization.NoEncryption()
        private = key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain)
        path.write_bytes(certificate.public_bytes(encoding) + private)
        return path


def test_tls_is_verified_with_the_directory_and_the_certificate_is_shown(serve, tmp_path):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.issue("localhost"))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(ours.certificate_file)
    stub = serve(context)
    with PandaServer(stub.url, proxy=ours.issue("pilot"), ca_dir=ours.folder) as server:
        assert server.queue_status() == {"Q": "online"}
    assert stub.seen[0][2]["subject"] == ((("commonName", "pilot"),),)
    for ca_dir in (theirs.folder, None):
        with PandaServer(stub.url, ca_dir=ca_dir) as server, pytest.raises(ServerUnknown, match="CERTIFICATE_VERIFY"):
            server.queue_status()
    for files in ({"proxy": tmp_path / "nowhere"}, {"ca_dir": tmp_path / "nowhere"}):
        with PandaServer(stub.url, **files) as server, pytest.raises(ServerUnknown, match="nowhere"):
            server.queue_status()


# --- the command ---


@pytest.fixture
def config_file(tmp_path: Path, stub: Stub) -> Iterator[Path]:
    """A queue of two slots, whose pilots write their arguments down and wait; at the end they are cancelled."""
    (tmp_path / "pilot").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\nexec sleep 100\n')
    (tmp_path / "pilot").chmod(0o755)
    path = tmp_path / "scheduler.cfg"
    path.write_text(
        f"[scheduler]\nserver = {stub.url}\nstate_dir = state\ninterval_s = 0.1\nstop_grace_s = 2\nscheduler_id = me\n"
        f"[pilot]\ncommand = {tmp_path}/pilot\n[queue Q]\nslots = 2\n"
    )
    yield path
    batch = open_state(path)
    batch.cancel(tuple(batch.live()))
    wait_until(lambda: not batch.live())


def open_state(config_file: Path, **settings) -> ForkBatch:
    return ForkBatch(BatchSettings(config_file.parent / "state", "me", slots={}, stop_grace_s=2.0, **settings))


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.02)


def generic(config_file: Path, *options: str) -> int:
    return main(["generic", "--config", str(config_file), *options])


def test_once_with_json_sends_pilots_and_says_so(config_file, stub, capsys):
    stub.answers[JOBS] = {"Q": {"activated": 3}}
    assert generic(config_file, "--once", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert {key: first["queues"][0][key] for key in ("queue", "status", "activated", "pending", "running", "sent")} == {
        "queue": "Q",
        "status": "online",
        "activated": 3,
        "pending": 0,
        "running": 0,
        "sent": 3,
    }
    assert generic(config_file, "--once", "--json") == 0
    second = json.loads(capsys.readouterr().out)["queues"][0]
    assert (second["pending"] + second["running"], second["sent"]) == (3, 0)
    told = config_file.parent / "told"
    wait_until(lambda: told.exists() and len(told.read_text().splitlines()) == 2)
    batch = open_state(config_file)
    ids = [word for line in told.read_text().splitlines() for word in line.split() if word in batch.live()]
    assert len(set(ids)) == 2
    assert f"--server {stub.url} --queue Q --pilot-id {ids[0]} --scheduler-id me" in told.read_text()


def test_once_with_a_table(config_file, stub, capsys):
    stub.answers[JOBS] = {"Q": {"activated": 1}}
    assert generic(config_file, "--once") == 0
    time_line, title, line = capsys.readouterr().out.splitlines()
    assert time_line.endswith("UTC")
    assert title.startswith("QUEUE")
    assert line.split()[:6] == ["Q", "online", "1", "0", "0", "1"]


def test_a_dry_run_leaves_no_trace_even_beside_a_running_scheduler(config_file, stub, capsys):
    stub.answers[JOBS] = {"Q": {"activated": 3}}
    assert generic(config_file, "--once", "--dry-run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["dry_run"], report["queues"][0]["wanted"], report["queues"][0]["sent"]) == (True, 3, 0)
    assert not (config_file.parent / "state").exists()


def test_a_silent_server_is_exit_code_1_and_no_pilots(config_file, stub, capsys):
    stub.status = 503
    assert generic(config_file, "--once", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert "HTTP 503" in report["problem"]
    assert report["queues"][0]["sent"] == 0
    assert report["queues"][0]["activated"] is None


def test_the_back_off_is_remembered_from_one_run_to_the_next(config_file, stub, capsys):
    (config_file.parent / "pilot").write_text("#!/bin/sh\nexit 1\n")
    config_file.write_text(config_file.read_text().replace("interval_s", "bad_pilots = 2\ninterval_s"))
    stub.answers[JOBS] = {"Q": {"activated": 2}}
    assert generic(config_file, "--once", "--json") == 0
    wait_until(lambda: not open_state(config_file).live())
    capsys.readouterr()
    for _ in range(2):
        assert generic(config_file, "--once", "--json") == 0
        queue = json.loads(capsys.readouterr().out)["queues"][0]
        assert queue["sent"] == 0
        assert any("pilots die young here" in step["reason"] for step in queue["reasons"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("interval_s = 0.1", "interval = 0.1"), "[scheduler] interval = 0.1: unknown key; allowed are server"),
        (("slots = 2", "slots = many"), "[queue Q] slots = many: a whole number, 1 or more is expected"),
        (("interval_s", "back_end = condor\ninterval_s"), "back_end = condor: no such back end; known here: fork"),
    ],
)
def test_a_bad_configuration_is_exit_code_2_with_one_line(config_file, capsys, change, words):
    good = config_file.read_text()
    config_file.write_text(good.replace(*change))
    assert generic(config_file, "--once") == 2
    error = capsys.readouterr().err
    assert error.startswith("panda-scheduler: ")
    assert words in error
    assert error.count("\n") == 1


def test_help_has_an_example(capsys):
    for words in (["--help"], ["generic", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert "panda-scheduler generic --config" in capsys.readouterr().out


@contextmanager
def killed_at_last(process: subprocess.Popen[str]) -> Iterator[None]:
    """A test that fails must not wait for a daemon that does not end."""
    try:
        yield
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("on_stop", "number", "left"), [("cancel", signal.SIGTERM, 0), ("leave", signal.SIGINT, 2)], ids=["cancel", "leave"]
)
def test_the_daemon_ends_on_a_signal_and_does_with_its_pilots_as_told(config_file, stub, on_stop, number, left):
    stub.answers[JOBS] = {"Q": {"activated": 2}}
    folder = config_file.parent
    command = [sys.executable, "-m", "schedulers.main", "generic", "--config", str(config_file), "--json"]
    command += ["--on-stop", on_stop, "--log-file", str(folder / "log")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as scheduler,
        killed_at_last(scheduler),
    ):
        assert scheduler.stdout is not None
        assert json.loads(scheduler.stdout.readline())["queues"][0]["sent"] == 2
        assert json.loads(scheduler.stdout.readline())["queues"][0]["sent"] == 0
        assert generic(config_file, "--once") == 2, "the directory is in use"
        wait_until(lambda: (folder / "told").exists() and len((folder / "told").read_text().splitlines()) == 2)
        scheduler.send_signal(number)
        rest, _ = scheduler.communicate(timeout=10)
    assert scheduler.returncode == 0
    assert all(json.loads(line)["queues"][0]["sent"] == 0 for line in rest.splitlines())
    assert len(open_state(config_file, look_only=True).live()) == left
    assert "Q: sent 2 pilots" in (folder / "log").read_text()
