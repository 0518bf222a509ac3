"""A small server that speaks the pilot's part of the wire, and a harness that runs the real pilot against it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "t0ken-that-nobody-may-see"
QUEUE = "STUB_Q"
DISK = "STUB_DISK"
SCOPE = "user.alice"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: StubServer

    def do_GET(self):
        self._serve("GET", b"")

    def do_POST(self):
        self._serve("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _serve(self, method, body):
        try:
            peer = self.connection.getpeercert() if hasattr(self.connection, "getpeercert") else None
            status, content = self.stub.answer(method, self.path, body, peer=peer)
        except ConnectionAbortedError:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments):
        self.connections = set()
        super().__init__(*arguments)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self):
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        pass


class StubServer:
    """Hands out the jobs it was given, remembers what it heard, and fails when it is told to."""

    def __init__(self, storage: Path, wrap=None):
        self.storage = storage
        self.jobs: list[dict] = []
        self.handed: dict[str, dict] = {}
        self.requests: list[dict] = []
        self.updates: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.peers: list = []
        self.queue = {"nickname": QUEUE, "atlas_site": "STUB", "state": "ACTIVE", "status": "online", "environ": ""}
        self.get_job_hook: Callable[[dict], None] = lambda request: None
        self.update_hook: Callable[[dict], tuple[int, dict] | None] = lambda update: None
        self._wrap = wrap
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._wrap else 'http'}://localhost:{self.port}"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._http = _Http(("127.0.0.1", self.port), handler)
        self.port = self._http.server_address[1]
        if self._wrap:
            self._http.socket = self._wrap(self._http.socket)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._http.drop_connections()
        self._thread.join()

    def answer(self, method: str, path: str, body: bytes, *, peer=None) -> tuple[int, bytes]:
        self.peers.append(peer)
        if path == f"/cache/schedconfig/{QUEUE}.all.json":
            return 200, json.dumps(self.queue).encode()
        if path == "/cache/ddmendpoints.json":
            return 200, json.dumps({DISK: endpoint(self.storage)}).encode()
        if path.startswith("/cache/"):
            content = self.files.get(path.removeprefix("/cache/"))
            return (404, b"no such file") if content is None else (200, content)
        if path == "/server/panda/getJob":
            return self._get_job(json.loads(body))
        if path == "/server/panda/updateJob":
            return self._update_job(json.loads(body))
        return 404, b"unknown"

    def _get_job(self, request: dict) -> tuple[int, bytes]:
        self.requests.append(request)
        answer = self.handed.get(request["requestId"])
        if answer is None:
            answer = self.jobs.pop(0) if self.jobs else {"StatusCode": 20}
            self.handed[request["requestId"]] = answer
        self.get_job_hook(request)
        return 200, json.dumps(answer).encode()

    def _update_job(self, update: dict) -> tuple[int, bytes]:
        status, answer = self.update_hook(update) or (200, {"StatusCode": 0, "command": "NULL"})
        if status == 200:
            self.updates.append(update)
        return status, json.dumps(answer).encode()

    @property
    def final(self) -> dict:
        finals = [update for update in self.updates if update["state"] in ("finished", "failed")]
        assert len(finals) == 1, [update["state"] for update in self.updates]
        return finals[0]

    def add_script(self, name: str, text: str) -> str:
        self.files[name] = text.encode()
        return f"{self.url}/cache/{name}"

    def add_input(self, lfn: str, content: bytes) -> None:
        path = self.place(lfn)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    def place(self, lfn: str, scope: str = SCOPE) -> Path:
        """Work out where a file is on the storage, independently of the pilot's own code."""
        digest = hashlib.md5(f"{scope}:{lfn}".encode()).hexdigest()
        return self.storage / scope.replace(".", "/") / digest[:2] / digest[2:4] / lfn

    def log_members(self, job_id: int) -> dict[str, bytes]:
        with tarfile.open(self.place(f"job.{job_id}.log.tgz")) as tarball:
            return {Path(item.name).name: tarball.extractfile(item).read() for item in tarball.getmembers()}


def endpoint(root: Path) -> dict:
    protocol = [{"endpoint": "file://localhost", "path": str(root), "flavour": "FILE"}]
    kinds = ("read_lan", "write_lan", "read_wan", "write_wan")
    return {"name": DISK, "site": "STUB", "state": "ACTIVE", "is_deterministic": True,
            "arprotocols": dict.fromkeys(kinds, protocol)}  # fmt: skip


