"""What a measurement runs on: a folder, certificates, a database with all tables, a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.load import Part, Plan
from benchmark.mariadb import MariaDB, private_mariadb
from benchmark.processes import BenchError, Meter, child_environment, free_port, stop_session
from benchmark.show import say
from benchmark.wire import Address, Wire, WireError
from pandaserver.taskbuffer import migrate
from pandaserver.taskbuffer.database import Database

TOOLS = Path(__file__).resolve().parent.parent
ENDPOINT = "BENCH_DISK"
_START_S = 60
_MEMORY_DISK = Path("/dev/shm")

_SERVER = """[server]
host = 127.0.0.1
port = {port}
host_cert = pki/hostcert.pem
host_key = pki/hostkey.pem
ca_dir = pki/certificates
workers = {workers}
threads = {threads}
log_file = server.log

[database]
write = {database}

[identity]
pilots = {pilot}
operators = {operator}
ddm = {ddm}
default_vo = bench

[cache]
directory = cache

[ddm]
callback_cert = pki/ddm.pem
callback_key = pki/ddm.pem

[grid]
sites = sites.cfg
"""
# What has ended goes into the archive at once: that belongs to a job's life.
_MORE = """
[archive]
after_s = 0
period_s = 0.5
"""

_QUEUE = """[queue {name}]
site = BENCH
cloud = US
tier = 1
endpoint = {endpoint}
memory_mb = 4000

"""
_STORAGE = """[endpoint {endpoint}]
site = BENCH
url = file://{storage}
"""


@dataclass(frozen=True)
class Size:
    """How large the server, the database and the grid are."""

    workers: int = 2
    threads: int = 32
    queues: int = 4
    buffer_pool: str = "1G"


@dataclass(frozen=True)
class Site:
    """A folder with a configuration, and a database that has all tables."""

    root: Path
    storage: Path
    database: MariaDB
    url: str
    port: int
    queues: list[str]
    pilot: str  # DN

    @property
    def config(self) -> Path:
        """Give the file of the server's configuration."""
        return self.root / "panda_server.cfg"

    def address(self, *, https: bool = False, keep_alive: bool = True) -> Address:
        """Give the address of the server."""
        return Address(self.port, str(self.root / "pki") if https else "", keep_alive)

    def plan(self, address: Address, *parts: Part) -> Plan:
        """Make a plan for clients of the server here."""
        return Plan(
            address=address, parts=list(parts), queues=self.queues, endpoint=ENDPOINT, storage=str(self.storage)
        )


@contextmanager
def site(size: Size, *, directory: str | None = None) -> Iterator[Site]:
    """Make everything but the server; it is gone afterwards."""
    say("making a private MariaDB, certificates and tables")
    root = Path(tempfile.mkdtemp(prefix="panda-bench-", dir=directory))
    root.chmod(0o711)  # the user mysql has to get to the folder of the database
    in_memory = _MEMORY_DISK if os.access(_MEMORY_DISK, os.W_OK) else root
    storage = Path(tempfile.mkdtemp(prefix="panda-bench-", dir=in_memory))
    try:
        with private_mariadb(root / "db", buffer_pool=size.buffer_pool) as database:
            yield _site(root, storage, database, size)
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)


def _site(root: Path, storage: Path, database: MariaDB, size: Size) -> Site:
    people = _certificates(root / "pki")
    queues = [f"BENCH_{number:03d}" for number in range(size.queues)]
    made = Site(root, storage, database, database.url("panda"), free_port(), queues, people["pilot"])
    sections = "".join(_QUEUE.format(name=name, endpoint=ENDPOINT) for name in queues)
    (root / "sites.cfg").write_text(sections + _STORAGE.format(endpoint=ENDPOINT, storage=storage))
    identities = {"pilot": people["pilot"], "operator": people["prodman"], "ddm": people["ddm"]}
    text = _SERVER.format(
        port=made.port, database=made.url, workers=size.workers, threads=size.threads, **identities
    )  # fmt: skip
    made.config.write_text(text + _MORE)
    database.execute("CREATE DATABASE panda")
    tables = Database(made.url)
    migrate.upgrade(tables)
    tables.close()
    return made


def _certificates(directory: Path) -> dict[str, str]:
    """Make certificates; give everybody's DN."""
    tool = [sys.executable, str(TOOLS / "make-certs"), str(directory), "--json"]
    done = subprocess.run(tool, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"tools/make-certs failed:\n{done.stdout}{done.stderr}")
    return {person["name"]: person["dn"] for person in json.loads(done.stdout)["people"]}


@contextmanager
def server(place: Site, kind: str) -> Iterator[Meter]:
    """Run a server until the end: `https` is panda-server itself, `http` the same without TLS, `empty` does nothing."""
    with (place.root / "output.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.serve", kind, str(place.config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=child_environment(),
        )  # fmt: skip
    try:
        _wait(place, process, kind)
        yield Meter(web=process.pid, db=place.database.pid)
    finally:
        stop_session(process, patience_s=15)


def _wait(place: Site, process: subprocess.Popen[bytes], kind: str) -> None:
    address = place.address(https=kind == "https", keep_alive=False)
    wire = Wire(address, "pilot", address.context("pilot"))
    give_up = time.monotonic() + _START_S
    while True:
        try:
            if wire.get("/server/panda/isAlive")[0] == 200:
                return
        except (OSError, WireError):
            pass
        if process.poll() is not None or time.monotonic() > give_up:
            raise BenchError(f"the server does not come up:\n{last_words(place)}")
        time.sleep(0.05)


def last_words(place: Site) -> str:
    """Give the end of the server's logs."""
    logs = [place.root / name for name in ("output.log", "server.log")]
    return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())
