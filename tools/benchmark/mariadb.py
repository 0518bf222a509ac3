"""A private MariaDB for measurements: durable like a real one, in a folder of its own, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pymysql

from benchmark.processes import BenchError, free_port, stop_session

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_START_S = 60.0
_INSTALL = "MariaDB is not installed. Run: sudo apt-get install -y --no-install-recommends mariadb-server"

SETTINGS = """[mariadbd]
datadir={directory}/data
tmpdir={directory}/tmp
socket={directory}/db.sock
pid-file={directory}/db.pid
log-error={directory}/error.log
init-file={directory}/accounts.sql
bind-address=127.0.0.1
port={port}
skip-name-resolve
skip-log-bin
transaction-isolation=READ-COMMITTED
character-set-server=utf8mb4
innodb_flush_log_at_trx_commit=1
innodb_buffer_pool_size={buffer_pool}
innodb_log_file_size=1G
innodb_sort_buffer_size=32M
max_connections=500
thread_cache_size=200
"""
# Read at every start: one account, and none without a password.
ACCOUNTS = """CREATE OR REPLACE USER panda@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO panda@'127.0.0.1' WITH GRANT OPTION;
CREATE OR REPLACE USER panda@localhost IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO panda@localhost WITH GRANT OPTION;
DELETE FROM mysql.global_priv WHERE User = 'root';
FLUSH PRIVILEGES;
"""

DBConnection: TypeAlias = "pymysql.connections.Connection[Any]"


@dataclass(frozen=True)
class MariaDB:
    """A running server; `pid` is also its session."""

    directory: Path
    port: int
    password: str
    pid: int

    def url(self, name: str) -> str:
        """Give the SQLAlchemy URL of a database, over the unix socket."""
        place = f"localhost/{name}?unix_socket={self.directory}/db.sock&charset=utf8mb4"
        return f"mysql+pymysql://panda:{self.password}@{place}"

    def connect(self, name: str | None = None) -> DBConnection:
        """Open a plain connection, autocommit."""
        return pymysql.connect(
            unix_socket=f"{self.directory}/db.sock", user="panda", password=self.password, database=name,
            charset="utf8mb4", autocommit=True,
        )  # fmt: skip

    def execute(self, *statements: str) -> None:
        """Run statements one by one."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()


@contextmanager
def private_mariadb(directory: Path, *, buffer_pool: str) -> Iterator[MariaDB]:
    """Run a MariaDB below `directory`, which must be short: a socket's path ends at 108 bytes.

    Raises:
        BenchError: it is not installed or does not come up; the text ends with its log.
    """
    installer, daemon = (shutil.which(name, path=_PATH) for name in ("mariadb-install-db", "mariadbd"))
    if not installer or not daemon:
        raise BenchError(_INSTALL)
    port, password = free_port(), secrets.token_hex(12)
    _prepare(directory, SETTINGS.format(directory=directory, port=port, buffer_pool=buffer_pool), password)
    _install(installer, directory)
    process = subprocess.Popen(
        [daemon, f"--defaults-file={directory}/my.cnf", *_as_mysql()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    server = MariaDB(directory, port, password, process.pid)
    try:
        _wait(server, process)
        yield server
    finally:
        stop_session(process, patience_s=120)


def _as_mysql() -> list[str]:
    return ["--user=mysql"] if os.geteuid() == 0 else []


def _prepare(directory: Path, settings: str, password: str) -> None:
    (directory / "tmp").mkdir(parents=True)
    (directory / "my.cnf").write_text(settings, encoding="utf-8")
    (directory / "accounts.sql").write_text(ACCOUNTS.format(password=password), encoding="utf-8")
    if os.geteuid() == 0:
        owner = pwd.getpwnam("mysql")
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)


def _install(installer: str, directory: Path) -> None:
    command = [installer, "--no-defaults", *_as_mysql(), f"--datadir={directory}/data", "--skip-test-db"]
    # A folder of its own: each server empties its temporary folder when it starts, those of others in there too.
    command += ["--auth-root-authentication-method=normal", f"--tmpdir={directory}/tmp"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")


def _wait(server: MariaDB, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_S
    while True:
        try:
            return server.connect().close()
        except pymysql.err.OperationalError as error:
            if process.poll() is not None or time.monotonic() > give_up:
                log = server.directory / "error.log"
                said = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else "(no log)"
                raise BenchError(f"the private MariaDB does not answer: {error}\n{said}") from error
        time.sleep(0.1)
