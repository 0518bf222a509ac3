"""What all tests share: a MariaDB of their own, free ports, and the rule that no test is skipped in silence."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conformance_table
import factories
import pymysql
import pytest
from hypothesis import settings
from sqlalchemy.exc import OperationalError

from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database

INSTALL_MARIADB = "MariaDB is not installed. Run: sudo apt-get install -y --no-install-recommends mariadb-server"
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
MARIADB_START_S = 60.0
TOOLS = Path(__file__).resolve().parents[1] / "tools"
RUN_TOOL = """
import runpy, sys, types
sys.modules["_venv"] = types.SimpleNamespace(enter=lambda: None)  # the tests run inside the environment already
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# The folder says what a test needs, so that nobody has to repeat it in every file.
FOLDER_MARKERS = {"integration": "integration", "e2e": "e2e"}

settings.register_profile("panda", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "panda")


# --- the rules of a run ---


def pytest_configure() -> None:
    """Let programs under test be interrupted, also where this run is in the background and ignores Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--allow-skips", action="store_true", help="let skipped tests pass (they fail otherwise)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder, marker in FOLDER_MARKERS.items():
            if folder in item.path.parts:
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    return fail_if_skipped((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    return fail_if_skipped((yield), collector.config)


def fail_if_skipped(report: Any, config: pytest.Config) -> Any:
    """A skipped test proves nothing: count it as failed. Expected failures (xfail) are no skips."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail") and not config.getoption("--allow-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped ({reason}); a test that cannot run has to fail"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if terminalreporter.config.getoption("markexpr") == "conformance":
        told = {o: terminalreporter.getreports(o) for o in ("passed", "failed", "error")}
        for line in conformance_table.lines((r.nodeid, outcome) for outcome, some in told.items() for r in some):
            terminalreporter.write_line(line)
    for reports in (terminalreporter.stats.get(outcome, []) for outcome in ("passed", "failed")):
        for name, table in (told for report in reports for told in getattr(report, "user_properties", ())):
            if name == "table":  # what a test has to show
                terminalreporter.write_line(f"\n{table}\n")
    started = os.environ.get("PANDA_TEST_STARTED")
    if started:
        terminalreporter.write_line(
            f"wall time {time.time() - float(started):.1f} s, with everything that was installed"
        )


# --- ports ---


def pick_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True)
def _umask_stays() -> Iterator[None]:
    """A test that left another umask would break others, far away: servers of theirs could not read their files."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    after = os.umask(before)
    assert after == before, f"the umask was {before:#o} before this test and is {after:#o}"


@pytest.fixture
def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    return pick_free_port()


@pytest.fixture
def new_port() -> Callable[[], int]:
    """The same for tests that need several: every call gives another port."""
    return pick_free_port


# --- databases ---


@dataclass(frozen=True)
class MariaDB:
    """A running server; each test takes a database of its own from it."""

    host: str
    port: int
    socket: Path
    user: str
    password: str

    def connect(self) -> pymysql.connections.Connection[Any]:
        """Open a plain connection, for what a test wants to see or spoil behind the back of the code."""
        return pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, charset="utf8mb4", autocommit=True
        )

    def execute(self, statement: str) -> None:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def new_database(self) -> str:
        """Create an empty database and give back its URL."""
        name = f"panda_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://{self.user}:{self.password}@{self.host}:{self.port}/{name}?charset=utf8mb4"

    def drop_database(self, url: str) -> None:
        name = url.rpartition("/")[2].partition("?")[0]
        self.execute(f"DROP DATABASE IF EXISTS {name}")


@dataclass
class UsedDatabase:
    """One database of the server for many tests, emptied after each: faster by far than making the tables again."""

    server: MariaDB
    url: str = ""

    def take(self) -> str:
        if not self.url:
            self.url = self.server.new_database()
            factories.prepare(self.url)
        return self.url

    def give_back(self) -> None:
        database = Database(self.url)
        try:
            database.run(factories.empty)
        except OperationalError:  # a test that failed left a lock
            self.url = ""
        finally:
            database.close()


# Flushing the log once a second (2) survives a killed server; tests do not cut the power.
SERVER_SETTINGS = """[mariadbd]
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
sql_mode=STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION
innodb_flush_log_at_trx_commit=2
innodb_buffer_pool_size=64M
innodb_log_file_size=32M
max_connections=200
"""
# Read at every start: one account for the tests, and none without a password.
ACCOUNTS = """CREATE OR REPLACE USER panda@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO panda@'127.0.0.1' WITH GRANT OPTION;
DELETE FROM mysql.global_priv WHERE User = 'root';
FLUSH PRIVILEGES;
"""


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A private MariaDB, started for this run and stopped after it; fails where MariaDB is not installed."""
    installer, daemon = (shutil.which(name, path=SBIN) for name in ("mariadb-install-db", "mariadbd"))
    if not installer or not daemon:
        pytest.fail(INSTALL_MARIADB, pytrace=False)
    # Short and below /tmp: a socket's path ends at 108 bytes, and the user mysql has to get there.
    directory = Path(tempfile.mkdtemp(prefix="panda-db-", dir="/tmp"))
    try:
        server = prepare_mariadb(directory, installer=installer)
        process = subprocess.Popen(
            [daemon, f"--defaults-file={directory}/my.cnf", *as_user_mysql()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the keyboard is for the tests, which then stop the server
        )
        try:
            wait_for_mariadb(server, process=process, log=directory / "error.log")
            yield server
        finally:
            stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def as_user_mysql() -> list[str]:
    return ["--user=mysql"] if os.geteuid() == 0 else []


def prepare_mariadb(directory: Path, *, installer: str) -> MariaDB:
    server = MariaDB("127.0.0.1", pick_free_port(), directory / "db.sock", "panda", secrets.token_hex(12))
    (directory / "tmp").mkdir()
    (directory / "my.cnf").write_text(SERVER_SETTINGS.format(directory=directory, port=server.port), encoding="utf-8")
    (directory / "accounts.sql").write_text(ACCOUNTS.format(password=server.password), encoding="utf-8")
    if os.geteuid() == 0:
        owner = pwd.getpwnam("mysql")
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    command = [installer, "--no-defaults", *as_user_mysql(), f"--datadir={directory}/data", "--skip-test-db"]
    # A folder of its own: each server empties its temporary folder when it starts, those of others in there too.
    command += ["--auth-root-authentication-method=normal", f"--tmpdir={directory}/tmp"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}", pytrace=False)
    return server


def wait_for_mariadb(server: MariaDB, *, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + MARIADB_START_S
    while True:
        try:
            return server.connect().close()
        except pymysql.err.OperationalError as error:
            if process.poll() is not None or time.monotonic() > give_up:
                said = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else "(no log)"
                pytest.fail(f"the private MariaDB does not answer: {error}\n{said}", pytrace=False)
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mysql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database: each test that asks for it runs on SQLite and on MariaDB."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'panda.db'}"
        return
    server: MariaDB = request.getfixturevalue("mariadb")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables, to be copied."""
    path = tmp_path_factory.mktemp("pattern") / "panda.db"
    factories.prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def used_database(mariadb: MariaDB) -> UsedDatabase:
    return UsedDatabase(mariadb)


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mysql)])
def prepared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with all tables, and nothing in them."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_pattern"), tmp_path / "panda.db")
        yield f"sqlite:///{tmp_path / 'panda.db'}"
        return
    used: UsedDatabase = request.getfixturevalue("used_database")
    yield used.take()
    used.give_back()


@pytest.fixture
def buffer(prepared_url: str) -> Iterator[TaskBuffer]:
    """A TaskBuffer over empty tables, with a clock that tests move."""
    made = TaskBuffer(Database(prepared_url), factories.Clock())
    yield made
    made.database.close()


# --- a server in this process ---


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> factories.Pki:
    """Certificates of a test grid, good ones and (below creds/) bad ones, made once for the run."""
    directory = tmp_path_factory.mktemp("pki")
    tool = [sys.executable, "-c", RUN_TOOL, str(TOOLS), str(TOOLS / "make-certs"), str(directory), "--all", "--json"]
    made = subprocess.run(tool, check=True, capture_output=True, text=True)
    return factories.Pki(directory, {person["name"]: person["dn"] for person in json.loads(made.stdout)["people"]})


@pytest.fixture
def grid(tmp_path: Path, pki: factories.Pki, prepared_url: str) -> Iterator[factories.Grid]:
    """A server over empty tables; a test that asks for it runs on SQLite and on MariaDB."""
    made = factories.make_grid(tmp_path / "grid", pki, prepared_url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def rucio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Rucio for this run, whose daemons work when a test says so."""
    import private_rucio  # here, since it takes its time

    with private_rucio.running(tmp_path_factory.mktemp("rucio") / "home") as running:
        yield running


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that the pilots' unprivileged user can reach; pytest's own folders are closed to it."""
    with factories.open_folder() as folder:
        yield folder
