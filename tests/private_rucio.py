"""A real Rucio of our own: its server, its daemons and its database, all private to this run.

The programs come from PyPI into a virtual environment of their own, since Rucio's server and client packages share a
folder; it is made once and kept below ~/.cache. The daemons do their rounds when a test says so, see `Rucio.work`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from rucio.client import Client
from rucio.client.baseclient import BaseClient

VERSION, SERIAL = "41.5.1", 1  # the serial goes up when what is made below changes
PACKAGES = (f"rucio=={VERSION}", "gunicorn >= 27, < 28")
DAEMONS = Path(__file__).with_name("private_rucio_daemons.py")
ACCOUNT, USERNAME, PASSWORD = "panda", "panda", "a password of tests"
ROOT_USERNAME, ROOT_PASSWORD = "ddmlab", "another password of tests"
PATIENCE_S = 120.0
INSTALL_PATIENCE_S = 600
TRANSFERS = ("cleaner", "injector", "evaluator", "repairer", "submitter", "poller", "finisher")
DELETION = ("undertaker", "cleaner", "reaper")

SETTINGS = """[common]
logdir = {home}/log
loglevel = INFO
mailtemplatedir = {home}
[database]
default = sqlite:///{home}/rucio.db?timeout=60
echo = 0
[bootstrap]
userpass_identity = {user}
userpass_pwd = {password}
userpass_email = root@localhost
[policy]
permission = generic
schema = generic
[conveyor]
transfertool = copying
scheme = file
[alembic]
cfg = {home}/etc/alembic.ini
[monitor]
enable_metrics = False
[hermes]
services_list = elastic
[oidc]
admin_issuer =
"""
ALEMBIC = """[alembic]
sqlalchemy.url = sqlite:///{home}/rucio.db
script_location = {package}/db/sqla/migrate_repo/
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARN
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""
BUILD = """
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database(), create_base_vo(), create_root_account()
"""


def environment() -> Path:
    """Give the virtual environment with Rucio's server, made if nobody has made it yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "panda-tests"
    place = cache / f"rucio-{VERSION}-{SERIAL}-python{sys.version_info.major}.{sys.version_info.minor}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(place)])
            run([str(place / "bin/pip"), "install", "--quiet", *PACKAGES])
            (place / "installed").touch()
        if not (place / "rucio.db").exists():
            build_pattern(place)
    return place


def run(command: list[str], **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_PATIENCE_S, check=False, **more)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def clean_environ(**more: str) -> dict[str, str]:
    """What Rucio's processes see of ours: nothing of an environment that this run may be in."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONWARNINGS": "ignore"} | more


def build_pattern(place: Path) -> None:
    """Make the database that every Rucio of ours starts with."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        write_home(home, place)
        run([str(place / "bin/python"), "-c", BUILD], env=clean_environ(RUCIO_HOME=str(home)), cwd=home)
        with contextlib.closing(sqlite3.connect(home / "rucio.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # it stays so; else readers would stop writers
        shutil.move(home / "rucio.db", place / "rucio.db")


def write_home(home: Path, place: Path) -> None:
    """Write Rucio's configuration below `home`."""
    (home / "etc").mkdir(parents=True)
    (home / "log").mkdir()
    package = next(place.glob("lib/python*/site-packages/rucio"))
    text = SETTINGS.format(home=home, user=ROOT_USERNAME, password=ROOT_PASSWORD)
    (home / "etc/rucio.cfg").write_text(text, encoding="utf-8")
    (home / "etc/alembic.ini").write_text(ALEMBIC.format(home=home, package=package), encoding="utf-8")