def job(job_id: int, transformation: str, *, outputs: str = "", inputs: dict | None = None, **more) -> dict:
    """Describe a job as the server does; inputs are names with their content."""
    inputs = inputs or {}
    names = [*filter(None, outputs.split(",")), f"job.{job_id}.log.tgz"]
    return {
        "StatusCode": 0,
        "PandaID": job_id,
        "attemptNr": 1,
        "taskID": "55",
        "jobToken": TOKEN,
        "heartbeatInterval": 60,
        "leaseTime": 600,
        "transformation": transformation,
        "jobPars": "",
        "inFiles": ",".join(inputs),
        "scopeIn": ",".join(SCOPE for _ in inputs),
        "fsize": ",".join(str(len(content)) for content in inputs.values()),
        "checksum": ",".join(f"ad:{zlib.adler32(content):08x}" for content in inputs.values()),
        "ddmEndPointIn": ",".join(DISK for _ in inputs),
        "outFiles": ",".join(names),
        "scopeOut": ",".join(SCOPE for _ in names[:-1]),
        "ddmEndPointOut": ",".join(DISK for _ in names),
        "logFile": names[-1],
        "logGUID": str(uuid.uuid4()),
        "scopeLog": SCOPE,
        **more,
    }


class PilotProcess:
    """The real pilot, with small times and an environment full of things that no payload may see."""

    def __init__(self, url: str, work: Path, *arguments: str, environment: dict | None = None):
        self.work = work
        command = [sys.executable, "-m", "pandapilot.main", "--server", url, "--queue", QUEUE, "--work-dir", str(work)]
        times = ["--idle-time=0", "--poll-interval=0.2", "--check-interval=0.3", "--kill-grace=1", "--retry-pause=0.1"]
        flag = ["--insecure-http"] if url.startswith("http:") else []
        self.log_path = work.parent / f"{work.name}.err"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *times, *flag, *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "BEARER_TOKEN": "bearer-secret",
                    "X509_USER_PROXY": "/nowhere",
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def wait(self, timeout_s: float = 30) -> int:
        self.out, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@contextmanager
def pilot(stub: StubServer, work: Path, *arguments: str, **more) -> Iterator[PilotProcess]:
    """Run a pilot beside the test; it is killed if the test forgets it."""
    running = PilotProcess(stub.url, work, *arguments, **more)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()
        running.process.stdout.close()


def run_pilot(stub: StubServer, work: Path, *arguments: str, **more) -> PilotProcess:
    with pilot(stub, work, *arguments, **more) as running:
        running.wait()
    return running


def eventually(condition: Callable[[], object], timeout_s: float = 15) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Tell whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def stub_server(directory: Path, **more) -> Iterator[StubServer]:
    stub = StubServer(directory / "storage", **more)
    try:
        yield stub
    finally:
        stub.stop()


@pytest.mark.integration
def test_stub_hands_the_same_job_to_a_repeated_request_and_another_to_a_new_one(tmp_path):
    with stub_server(tmp_path) as stub:
        stub.jobs = [job(1, "true"), job(2, "true")]
        ask = [{"requestId": name} for name in ("a", "a", "b", "c")]
        answers = [requests.post(f"{stub.url}/server/panda/getJob", json=body, timeout=5).json() for body in ask]
        assert [answer.get("PandaID") for answer in answers] == [1, 1, 2, None]


@pytest.mark.integration
def test_stub_keeps_its_port_over_a_restart(tmp_path):
    with stub_server(tmp_path) as stub:
        port = stub.port
        stub.stop()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{stub.url}/cache/x", timeout=5)
        stub.start()
        assert stub.port == port
        assert requests.get(f"{stub.url}/cache/x", timeout=5).status_code == 404


@pytest.mark.integration
def test_log_members_are_read_by_their_base_names(tmp_path):
    with stub_server(tmp_path) as stub:
        path = stub.place("job.7.log.tgz")
        path.parent.mkdir(parents=True)
        with tarfile.open(path, "w:gz") as tarball:
            info = tarfile.TarInfo("job-7-1/a.txt")
            info.size = 2
            tarball.addfile(info, io.BytesIO(b"hi"))
        assert stub.log_members(7) == {"a.txt": b"hi"}
