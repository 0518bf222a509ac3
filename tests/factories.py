"""Makers of what tests work on: a server in this process with its own database, jobs, files at endpoints, a pilot."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask.testing import FlaskClient

from pandaserver.app import PandaServer, create_app, read_installation
from pandaserver.dataservice.ddm import storage
from pandaserver.model.file import NewFile, Replica, staged_name
from pandaserver.model.grid import Queue, QueueStatus
from pandaserver.model.job import Job, NewJob
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import files, jobs, migrate, schema
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection, Database

SITES = """
[queue BNL]
site = BNL
cloud = US
tier = 1
endpoint = BNL_DISK
memory_mb = 4000
releases = 13.0.40
    14.1.0
heartbeat_s = 5

[queue UTA]
site = UTA
cloud = US
tier = 2
endpoint = UTA_DISK
memory_mb = 2000
releases = 13.0.40
heartbeat_s = 5

[endpoint BNL_DISK]
site = BNL
url = file://{root}/BNL_DISK

[endpoint UTA_DISK]
site = UTA
url = file://{root}/UTA_DISK
"""

SERVER = """
[server]
ca_dir = {pki}/certificates
host_cert = {pki}/hostcert.pem
host_key = {pki}/hostkey.pem
port = {port}

[database]
write = {database}

[identity]
pilots = {pilot}
operators = {operator}
ddm = {ddm}
default_vo = testvo
vomsdir = {pki}/vomsdir

[limits]
user_rate =
anonymous_rate =

[cache]
directory = {root}/cache
max_upload_mb = 1

[background]
lease_s = {work_lease_s}
watch_period_s = 1
recheck_period_s = 1

[ddm]
callback_cert = {pki}/ddm.pem
callback_key = {pki}/ddm.pem

[brokerage]
spread = 0
silent_jobs = 0

