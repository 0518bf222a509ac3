"""What a measurement runs on: a folder, certificates, a storage, a database with all tables."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import apache
from benchmark.door import Door
from benchmark.load import Part, Plan
from benchmark.mariadb import MariaDB, private_mariadb
from benchmark.people import VOMS, make_certificates
from benchmark.processes import free_port
from benchmark.show import say
from benchmark.wire import Address
from pandaserver.taskbuffer import migrate
from pandaserver.taskbuffer.database import Database

ENDPOINT = "BENCH_DISK"
_MEMORY_DISK = Path("/dev/shm")

_SERVER = """[server]
host = 127.0.0.1
port = {port}
host_cert = {root}/pki/hostcert.pem
host_key = {root}/pki/hostkey.pem
ca_dir = {root}/pki/certificates
workers = {workers}
threads = {threads}
log_file = {log_file}

[database]
write = {database}

[identity]
pilots = {pilot}
operators = {operator}
ddm = {ddm}
default_vo = bench
vomsdir = {root}/pki/vomsdir

[limits]
user_rate =

[cache]
directory = {cache}

[ddm]
callback_cert = {root}/pki/ddm.pem
callback_key = {root}/pki/ddm.pem

[grid]
sites = {root}/sites.cfg
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
    archives_at_once: bool = True


@dataclass(frozen=True)
class Site:
    """A folder with a configuration, and a database that has all tables."""

    root: Path
    storage: Path
    database: MariaDB
    url: str
    port: int
    size: Size
    people: dict[str, str] = field(default_factory=dict)  # DNs

    @property
    def queues(self) -> list[str]:
        """Name the queues of the grid."""
        return [f"BENCH_{number:03d}" for number in range(self.size.queues)]

    @property
    def pilot(self) -> str:
        """Give the DN of the pilots."""
        return self.people["pilot"]

    @property
    def config(self) -> Path:
        """Give the file of the server's configuration."""
        return self.root / "panda_server.cfg"

    @property
    def log_file(self) -> Path:
        """Give the log of the embedded server."""
        return self.root / "server.log"

    def write_config(self, path: Path, *, log_file: Path, cache: Path) -> None:
        """Write a configuration of the server; logs and sandboxes go where its user may write."""
        people = {"pilot": self.people["pilot"], "operator": self.people["prodman"], "ddm": self.people["ddm"]}
        told = {"root": self.root, "port": self.port, "database": self.url, "log_file": log_file, "cache": cache}
        sizes = {"workers": self.size.workers, "threads": self.size.threads}
        text = _SERVER + (_MORE if self.size.archives_at_once else "")
        path.write_text(text.format(**told, **people, **sizes))

    def address(self, door: Door) -> Address:
        """Give the address of the server, as clients see it who go through a door."""
        certificates = self.root / "pki"
        proxies = certificates / VOMS if door.voms else certificates
        if not door.tls:
            return Address(self.port, keep_alive=door.keep_alive)
        return Address(self.port, str(certificates), str(proxies), keep_alive=door.keep_alive)

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
        _share(storage)
        with private_mariadb(root / "db", buffer_pool=size.buffer_pool) as database:
            yield _site(root, storage, database, size)
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)


def _share(storage: Path) -> None:
    """Let the server of a front end with a user of its own read and write what pilots store."""
    if os.geteuid() == 0 and apache.is_user():
        shutil.chown(storage, group=apache.USER)
        storage.chmod(0o2770)  # what is made in it belongs to the group too


def _site(root: Path, storage: Path, database: MariaDB, size: Size) -> Site:
    people = make_certificates(root / "pki")
    (root / "pki").chmod(0o755)
    made = Site(root, storage, database, database.url("panda"), free_port(), size, people)
    sections = "".join(_QUEUE.format(name=name, endpoint=ENDPOINT) for name in made.queues)
    (root / "sites.cfg").write_text(sections + _STORAGE.format(endpoint=ENDPOINT, storage=storage))
    made.write_config(made.config, log_file=made.log_file, cache=root / "cache")
    database.execute("CREATE DATABASE panda")
    tables = Database(made.url)
    migrate.upgrade(tables)
    tables.close()
    return made
