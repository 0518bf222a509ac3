"""What goes wrong with real storage and real processes: servers that end and come back, lies, kill -9 in a copy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import pick_free_port
from factories import Clock, Pki
from private_webdav import PLACES, StorageServer, private_webdav
from private_xrootd import private_xrootd

from pandaserver.background.pool import Handler, WorkPool, one_by_one
from pandaserver.dataservice.ddm import storage
from pandaserver.dataservice.ddm.lanes import CALLBACK, LINK
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.ddm.protocol import ProgressState
from pandaserver.dataservice.ddm.storage import Credentials, Stores
from pandaserver.dataservice.ddm.storage.webdav import WebDav
from pandaserver.errors import ConfigError, DDMError, DDMFatal
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint, Topology
from pandaserver.taskbuffer import schema, topology
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database

PATIENCE_S = 60.0


def pool(ddm: LocalDDM, buffer: TaskBuffer) -> WorkPool:
    handlers = {LINK: Handler(one_by_one(ddm.carrier.run)), CALLBACK: Handler(one_by_one(lambda _: None))}
    return WorkPool(buffer, handlers, threads=1, lease_s=60, give_up_after_s=86400)


def replica(lfn: str, content: bytes, endpoint: str = "A") -> Replica:
    adler = f"{zlib.adler32(content):08x}"
    return Replica(scope="s", lfn=lfn, endpoint=endpoint, guid="g", size_bytes=len(content), adler32=adler)


def describe(buffer: TaskBuffer, urls: dict[str, str]) -> None:
    endpoints = {name: Endpoint(name=name, site=name, url=url) for name, url in urls.items()}
    buffer.run(lambda c: topology.save(c, Topology(queues={}, endpoints=endpoints)))


def put(root: Path, lfn: str, content: bytes) -> Path:
    path = root / storage.below_root("s", lfn)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def wait_until(good: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not good():
        assert time.monotonic() < end, f"not in {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def buffer(tmp_path: Path, sqlite_pattern: Path) -> Iterator[TaskBuffer]:
    shutil.copyfile(sqlite_pattern, tmp_path / "panda.db")
    made = TaskBuffer(Database(f"sqlite:///{tmp_path / 'panda.db'}"), Clock())
    yield made
    made.database.close()


# --- servers


@pytest.fixture(scope="module", params=["mod_dav", "XrdHttp", "root"])
def server(request: pytest.FixtureRequest, pki: Pki) -> Iterator[tuple[StorageServer, str]]:
    kinds = {
        "mod_dav": lambda: private_webdav(pki, pick_free_port()),
        "XrdHttp": lambda: private_xrootd(pki, pick_free_port(), http_port=pick_free_port()),
        "root": lambda: private_xrootd(pki, pick_free_port()),
    }
    with kinds[request.param]() as made:
        yield made, made.root_url if request.param == "root" else made.url


@pytest.fixture
def world(server: tuple[StorageServer, str], buffer: TaskBuffer) -> tuple[StorageServer, LocalDDM]:
    storage_server, url = server
    storage_server.clear()
    describe(buffer, {name: f"{url}/{name}" for name in PLACES})
    stores = Stores(Credentials(storage_server.proxy, None, storage_server.certificates))
    return storage_server, LocalDDM(buffer, stores)


def test_copies_go_on_when_a_server_comes_back(world: tuple[StorageServer, LocalDDM], buffer: TaskBuffer) -> None:
    server, ddm = world
    server.own(put(server.data / "A", "one", b"bytes"))
    ddm.register({"d": [replica("one", b"bytes")]})
    ddm.request(["d"], "B")
    server.stop()
    pool(ddm, buffer).run_all()
    told = ddm.progress([("d", "B")])["d", "B"]
    assert told.state is ProgressState.STUCK and told.error
    with pytest.raises(DDMError) as refused:
        ddm.register({"e": [replica("one", b"bytes")]})
    assert not isinstance(refused.value, DDMFatal)
    server.start()
    assert isinstance(buffer.clock, Clock)
    for _ in range(30):  # connections that broke may need another try
        buffer.clock.forward(301)
        pool(ddm, buffer).run_all()
        if ddm.progress([("d", "B")])["d", "B"].state is ProgressState.OK:
            break
        time.sleep(1)
    assert (server.data / "B" / storage.below_root("s", "one")).read_bytes() == b"bytes"
    assert ddm.progress([("d", "B")])["d", "B"].state is ProgressState.OK


def test_a_folder_that_may_not_be_written_is_an_error_in_words(
    world: tuple[StorageServer, LocalDDM], buffer: TaskBuffer
) -> None:
    server, ddm = world
    server.own(put(server.data / "A", "one", b"bytes"))
    ddm.register({"d": [replica("one", b"bytes")]})
    shutil.rmtree(server.data / "B")
    (server.data / "B").write_text("a file where a folder should be")
    ddm.request(["d"], "B")
    pool(ddm, buffer).run_all()
    assert ddm.progress([("d", "B")])["d", "B"].error.startswith("A: ")
    (server.data / "B").unlink()


def test_without_a_credential_storage_is_closed(server: tuple[StorageServer, str], pki: Pki) -> None:
    made, url = server
    if not url.startswith("https"):
        return  # that one is open to everybody
    for trust in (Credentials(None, None, made.certificates), Credentials(pki.proxy("alice"), None, Path("/nowhere"))):
        with pytest.raises(DDMError):
            WebDav(f"{url}/A", trust).write("s/x", iter([b"1"]), size_bytes=1)


def test_the_environment_does_not_say_whom_to_believe(
    server: tuple[StorageServer, str], pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = server
    if not url.startswith("https"):
        return
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(pki.directory / "ca.pem"))
    other = made.root / "others"
    other.mkdir(exist_ok=True)
    with pytest.raises(DDMError, match=r"certificate|CERTIFICATE|CA"):
        WebDav(f"{url}/A", Credentials(made.proxy, None, other)).stat("s/x")
    assert WebDav(f"{url}/A", Credentials(made.proxy, None, made.certificates)).stat("s/x") is None


# --- servers that lie


class Liar(BaseHTTPRequestHandler):
    """Says one thing and does another."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = self.answers.get(self.command, (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.close_connection = len(body) != int(headers.get("Content-Length", len(body)))

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def liar(pki: Pki, **answers: tuple[int, dict[str, str], bytes]) -> Iterator[WebDav]:
    handler = type("Handler", (Liar,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.directory / "hostcert.pem", pki.directory / "hostkey.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        trust = Credentials(pki.proxy("ddm"), None, pki.directory / "certificates")
        yield WebDav(f"https://localhost:{server.server_address[1]}/A", trust)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


GOOD = (201, {}, b"")


def test_a_201_may_say_failure(pki: Pki) -> None:
    lie = (201, {}, b"Perf Marker\nsuccess soon\nfailure: the disk server is away\n")
    with liar(pki, MKCOL=GOOD, PUT=lie) as dav, pytest.raises(DDMError, match="failure: the disk server is away"):
        dav.write("s/x", iter([b"1"]), size_bytes=1)
    with liar(pki, MOVE=lie) as dav, pytest.raises(DDMError, match="failure: the disk server is away"):
        dav.rename("s/x", "s/y")


def test_bytes_that_end_too_soon_are_noticed(pki: Pki) -> None:
    short = (200, {"Content-Length": "10"}, b"12345")
    with liar(pki, GET=short) as dav, pytest.raises(DDMError, match="broke off"):
        list(dav.read("s/x"))


def test_redirections_of_uploads_are_not_followed(pki: Pki) -> None:
    away = (307, {"Location": "https://localhost:1/elsewhere"}, b"")
    with liar(pki, MKCOL=GOOD, PUT=away) as dav, pytest.raises(DDMError, match="answered 307"):
        dav.write("s/x", iter([b"1"]), size_bytes=1)


def test_checksums_are_filled_up_with_zeros(pki: Pki) -> None:
    told = (200, {"Digest": "md5=xyz,adler32=1E7F"}, b"12")
    with liar(pki, HEAD=told) as dav:
        assert dav.stat("s/x") == storage.Stat(2, "00001e7f")


# --- schemes


@pytest.mark.parametrize("url", ["s3://bucket/x", "http://localhost/x", "file://elsewhere/x", "gsiftp://h/x"])
def test_endpoints_nobody_can_speak_with_are_refused(buffer: TaskBuffer, url: str) -> None:
    describe(buffer, {"A": url})
    with pytest.raises(ConfigError, match="endpoint A"):
        LocalDDM(buffer).register({"d": [replica("one", b"1")]})


# --- processes that are killed

COPIER = """
import sys
from pathlib import Path
from pandaserver.background.pool import Handler, WorkPool, one_by_one
from pandaserver.dataservice.ddm.lanes import LINK
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database

buffer = TaskBuffer(Database(sys.argv[1]))
ddm = LocalDDM(buffer)
WorkPool(buffer, {LINK: Handler(one_by_one(ddm.carrier.run))}, threads=1, lease_s=60, give_up_after_s=9).run_all()
"""


def test_a_process_killed_in_the_middle_of_a_copy_leaves_nothing_behind(buffer: TaskBuffer, tmp_path: Path) -> None:
    root, content = tmp_path / "storage", os.urandom(4_000_000)
    describe(buffer, {name: f"file://{root}/{name}" for name in "AB"})
    ddm, source = LocalDDM(buffer), put(root / "A", "large", content)
    ddm.register({"d": [replica("large", content)]})
    ddm.request(["d"], "B")
    source.rename(tmp_path / "kept")
    os.mkfifo(source)  # the source gives half of its bytes, and then nothing more comes
    url = str(buffer.database.writer.url)
    process = subprocess.Popen([sys.executable, "-c", COPIER, url], stderr=subprocess.PIPE)
    folder = (root / "B" / storage.below_root("s", "large")).parent
    try:
        with source.open("wb", buffering=0) as pipe:
            pipe.write(content[:2_000_000])
            wait_until(lambda: any(p.stat().st_size >= 1_000_000 for p in folder.glob(".large.*.part")), "half a copy")
            process.send_signal(signal.SIGKILL)
            process.wait(20)
    finally:
        process.kill()
        process.communicate()
    source.unlink()
    (tmp_path / "kept").rename(source)
    assert isinstance(buffer.clock, Clock)
    buffer.clock.forward(10**9)  # far beyond the lease, which is of our own days
    pool(ddm, buffer).run_all()
    assert [p.name for p in folder.iterdir()] == ["large"]
    assert (folder / "large").read_bytes() == content
    (moved,) = buffer.read(lambda c: c.execute(schema.ddm_transfers.select()).all())
    assert (moved.state, moved.tries) == ("done", 1)