[grid]
sites = {root}/sites.cfg
"""

BASE_DN = "/DC=org/DC=panda-test/O=Grid"


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a temporary folder that every user may pass through."""
    with tempfile.TemporaryDirectory(prefix="panda-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def write_config(root: Path, pki: Pki, database_url: str, *, port: int = 25443, work_lease_s: float = 60) -> Path:
    """Write a server's configuration below `root` and give its path."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "sites.cfg").write_text(SITES.format(root=root))
    told: dict[str, Any] = {"pilot": pki.dn("pilot"), "operator": pki.dn("prodman"), "ddm": pki.dn("ddm")}
    told |= {"root": root, "pki": pki.directory, "database": database_url, "port": port, "work_lease_s": work_lease_s}
    text = SERVER.format(**told)
    (root / "panda_server.cfg").write_text(text)
    return root / "panda_server.cfg"


@dataclass(frozen=True)
class Pki:
    """Certificates made by tools/make-certs."""

    directory: Path
    dns: Mapping[str, str]

    def dn(self, name: str) -> str:
        return self.dns[name]

    def proxy(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    def environ(self, name: str | None) -> dict[str, str]:
        """What the front end hands to the application for this client."""
        if name is None:
            return {"SSL_CLIENT_VERIFY": "NONE"}
        pem = self.proxy(name).read_text()
        found = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", pem, re.S)
        chain = {f"SSL_CLIENT_CERT_CHAIN_{n}": one for n, one in enumerate(found[1:])}
        return {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": found[0]} | chain


@dataclass
class Grid:
    """A server in this process: requests go to its application, background work runs when a test says so."""

    root: Path
    pki: Pki
    clock: Clock
    server: PandaServer
    clients: dict[str | None, FlaskClient] = field(default_factory=dict)

    def client(self, who: str | None) -> FlaskClient:
        if who not in self.clients:
            client = self.server.application.test_client()
            client.environ_base.update(self.pki.environ(who))
            self.clients[who] = client
        return self.clients[who]

    def call(self, who: str | None, method: str, **told: Any) -> Any:
        """Make a legacy call with JSON; give the answer's JSON, which must be good."""
        answer = self.client(who).post(f"/server/panda/{method}", json=told)
        assert answer.status_code == 200, answer.text
        return answer.json

    def submit(self, *jobs: dict[str, Any], who: str = "alice", **told: Any) -> list[int]:
        return [entry[0] for entry in self.call(who, "submitJobs", jobs=list(jobs), **told)]

    @property
    def buffer(self) -> TaskBuffer:
        return self.server.rooms.buffer

    def restart(self) -> None:
        """Let another server process take over the database, as after a crash of this one; no time passes."""
        self.close()
        self.clients.clear()
        self.server = create_app(self.server.installation, self.clock, callback=self.called_back)

    def called_back(self, dataset: str, endpoint: str) -> None:
        self.call("ddm", "datasetCompleted", dataset=dataset, site=endpoint)

    def watch(self, seconds: float = 0) -> None:
        """Let time pass, then do the duties that are due and the work that comes of them."""
        self.clock.forward(seconds)
        self.server.duties.run_due()
        self.work()

    def history(self, job_id: int) -> list[str]:
        """All states a job has been in, oldest first."""
        return [row.to_state.value for row in self.buffer.read(lambda c: jobs.history_of(c, job_id))]

    def work(self) -> int:
        """Do all background work that is due, follow-ups included."""
        return self.server.pool.run_all()

    def state(self, job_id: int) -> str:
        return str(self.describe(job_id)["jobStatus"])

    def describe(self, job_id: int) -> dict[str, Any]:
        (found,) = self.call(None, "getJobStatus", job_ids=[job_id])
        return dict(found)

    def get_job(self, queue: str = "BNL", **told: Any) -> dict[str, Any]:
        return dict(self.call("pilot", "getJob", siteName=queue, node="wn1", **told))

    def update(self, job: dict[str, Any], state: str, **told: Any) -> dict[str, Any]:
        known = {"jobId": job["PandaID"], "attemptNr": job["attemptNr"], "jobToken": job.get("jobToken")}
        return dict(self.call("pilot", "updateJob", **(known | {"state": state} | told)))

    def store(
        self, endpoint: str, scope: str, lfn: str, content: bytes = b"some bytes", *, suffix: str = ""
    ) -> dict[str, Any]:
        """Put a file at an endpoint, as a pilot does; give what the pilot would report."""
        path = self.place(endpoint, scope, lfn, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        facts = {"guid": str(uuid.uuid4()), "fsize": len(content), "adler32": f"{zlib.adler32(content):08x}"}
        return facts | {"surl": f"file://{path}", "endpoint": endpoint} | ({"staged": True} if suffix else {})

    def place(self, endpoint: str, scope: str, lfn: str, suffix: str = "") -> Path:
        """Where a file is at an endpoint, or waits beside its place."""
        path = storage.file_path(self.server.installation.topology.endpoints[endpoint], scope, lfn)
        return path.with_name(staged_name(lfn, suffix)) if suffix else path

    def register(self, dataset: str, endpoint: str, *lfns: str) -> None:
        """Put files at an endpoint and into the catalogue."""
        scope = dataset.split(".")[0]
        for lfn in lfns:
            facts = self.store(endpoint, scope, lfn, f"content of {lfn}".encode())
            replica = Replica(
                scope=scope, lfn=lfn, endpoint=endpoint,
                guid=facts["guid"], size_bytes=facts["fsize"], adler32=facts["adler32"],
            )  # fmt: skip
            self.server.rooms.data.ddm.register({dataset: [replica]})

    def store_all(self, job: dict[str, Any], content: str = "made {lfn}") -> dict[str, dict[str, Any]]:
        """Store the outputs and the log of a job where its pilot should; give what it would report."""
        scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
        names = zip(scopes, job["outFiles"].split(","), strict=True)
        endpoint, suffix = job["ddmEndPointOut"].split(",")[0], job.get("outSuffix", "")
        return {
            lfn: self.store(endpoint, scope, lfn, content.format(lfn=lfn).encode(), suffix=suffix)
            for scope, lfn in names
        }

    def run_job(self, job: dict[str, Any], *, outcome: str = "finished", **told: Any) -> dict[str, Any]:
        """Be a good pilot: run a job that was got, store its outputs and log, report."""
        if self.state(job["PandaID"]) == "sent":
            self.update(job, "starting")
        self.update(job, "running")
        stored = self.store_all(job)
        if outcome != "finished":
            stored = {job["logFile"]: stored[job["logFile"]]}
        return self.update(job, outcome, xml=json.dumps(stored), pilotTiming="1|2|3|4|5", **told)

    def close(self) -> None:
        self.server.rooms.buffer.database.close()


def make_grid(root: Path, pki: Pki, database_url: str, **told: Any) -> Grid:
    """Make a server over an empty database, or over one that has the tables already."""
    installation = read_installation(write_config(root, pki, database_url, **told))
    database = Database(database_url)
    if migrate.current_revision(database) is None:
        migrate.upgrade(database)
    database.close()
    clock, grids = Clock(), list[Grid]()
    server = create_app(installation, clock, callback=lambda dataset, endpoint: grids[0].called_back(dataset, endpoint))
    grids.append(Grid(root, pki, clock, server))
    return grids[0]


def production_job(number: int = 1, **more: Any) -> dict[str, Any]:
    """A production job with one output and a log."""
    dataset = "mc.test.evnt"
    return {
        "transformation": "https://localhost/cache/make.py",
        "prodSourceLabel": "managed",
        "jobName": f"make-{number}",
        "destinationDBlock": dataset,
        "Files": [{"type": "output", "lfn": f"evnt.$PANDAID._{number:05d}.root", "dataset": dataset}],
    } | more


def analysis_job(*inputs: str, dataset: str = "mc.test.evnt", **more: Any) -> dict[str, Any]:
    """An analysis job that reads files of a dataset."""
    return {
        "transformation": "https://localhost/cache/read.py",
        "prodSourceLabel": "user",
        "prodDBlock": dataset,
        "destinationDBlock": "user.alice.hist",
        "Files": [
            *({"type": "input", "lfn": lfn, "dataset": dataset} for lfn in inputs),
            {"type": "output", "lfn": "hist.$PANDAID.json", "dataset": "user.alice.hist"},
        ],
    } | more


# --- below the web: jobs straight in the database


def prepare(url: str) -> None:
    """Make all tables in an empty database."""
    database = Database(url)
    migrate.upgrade(database)
    database.close()


def empty(connection: Connection) -> None:
    """Remove all rows."""
    if connection.dialect.name == "mysql":
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
    for table in reversed(schema.metadata.sorted_tables):
        connection.execute(table.delete())


def accept(buffer: TaskBuffer, *new: NewJob, first_id: int = 1, owner: str = "/CN=alice", priority: int = 0) -> None:
    """Write jobs as a submission does, numbered from `first_id`."""
    rows = [jobs.Accepted(first_id + n, job, owner, "alice", priority) for n, job in enumerate(new)]

    def write(connection: Connection) -> None:
        jobs.insert(connection, rows, buffer.now())
        files.insert(connection, [(row.job_id, file) for row in rows for file in row.job.files])

    buffer.run(write)


def new_job(*lfns: NewFile, **more: Any) -> NewJob:
    return NewJob(**({"transformation": "run.py", "files": lfns} | more))


def move(buffer: TaskBuffer, job_id: int, *path: JobState, **columns: Any) -> Job:
    """Lead a job through states, in one transaction."""

    def go(connection: Connection) -> None:
        for state in path:
            locked = list(jobs.load(connection, [job_id], lock=True).values())
            jobs.change_state(connection, locked, state, now=buffer.now(), reason="moved by a test", **columns)

    buffer.run(go)
    return load_job(buffer, job_id)


def load_job(buffer: TaskBuffer, job_id: int) -> Job:
    return buffer.read(lambda c: jobs.load(c, [job_id]))[job_id]


def ready_ids(buffer: TaskBuffer) -> list[int]:
    """Jobs in the table of those that pilots may take, in its order."""
    table = schema.ready
    statement = sa.select(table.c.job_id).order_by(table.c.rank, table.c.job_id)
    return buffer.read(lambda c: list(c.execute(statement).scalars()))


# --- below the database

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(
    job_id=1, state=JobState.RUNNING, owner="/CN=alice", owner_name="alice", name="", label="user", processing_type="",
    transformation="run.py", definition_id=1, jobset_id=1, task_id=0, parent_id=0, vo="", working_group="",
    assigned_priority=0, priority=0, attempt=1, failed_attempts=0, max_attempt=0, site="BNL", pinned=False, cloud="",
    release="", platform="", input_dataset="", dispatch_dataset=None, output_dataset="", destination="", cores=1,
    memory_mb=0, disk_mb=0, cpu_time_s=0, wall_time_s=0, command=None, created_at=EPOCH, state_since=EPOCH,
    modified_at=EPOCH, started_at=None, ended_at=None,
)  # fmt: skip


def queue(name: str, **more: object) -> Queue:
    told = {"site": name, "cloud": "US", "tier": 2, "status": QueueStatus.ONLINE, "endpoint": f"{name}_DISK"}
    return Queue(name=name, **(told | more))  # type: ignore[arg-type]
