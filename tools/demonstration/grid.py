"""A temporary grid: certificates, a server, a monitor, two sites with storage, and a scheduler that sends pilots."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demonstration.services import Services

TOOLS = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOBODY = 65534
SITES = {"BNL": 1, "UTA": 2}  # site -> tier
_START_S = 60

_SERVER = """[server]
host = 127.0.0.1
port = {port}
host_cert = pki/hostcert.pem
host_key = pki/hostkey.pem
ca_dir = pki/certificates

[database]
write = {database}

[identity]
pilots = {pilot}
operators = {operator}
ddm = {ddm}
default_vo = demo

[cache]
directory = cache
public = no

[dispatch]
lease_s = 120
sent_lease_s = 60

[timeouts]
sent.any = 60
starting.any = 120
running.any = 120

[background]
threads = 4
lease_s = 10
watch_period_s = 5
recheck_period_s = 5

[ddm]
callback_cert = pki/ddm.pem
callback_key = pki/ddm.pem

[grid]
sites = sites.cfg
"""

_SITE = """[queue {name}]
site = {name}
cloud = US
tier = {tier}
endpoint = {name}_DISK
memory_mb = 4000
max_wall_time_s = 3600
releases = pythia-8.3
heartbeat_s = 5
environment = PATH={bin}:/usr/bin:/bin

[endpoint {name}_DISK]
site = {name}
url = file://{root}/storage/{name}

"""

_SCHEDULER = """[scheduler]
server = {url}
proxy = pki/{scheduler_proxy}
ca_dir = pki/certificates
state_dir = scheduler
scheduler_id = demo
interval_s = 1
back_end = fork
command_prefix = {prefix}
max_total = {most}
on_stop = cancel
stop_grace_s = 3

[pilot]
command = {bin}/panda-pilot --check-interval 0.5 --retry-pause 1
proxy = pki/pilot.pem
work_dir = pilots
lifetime_s = 3600
idle_s = 5
poll_interval_s = 0.5

"""

_QUEUE = """[queue {name}]
slots = {slots}
max_pending = {slots}
max_running = {slots}
per_cycle = {slots}

"""


class GridError(Exception):
    """The temporary grid does not come up; the text says why."""


@dataclass
class Grid:
    """The grid below one folder; `pilot_prefix` runs pilots apart from everything else where that is possible."""

    root: Path
    url: str
    monitor_url: str
    database: str
    pilot_prefix: list[str]
    services: Services

    @property
    def ca_dir(self) -> Path:
        """Give the folder of trusted authorities."""
        return self.root / "pki" / "certificates"

    def proxy(self, name: str) -> Path:
        """Give somebody's proxy."""
        return self.root / "pki" / f"{name}.pem"

    def start_server(self) -> None:
        """Start the server and wait until it is alive."""
        self.services.start("server", BIN / "panda-server", "start", "--config", self.root / "panda_server.cfg")
        port = int(self.url.rpartition(":")[2])
        self._wait("server", lambda: _listening(port))

    def start_monitor(self) -> None:
        """Start the monitor."""
        port = self.monitor_url.rpartition(":")[2]
        words = ("--database", self.database, "--server-config", self.root / "panda_server.cfg", "--port", port)
        self.services.start("monitor", BIN / "panda-monitor", *words, "--cache-s", "2", "--refresh-s", "3")
        self._wait("monitor", lambda: _listening(int(port)))

    def start_scheduler(self) -> None:
        """Start sending pilots."""
        self.services.start("scheduler", BIN / "panda-scheduler", "generic", "--config", self.root / "scheduler.cfg")

    def stop(self, *, keep_files: bool) -> None:
        """Stop every program; remove the folder unless its files shall stay."""
        self.services.stop()
        if not keep_files:
            remove(self.root)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_S
        while not ready():
            self.services.check()
            if time.monotonic() > end:
                raise GridError(f"{name} does not answer after {_START_S} s:\n{self.services.last_words(name)}")
            time.sleep(0.05)


def build(root: Path, *, database: str = "", slots: int = 2) -> Grid:
    """Write everything the grid needs below `root`, with tables made and nothing started."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o711)
    prefix = isolation(root)
    owner = ["--owner", f"{NOBODY}:{NOBODY}"] if prefix else []
    made = _run([TOOLS / "make-certs", root / "pki", "--json", *owner])
    people = {person["name"]: person["dn"] for person in json.loads(made)["people"]}
    for folder in ("cache", "scheduler", "logs", "pilots", *(f"storage/{site}" for site in SITES)):
        (root / folder).mkdir(parents=True)
    if prefix:
        for folder in ("pilots", *(f"storage/{site}" for site in SITES)):
            os.chown(root / folder, NOBODY, NOBODY)
            (root / folder).chmod(0o2775)
    grid = Grid(
        root=root,
        url=f"https://localhost:{_free_port()}",
        monitor_url=f"http://127.0.0.1:{_free_port()}",
        database=database or f"sqlite:///{root}/panda.db",
        pilot_prefix=prefix,
        services=Services(root / "logs", _environment()),
    )
    _write_configuration(grid, people, slots)
    _run([BIN / "panda-server", "db", "upgrade", "--config", root / "panda_server.cfg"])
    return grid


def _write_configuration(grid: Grid, people: dict[str, str], slots: int) -> None:
    root = grid.root
    dns = {"pilot": people["pilot"], "operator": people["prodman"], "ddm": people["ddm"]}
    port = grid.url.rpartition(":")[2]
    (root / "panda_server.cfg").write_text(_SERVER.format(port=port, database=grid.database.replace("%", "%%"), **dns))
    sites = [_SITE.format(name=name, tier=tier, bin=BIN, root=root) for name, tier in SITES.items()]
    (root / "sites.cfg").write_text("".join(sites))
    scheduler = _SCHEDULER.format(
        url=grid.url, bin=BIN, prefix=" ".join(grid.pilot_prefix), most=4 * slots, scheduler_proxy="prodman.pem"
    )
    queues = [_QUEUE.format(name=name, slots=slots) for name in SITES]
    (root / "scheduler.cfg").write_text(scheduler + "".join(queues))


def remove(root: Path) -> None:
    """Remove the folder of a grid; a pilot's last file may still be being written."""
    shutil.rmtree(root, ignore_errors=True)


def isolation(root: Path) -> list[str]:
    """Give the words that run a pilot as an ordinary user in its own process namespace.

    Empty where we are an ordinary user ourselves, or where such a user could not reach what pilots need.
    """
    if os.geteuid() != 0:
        return []
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    space = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    trial = [str(BIN / "python"), "-c", "import pandapilot.main, os, sys; os.stat(sys.argv[1])", str(root)]
    works = subprocess.run([*space, *user, *trial], capture_output=True, cwd="/", check=False, env=_environment())
    return [*space, *user] if works.returncode == 0 else []


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}
    return kept | {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}


def _run(command: list[str | Path]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        raise GridError(f"{Path(words[0]).name} failed with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listening(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