@dataclass
class Rucio:
    """A running Rucio; `work` lets its daemons do their rounds, and nothing happens in between."""

    home: Path
    place: Path  # its virtual environment
    port: int
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    rses: dict[str, str] = field(default_factory=dict)  # name -> prefix

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def login(self, account: str, username: str, password: str) -> Client:
        """Make a client of Rucio's own making."""
        told = {"account": account, "auth_type": "userpass", "creds": {"username": username, "password": password}}
        return Client(rucio_host=self.url, auth_host=self.url, timeout=60, **told)

    @cached_property
    def client(self) -> Client:
        """Act as PanDA's account, which is made at first."""
        root = self.login("root", ROOT_USERNAME, ROOT_PASSWORD)
        root.add_account(ACCOUNT, "SERVICE", "panda@localhost")
        root.add_account_attribute(ACCOUNT, "admin", "yes")
        root.add_identity(ACCOUNT, USERNAME, "USERPASS", "panda@localhost", password=PASSWORD)
        return self.login(ACCOUNT, USERNAME, PASSWORD)

    def log(self, name: str) -> IO[str]:
        return (self.home / f"log/{name}.log").open("a", encoding="utf-8")

    def start_server(self) -> None:
        application = "rucio.web.rest.flaskapi.v1.main:application"
        bind = ["-w", "1", "--threads", "8", "-b", f"127.0.0.1:{self.port}", "--no-control-socket"]
        command = [str(self.place / "bin/gunicorn"), *bind, "--graceful-timeout", "2", application]
        self.processes["server"] = self._start("server", command)

    def start_daemons(self) -> None:
        self.processes["daemons"] = self._start("daemons", [str(self.place / "bin/python"), str(DAEMONS)])

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[str]:
        with self.log(name) as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name == "daemons" else log,
                stderr=log,
                text=True,
                cwd=self.home,
                env=clean_environ(RUCIO_HOME=str(self.home)),
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def wait_for_server(self) -> None:
        give_up = time.monotonic() + PATIENCE_S
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(f"{self.url}/ping", timeout=10) as answer:
                    assert answer.status == 200
                    return
            except OSError as error:
                ended = self.processes["server"].poll() is not None
                assert not ended and time.monotonic() < give_up, (
                    f"Rucio does not answer: {error}\n{self.tail('server')}"
                )
            time.sleep(0.1)

    def tail(self, name: str) -> str:
        return (self.home / f"log/{name}.log").read_text(errors="replace")[-4000:]

    def tell(self, do: str, **told: Any) -> None:
        """Have the daemons do something, and wait until it is done."""
        stdin = self.processes["daemons"].stdin
        assert stdin is not None
        stdin.write(json.dumps({"do": do} | told) + "\n")
        stdin.flush()
        answer = self.hear()
        assert not answer["error"], f"{do}: {answer['error']}\n{self.tail('daemons')}"

    def hear(self) -> dict[str, Any]:
        stdout = self.processes["daemons"].stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], PATIENCE_S)
        line = stdout.readline() if ready else ""
        assert line, f"Rucio's daemons do not answer\n{self.tail('daemons')}"
        return dict(json.loads(line))

    def work(self, *daemons: str, times: int = 1) -> None:
        """Let daemons do their rounds: those of transfers, unless others are named."""
        for _ in range(times):
            self.tell("round", names=list(daemons or TRANSFERS))

    def reset(self) -> None:
        """Forget all files, datasets and rules, and the bytes."""
        self.tell("reset")
        for prefix in self.rses.values():
            shutil.rmtree(prefix, ignore_errors=True)

    def add_rses(self, root: Path, names: Sequence[str], *, folders: Mapping[str, str] | None = None) -> None:
        """Have storage at folders below `root`, from each to each other; those that are there stay."""
        new = [name for name in names if name not in self.rses]
        for name in new:
            self.rses[name] = str(root / (folders or {}).get(name, name))
            self.client.add_rse(name, deterministic=True)
            lan = {"read": 1, "write": 1, "delete": 1}
            wan = lan | {"third_party_copy_read": 1, "third_party_copy_write": 1}
            protocol = {
                "scheme": "file", "hostname": "localhost", "port": 0, "prefix": f"{self.rses[name]}/",
                "impl": "rucio.rse.protocols.posix.Default", "domains": {"lan": lan, "wan": wan},
            }  # fmt: skip
            self.client.add_protocol(name, protocol)
            self.client.add_rse_attribute(name, "greedyDeletion", True)
            self.client.set_account_limit(ACCOUNT, name, -1, "local")
        for one in self.rses:
            for other in self.rses:
                if one != other and (one in new or other in new):
                    self.client.add_distance(one, other, {"distance": 1})

    def rules(self, dataset: str, scope: str) -> list[dict[str, Any]]:
        return list(self.client.list_did_rules(scope, dataset))

    def store(self, rse: str, scope: str, lfn: str, content: bytes) -> dict[str, Any]:
        """Put a file where Rucio looks for it; give its facts."""
        path = self.path(rse, scope, lfn)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.facts(content)

    @staticmethod
    def facts(content: bytes) -> dict[str, Any]:
        return {"bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}

    def post_messages_to(self, port: int, username: str, password: str) -> None:
        """Have hermes post to a server on this machine."""
        url = f"http://127.0.0.1:{port}/server/panda/ddmMessages"
        self.tell("post_to", url=url, username=username, password=password)

    def path(self, rse: str, scope: str, lfn: str) -> Path:
        """Ask Rucio where a file lies."""
        (url,) = self.client.lfns2pfns(rse, [f"{scope}:{lfn}"]).values()
        return Path(url.removeprefix("file://localhost").partition("?")[0])

    def close(self) -> None:
        for name in list(self.processes):
            self.stop(name)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(home: Path) -> Iterator[Rucio]:
    """Have a Rucio of our own while the context lasts."""
    place = environment()
    write_home(home, place)
    shutil.copyfile(place / "rucio.db", home / "rucio.db")
    rucio = Rucio(home, place, free_port())
    BaseClient.TOKEN_PATH_PREFIX = tempfile.mkdtemp(prefix="tokens-", dir=home) + "/"  # not those of other runs
    try:
        rucio.start_server()
        rucio.start_daemons()
        rucio.wait_for_server()
        rucio.hear()
        yield rucio
    finally:
        rucio.close()
