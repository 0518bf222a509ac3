"""A small grid with a day of history, made through the TaskBuffer, and what the monitor's reading side says of it."""

from __future__ import annotations

import io
import random
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pandamonitor.logfiles import place
from pandaserver.errors import ConfigError
from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.choice import Advice, Candidate, Change, Choice, Rejected
from pandaserver.model.codes import ErrorFamily, JobError
from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType
from pandaserver.model.file import FileStatus, FileType, NewFile, Replica
from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Topology
from pandaserver.model.job import NewJob
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import (
    activity,
    attempts,
    catalogue,
    datasets,
    duties,
    files,
    jobs,
    reasons,
    schema,
    topology,
    transfers,
    users,
    work,
)  # fmt: skip
from pandaserver.taskbuffer import monitoring as reading
from pandaserver.taskbuffer import monitoring_activity as happening
from pandaserver.taskbuffer import monitoring_data as stored
from pandaserver.taskbuffer.database import Database

NOW = datetime(2026, 11, 22, 12, 7, tzinfo=UTC)
HOSTILE = "user.mallory.<script>alert(1)</script>&x='\"=1+1"
ALICE = "/DC=org/DC=example/CN=Alice Adams"
S = JobState


@dataclass
class World:
    """The grid under construction, with a clock that the maker turns."""

    database: Database
    root: Path
    now: datetime
    end: datetime
    next_id: int = 1001
    named: dict[str, int] = field(default_factory=dict)

    def run(self, work_to_do: Any) -> Any:
        return self.database.run(work_to_do)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def submit(self, *own: NewFile, owner: str = "Alice Adams", site: str | None = None, **told: Any) -> int:
        job_id, self.next_id = self.next_id, self.next_id + 1
        dn = f"/DC=org/DC=example/CN={owner}"
        what: dict[str, Any] = {"name": f"fit.{job_id}", "transformation": "fit.py", "parameters": "--seed 7"} | told
        new = NewJob(site=None, files=own, **what)
        accepted = jobs.Accepted(job_id, new, dn, owner, 1000)

        def work_to_do(c: Any) -> None:
            users.note_submission(c, dn, owner, self.now)
            jobs.insert(c, [accepted], self.now)
            files.insert(c, [(job_id, f) for f in own])

        self.run(work_to_do)
        return job_id

    def move(self, job_id: int, *states: JobState, each_s: float = 60, reason: str = "as it goes", **told: Any) -> None:
        for state in states:
            self.pass_time(each_s)
            self.run(
                lambda c, to=state: jobs.change_state(
                    c, list(jobs.load(c, [job_id], lock=True).values()), to, now=self.now, reason=reason, **told
                )
            )

    def activate(self, job_id: int, queue: str) -> None:
        self.move(job_id, S.ASSIGNED, site=queue, reason=f"brokered to {queue}")
        self.move(job_id, S.ACTIVATED, reason="all inputs are there")

    def claim(self, queue: str, node: str = "wn001.example.org") -> int:
        self.pass_time(90)
        request = ClaimRequest(queue=queue, node=node, pilot="/CN=pilot", pilot_id="p-77", scheduler_id="fork-1")
        waiting = sa.select(schema.ready.c.job_id, schema.ready.c.lane_id).join(schema.lanes)
        first = waiting.where(schema.lanes.c.queue == queue).order_by(schema.ready.c.rank, schema.ready.c.job_id)
        job_id, lane_id = self.run(lambda c: c.execute(first.limit(1)).one())
        taken = attempts.Taken(request, job_id, lane_id)
        self.run(lambda c: attempts.start(c, [taken], now=self.now, lease_s=7200))
        self.run(lambda c: activity.note(c, queue, self.now, requests=3, jobs=1))
        return int(job_id)

    def end_attempt(self, job_id: int, outcome: str, *errors: JobError, **told: Any) -> None:
        def work_to_do(c: Any) -> None:
            (job,) = jobs.load(c, [job_id], lock=True).values()
            attempts.end(c, [attempts.Word(job, told | {"outcome": outcome})], now=self.now)
            jobs.add_errors(c, job, errors, self.now)

        self.run(work_to_do)

    def store(self, dataset: str, endpoint: str, *lfns: str, data: bytes = b"x" * 1_234_567) -> None:
        where = Endpoint(name=endpoint, site="X", url=f"file://{self.root}/{endpoint}")
        copies = []
        for lfn in lfns:
            path = place(where, "user.alice", lfn)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            adler = f"{zlib.adler32(data):08x}"
            guid = f"{zlib.adler32(lfn.encode()):08x}-0000-4000-8000-000000000000"
            copies.append(Replica(
                scope="user.alice", lfn=lfn, endpoint=endpoint, guid=guid, size_bytes=len(data), adler32=adler,
            ))  # fmt: skip

        def work_to_do(c: Any) -> None:
            catalogue.add_datasets(c, [dataset], self.now)
            catalogue.add_replicas(c, copies, self.now)
            catalogue.add_contents(c, {dataset: [(r.scope, r.lfn) for r in copies]})

        self.run(work_to_do)

    def copy(self, dataset: str, destination: str, *lfns: str, state: str = "done") -> None:
        row = {"dataset": dataset, "scope": "user.alice", "destination": destination, "state": "queued"}
        rows = [row | {"lfn": lfn, "size_bytes": 1_234_567, "created_at": self.now} for lfn in lfns]
        self.run(lambda c: c.execute(sa.insert(schema.ddm_transfers), rows))
        if state == "queued":
            return
        told: dict[str, Any] = {"ended_at": self.now + timedelta(seconds=4), "source": "BNL_DISK", "seconds": 3.5}
        if state == "failed":
            told = {"ended_at": self.now, "message": "no good copy: BNL_DISK: cannot read"}
        for transfer in self.run(lambda c: transfers.queued(c, dataset, destination)):
            self.run(lambda c, t=transfer: transfers.save(c, [replace(t, state=state, **told)]))


def grid(root: Path) -> Topology:
    """Four queues: a good one, one without pilots, one for tests and one that is off."""
    told = (
        ("BNL", "US", 1, "online"),
        ("UTA", "US", 2, "online"),
        ("LYON", "FR", 1, "test"),
        ("OLD", "FR", 3, "offline"),
    )
    queues = [
        Queue(
            name=name, site=name, cloud=cloud, tier=tier, status=QueueStatus(status), endpoint=f"{name}_DISK",
            memory_mb=4000, cores=8, max_wall_time_s=172800, releases=("13.0.40", "14.1.0"), heartbeat_s=1800,
        )
        for name, cloud, tier, status in told
    ]  # fmt: skip
    endpoints = [Endpoint(name=q.endpoint, site=q.site, url=f"file://{root}/{q.endpoint}") for q in queues]
    return Topology(queues={q.name: q for q in queues}, endpoints={e.name: e for e in endpoints})


def tarball(**members: bytes) -> bytes:
    """Pack members as a pilot does."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"tarball_PandaJob/{name.replace('_', '.', 1)}")
            info.size, info.mtime = len(data), int(NOW.timestamp())
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def output(lfn: str, kind: FileType = FileType.OUTPUT, dataset: str = "user.alice.fit") -> NewFile:
    return NewFile(lfn=lfn, type=kind, dataset=dataset, scope="user.alice", destination="BNL_DISK")


def source(lfn: str, dataset: str = "user.alice.events") -> NewFile:
    return NewFile(lfn=lfn, type=FileType.INPUT, dataset=dataset, scope="user.alice")


FAILURES = (
    (JobError(ErrorFamily.PILOT, 1137, "copy of out.{n}.root to file:///srv/UTA_DISK/x/{n} failed: timed out"), "UTA"),
    (JobError(ErrorFamily.PILOT, 1305, "payload ended with exit code {n}"), "BNL"),
    (JobError(ErrorFamily.DISPATCHER, 100, "lost heartbeat: last word at 0{n}:00:00"), "UTA"),
    (JobError(ErrorFamily.PILOT, 1150, "no file touched for {n}00 s in /srv/scratch/PanDA_Pilot-{n}"), "LYON"),
)


def populate(database: Database, root: Path, end: datetime = NOW, *, many: int = 24) -> World:
    """Let a day of life pass; `end` is now."""
    world = World(database, root, end - timedelta(hours=23), end)
    world.run(lambda c: topology.save(c, grid(root)))
    chance = random.Random(7)
    the_past(world, chance, many)
    the_named(world)
    the_present(world, chance)
    behind_the_scenes(world)
    return world


def the_past(world: World, chance: random.Random, many: int) -> None:
    start = world.now
    for n in range(many):
        world.now = start + timedelta(hours=21.5) * n / many
        failure, queue = FAILURES[n % 4] if n % 3 == 0 else (None, ("BNL", "BNL", "UTA", "LYON")[n % 4])
        job_id = world.submit(owner=("Alice Adams", "Bob Baker", "Carol Cern")[n % 3], label=("user", "managed")[n % 2])
        world.activate(job_id, queue)
        world.claim(queue, node=f"wn{n % 5:03}.{queue.lower()}.example.org")
        world.move(job_id, S.STARTING, S.RUNNING, started_at=world.now)
        world.pass_time(chance.randrange(300, 1800))
        told = {"cpu_time_s": 812.5, "max_rss_kb": 512_000, "timing": "2|31|1400|12|9", "exit_code": "0"}
        if failure is None:
            world.end_attempt(job_id, "finished", **told)
            world.move(job_id, S.HOLDING, S.TRANSFERRING, S.FINISHED)
        else:
            said = replace(failure, diagnostic=failure.diagnostic.format(n=n + 3))
            world.end_attempt(job_id, "failed", said, **told)
            world.move(job_id, S.HOLDING, S.FAILED, reason="the pilot reported failure")


def the_named(world: World) -> None:
    """Make the jobs that tests speak of by name."""
    world.now = world.end - timedelta(hours=1)
    made = world.submit(
        output("events.root", dataset="user.alice.events"), name="generate", definition_id=7, task_id=42
    )
    finished = world.submit(
        source("events.root"), output("hist.root"), output("job.log.tgz", FileType.LOG), name="fit", definition_id=7,
        task_id=42, input_dataset="user.alice.events", output_dataset="user.alice.fit",
    )  # fmt: skip
    world.store("user.alice.events", "BNL_DISK", "events.root")
    log = tarball(
        payload_stdout=b"seed 7\nmass 91.19 GeV\n", pilotlog_txt=b"<b>stage-in</b> ok\n", core_bin=b"\0\1" * 99
    )
    world.store("user.alice.fit", "BNL_DISK", "hist.root")
    world.store("user.alice.fit", "BNL_DISK", "job.log.tgz", data=log)
    for job_id in (made, finished):
        say_why(world, job_id)
        world.activate(job_id, "BNL")
        world.claim("BNL")
        world.move(job_id, S.STARTING, S.RUNNING, started_at=world.now, each_s=20)
        world.pass_time(300)
        world.end_attempt(
            job_id, "finished", cpu_time_s=281.0, max_rss_kb=812_400, timing="1|12|260|8|2", exit_code="0"
        )
        world.move(job_id, S.HOLDING, S.FINISHED, each_s=15, reason="all outputs are where they belong")
    world.run(
        lambda c: files.set_status(c, [f.file_id for f in files.of_jobs(c, [finished])[finished]], FileStatus.READY)
    )
    metadata = '{"events": 10000, "chi2": 1.07}'
    world.run(lambda c: jobs.save_details(c, {finished: {"metadata": metadata, "stdout_tail": "mass 91.19 GeV\n"}}))
    failed = world.submit(output(f"{HOSTILE[:40]}.root", dataset=HOSTILE), name=f"evil {HOSTILE}", owner="Mallory <b>")
    world.activate(failed, "UTA")
    world.claim("UTA", node="<i>wn</i>")
    world.move(failed, S.STARTING, S.RUNNING, started_at=world.now)
    world.end_attempt(failed, "lost", JobError(ErrorFamily.DISPATCHER, 100, "no word for 2 h"))
    world.move(failed, S.ACTIVATED, reason="the pilot was lost")
    world.claim("UTA")
    world.move(failed, S.STARTING, S.RUNNING, started_at=world.now)
    world.pass_time(200)
    said = (
        JobError(ErrorFamily.PILOT, 1305, f"payload said {HOSTILE}"),
        JobError(ErrorFamily.PAYLOAD, 65, "SystemExit: 65"),
    )  # fmt: skip
    world.end_attempt(failed, "failed", *said, exit_code="65")
    world.move(failed, S.HOLDING, S.FAILED, reason="the pilot reported failure")
    world.run(
        lambda c: jobs.save_details(c, {failed: {"log_extract": "Traceback\x1b[31m red\x1b[0m <script>x</script>"}})
    )
    world.named |= {"maker": made, "finished": finished, "failed": failed}
    kinds = (
        (HOSTILE, DatasetType.OUTPUT),
        ("user.alice.fit", DatasetType.OUTPUT),
        ("user.alice.fit_sub01", DatasetType.SUB),
    )
    for name, kind in kinds:
        parent = "user.alice.fit" if kind is DatasetType.SUB else None
        new = Dataset(
            name=name, type=kind, status=DatasetStatus.RUNNING, vo="test", parent=parent, endpoint="BNL_DISK",
            created_at=world.now, modified_at=world.now,
        )  # fmt: skip
        world.run(lambda c, one=new: datasets.add(c, [one]))


def say_why(world: World, job_id: int) -> None:
    candidates = (
        Candidate("BNL", 0.667, "3 queued, 5 running, 1 input files there (1 MB)"),
        Candidate("UTA", 3.333, "9 queued, 2 running, 0 input files there"),
    )
    rejected = (
        Rejected(("LYON",), "status", "the queue is test", "user", "test"),
        Rejected(("OLD",), "memory", "8000 MB of memory asked, 4000 there", 8000, 4000),
    )
    choice = Choice("BNL", candidates, more=2, rejected=rejected)
    world.run(lambda c: reasons.add(c, [reasons.NewRound(job_id, world.now, choice)]))


def say_why_nowhere(world: World, job_id: int) -> None:
    rejected = (Rejected(("BNL", "UTA"), "memory", "8000 MB of memory asked, 4000 there", 8000, 4000),)
    change = Change("memory_mb", 4000, "ask for 4000 MB of memory instead of 8000")
    advice = Advice(f"{change.text}; then BNL can take the job", "BNL", (change,))
    choice = Choice(None, rejected=rejected, advice=advice)
    world.run(lambda c: reasons.add(c, [reasons.NewRound(job_id, world.now, choice)]))


def the_present(world: World, chance: random.Random) -> None:
    end = world.end
    for n in range(5):
        world.now = end - timedelta(minutes=48 - 8 * n)
        running = world.submit(source("events.root"), name="scan", owner="Bob Baker", input_dataset="user.alice.events")
        say_why(world, running)
        world.activate(running, "BNL")
        world.claim("BNL", node=f"wn{n:03}.bnl.example.org")
        world.move(running, S.STARTING, S.RUNNING, started_at=world.now, each_s=15)
        world.run(lambda c, r=running: jobs.save_details(c, {r: {"stdout_tail": "event 100\nevent 200\n"}}))
        world.run(lambda c: activity.note(c, "BNL", end - timedelta(seconds=40), updates=5))
        world.named["running"] = running
    world.now = end - timedelta(hours=4)
    waiting = world.submit(source("later.root", "user.carol.later"), name="too early", owner="Carol Cern")
    world.move(waiting, S.WAITING, reason="inputs do not exist yet")
    number = world.run(lambda c: files.of_jobs(c, [waiting])[waiting][0].file_id)
    world.run(lambda c: files.set_status(c, [number], FileStatus.MISSING))
    for n in range(7):
        world.now = end - timedelta(minutes=90 - n)
        world.activate(world.submit(name=f"queued {n}", owner="Carol Cern"), "UTA" if n else "BNL")
    homeless = world.submit(name="homeless")
    say_why_nowhere(world, homeless)
    world.now = end - timedelta(minutes=3)
    moving = world.submit(output("late.root"), name="moving")
    world.activate(moving, "LYON")
    world.claim("LYON")
    world.move(moving, S.HOLDING, S.TRANSFERRING, each_s=5)
    killed = world.submit(name="killed")
    world.move(killed, S.CANCELLED, reason="killed by /CN=Alice", each_s=5)
    world.named |= {"waiting": waiting, "homeless": homeless, "moving": moving, "killed": killed}


def behind_the_scenes(world: World) -> None:
    world.now = world.end - timedelta(hours=2)
    world.copy("user.alice.events", "UTA_DISK", "events.root")
    world.copy("user.alice.events", "LYON_DISK", "events.root", state="failed")
    world.copy("user.alice.fit", "LYON_DISK", "hist.root", state="queued")
    new = [
        work.NewWork(kind="close", key="user.alice.fit_sub01", payload={}),
        work.NewWork(kind="add", key="5", payload={}),
    ]
    world.run(lambda c: work.add(c, new, now=world.now))
    (item, *_) = world.run(lambda c: work.claim(c, "thread", 1, now=world.now, lease_s=60))
    world.run(lambda c: work.postpone(c, item, now=world.now, delay_s=600, error="DDMError: <img src=x>"))
    world.run(lambda c: duties.take(c, "watch", "host:1", now=world.now, lease_s=60))
    world.run(lambda c: duties.give_back(c, "watch", "host:1", now=world.now, period_s=60, result="3 done"))
    world.now = world.end


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("grid")
    database = Database(f"sqlite:///{root}/panda.db")
    schema.metadata.create_all(database.writer)
    yield populate(database, root)
    database.close()


@pytest.fixture(scope="module")
def reader(world: World) -> Iterator[reading.ReadOnlyDatabase]:
    opened = reading.ReadOnlyDatabase(f"sqlite:///{world.root}/panda.db")
    yield opened
    opened.close()


DAY, LATELY = NOW - timedelta(hours=24), NOW - timedelta(hours=2)


def every_job(world: World) -> list[Any]:
    return list(world.database.read(lambda c: jobs.load(c, range(1001, world.next_id))).values())


# --- reading only ----------------------------------------------------------------------------------------------------


def test_nothing_can_be_written(world: World, reader: reading.ReadOnlyDatabase) -> None:
    with pytest.raises(reading.Unreadable, match="readonly"):
        reader.read(lambda c: jobs.touch(c, [world.named["running"]], NOW))


def test_no_database_is_made_where_there_is_none(tmp_path: Path) -> None:
    missing = reading.ReadOnlyDatabase(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(reading.Unreadable, match="unable to open"):
        missing.read(happening.living)
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="database URL"):
        reading.ReadOnlyDatabase("not a url")


def test_passwords_are_not_shown() -> None:
    assert "secret" not in reading.ReadOnlyDatabase("mysql+pymysql://me:secret@db/panda").shown_url


@pytest.mark.mysql
def test_reading_from_mariadb(mariadb: Any, tmp_path: Path) -> None:
    """The same questions get the same answers there, and writing is refused by the database itself."""
    url = mariadb.new_database()
    try:
        database = Database(url)
        schema.metadata.create_all(database.writer)
        world = populate(database, tmp_path, many=6)
        reader = reading.ReadOnlyDatabase(url)
        counted = reader.read(lambda c: reading.count_jobs(c, reading.JobFilter(since=DAY)))
        ended = reader.read(lambda c: happening.ended(c, DAY))
        assert counted.total == len(every_job(world))
        assert sum(e.number for e in ended) == sum(job.state in FINAL for job in every_job(world))
        for read in (happening.living, happening.missing_inputs, happening.duty_states, happening.failing_work):
            assert reader.read(read)
        assert reader.read(lambda c: happening.errors(c, happening.ErrorFilter(since=DAY, site="UTA"))).counts
        assert reader.read(lambda c: happening.nodes(c, "BNL", DAY))
        assert reader.read(lambda c: happening.work_kinds(c, NOW))
        assert reader.read(lambda c: stored.list_datasets(c, stored.DatasetFilter(name="alice")))
        assert reader.read(lambda c: stored.count_transfers(c, stored.TransferFilter(since=DAY)))
        assert reader.read(lambda c: happening.silent(c, NOW)) != []
        with pytest.raises(reading.Unreadable, match="READ ONLY"):
            reader.read(lambda c: jobs.touch(c, [1001], NOW))
        reader.close()
        database.close()
    finally:
        mariadb.drop_database(url)


# --- jobs ------------------------------------------------------------------------------------------------------------


def ids(found: Sequence[Any]) -> list[int]:
    return [job.job_id for job in found]


@pytest.mark.parametrize(
    ("chosen", "fits"),
    [
        (reading.JobFilter(), lambda j: True),
        (reading.JobFilter(states=(S.FAILED, S.RUNNING)), lambda j: j.state in (S.FAILED, S.RUNNING)),
        (reading.JobFilter(sites=("UTA",)), lambda j: j.site == "UTA"),
        (reading.JobFilter(sites=("", "BNL")), lambda j: j.site in (None, "BNL")),
        (reading.JobFilter(owners=("Bob Baker",)), lambda j: j.owner_name == "Bob Baker"),
        (reading.JobFilter(owners=(ALICE,)), lambda j: j.owner == ALICE),
        (reading.JobFilter(labels=("managed",)), lambda j: j.label == "managed"),
        (reading.JobFilter(task_id=42), lambda j: j.task_id == 42),
        (reading.JobFilter(definition_id=7), lambda j: j.definition_id == 7),
        (reading.JobFilter(name="<script>"), lambda j: "<script>" in j.name),
        (reading.JobFilter(name="100%"), lambda j: "100%" in j.name),
        (reading.JobFilter(dataset=HOSTILE), lambda j: j.name.startswith("evil")),
        (reading.JobFilter(since=LATELY), lambda j: j.state not in FINAL or j.state_since > LATELY),
        (
            reading.JobFilter(states=(S.FINISHED, S.RUNNING), since=LATELY),
            lambda j: j.state is S.RUNNING or (j.state is S.FINISHED and j.state_since > LATELY),
        ),
    ],
)  # fmt: skip
def test_filters_give_exactly_the_jobs_that_fit(
    world: World, reader: reading.ReadOnlyDatabase, chosen: reading.JobFilter, fits: Any
) -> None:
    expected = sorted(job.job_id for job in every_job(world) if fits(job))
    found = reader.read(lambda c: reading.list_jobs(c, chosen, sort="id", limit=1000))
    counted = reader.read(lambda c: reading.count_jobs(c, chosen))
    assert (ids(found), counted.total, counted.partial) == (expected, len(expected), False)


def test_jobs_by_error(world: World, reader: reading.ReadOnlyDatabase) -> None:
    chosen = reading.JobFilter(error=(ErrorFamily.PAYLOAD, 65), since=DAY)
    assert ids(reader.read(lambda c: reading.list_jobs(c, chosen))) == [world.named["failed"]]


def test_a_count_that_is_too_large_is_partial(reader: reading.ReadOnlyDatabase) -> None:
    counted = reader.read(lambda c: reading.count_jobs(c, reading.JobFilter(), limit=10))
    assert (counted.partial, counted.total) == (True, 11)


@pytest.mark.parametrize("name", sorted(reading.SORTS))
@pytest.mark.parametrize("sign", ["", "-"])
def test_every_order_turns_the_screens_without_loss(reader: reading.ReadOnlyDatabase, name: str, sign: str) -> None:
    def part(offset: int, limit: int) -> list[int]:
        chosen = reading.JobFilter()
        return ids(reader.read(lambda c: reading.list_jobs(c, chosen, sort=sign + name, limit=limit, offset=offset)))

    whole = part(0, 1000)
    assert part(0, 7) + part(7, 7) == whole[:14]
    assert len(set(whole)) == len(whole)


def test_relatives(world: World, reader: reading.ReadOnlyDatabase) -> None:
    file = [("user.alice", "events.root")]
    assert ids(reader.read(lambda c: reading.makers(c, file))) == [world.named["maker"]]
    assert world.named["finished"] in ids(reader.read(lambda c: reading.users(c, file)))
    assert reader.read(lambda c: reading.makers(c, [("other", "events.root")])) == []


# --- what happens ----------------------------------------------------------------------------------------------------


def test_living_and_ended_are_all(world: World, reader: reading.ReadOnlyDatabase) -> None:
    living = reader.read(happening.living)
    ended = reader.read(lambda c: happening.ended(c, DAY))
    assert sum(n for _, _, n in happening.tallies(living, ended)) == len(every_job(world))
    assert {one.at.minute % 10 for one in ended} == {0}
    assert min(job.state_since for job in every_job(world) if job.state is S.WAITING) in [one.oldest for one in living]


def test_ended_of_one_site_since_a_moment(world: World, reader: reading.ReadOnlyDatabase) -> None:
    since = NOW - timedelta(hours=3)
    found = reader.read(lambda c: happening.ended(c, since, site="UTA"))
    expected = [j for j in every_job(world) if j.state in FINAL and j.site == "UTA" and j.state_since >= since]
    assert (sum(e.number for e in found), {e.site for e in found}) == (len(expected), {"UTA"})


def test_errors_know_the_site_of_their_attempt(world: World, reader: reading.ReadOnlyDatabase) -> None:
    found = reader.read(lambda c: happening.errors(c, happening.ErrorFilter(since=DAY)))
    lost = [e for e in found.counts if e.diagnostic == "no word for 2 h"]
    assert [(e.site, e.number, e.last_job) for e in lost] == [("UTA", 1, world.named["failed"])]
    only = happening.ErrorFilter(since=DAY, family=ErrorFamily.PAYLOAD, code=65, site="UTA")
    assert sum(e.number for e in reader.read(lambda c: happening.errors(c, only)).counts) == 1
    assert reader.read(lambda c: happening.errors(c, happening.ErrorFilter(since=DAY), limit=2)).partial


def test_silent_jobs(reader: reading.ReadOnlyDatabase) -> None:
    assert reader.read(lambda c: happening.silent(c, NOW - timedelta(hours=1))) == []
    (found,) = reader.read(lambda c: happening.silent(c, NOW - timedelta(minutes=10)))
    assert (found.site, found.number) == ("BNL", 5)


def test_missing_inputs(world: World, reader: reading.ReadOnlyDatabase) -> None:
    (found,) = reader.read(happening.missing_inputs)
    assert (found.dataset, found.jobs, found.oldest_job) == ("user.carol.later", 1, world.named["waiting"])


def test_nodes_with_most_failures_come_first(reader: reading.ReadOnlyDatabase) -> None:
    found = reader.read(lambda c: happening.nodes(c, "UTA", DAY))
    assert [n.failed + n.lost for n in found] == sorted((n.failed + n.lost for n in found), reverse=True)
    assert sum(n.lost for n in found) == 1


def test_work_and_duties(reader: reading.ReadOnlyDatabase) -> None:
    kinds = {k.kind: k for k in reader.read(lambda c: happening.work_kinds(c, NOW - timedelta(minutes=10)))}
    assert sum(k.number for k in kinds.values()) == 2
    assert sum(k.retried for k in kinds.values()) == 1
    assert all(k.late == 1 for k in kinds.values())
    assert [t.last_error for t in reader.read(happening.failing_work)] == ["DDMError: <img src=x>"]
    assert [d.last_result for d in reader.read(happening.duty_states)] == ["3 done"]


def test_pilot_hours(reader: reading.ReadOnlyDatabase) -> None:
    found = reader.read(lambda c: happening.pilot_hours(c, "BNL", DAY))
    assert [h.hour for h in found] == sorted(h.hour for h in found)
    assert sum(h.updates for h in found) == 25


# --- data ------------------------------------------------------------------------------------------------------------


def test_datasets_of_server_and_catalogue_are_one_list(reader: reading.ReadOnlyDatabase) -> None:
    found = reader.read(lambda c: stored.list_datasets(c, stored.DatasetFilter(), sort="name"))
    assert [d.name for d in found] == sorted([HOSTILE, "user.alice.events", "user.alice.fit", "user.alice.fit_sub01"])
    assert reader.read(lambda c: stored.count_datasets(c, stored.DatasetFilter())) == (4, False)
    by_name = {d.name: d for d in found}
    assert (by_name["user.alice.events"].type, by_name["user.alice.events"].status) == ("", "open")
    assert by_name["user.alice.fit"].files == 2


def test_one_dataset(reader: reading.ReadOnlyDatabase) -> None:
    assert reader.read(lambda c: stored.find_dataset(c, "no.such")) is None
    fit = reader.read(lambda c: stored.find_dataset(c, "user.alice.fit"))
    assert fit is not None
    assert fit.size_bytes > 1_234_567
    assert [p.name for p in reader.read(lambda c: stored.parts_of(c, "user.alice.fit"))] == ["user.alice.fit_sub01"]
    (events,) = reader.read(lambda c: stored.files_in(c, "user.alice.events"))
    assert events.endpoints == ("BNL_DISK",)
    assert reader.read(lambda c: stored.copies_by_endpoint(c, "user.alice.fit")) == {"BNL_DISK": 2}


def test_transfers(reader: reading.ReadOnlyDatabase) -> None:
    since = NOW - timedelta(hours=1)
    recent = reader.read(lambda c: stored.count_transfers(c, stored.TransferFilter(since=since)))
    assert [t.state for t in recent] == ["queued"], "what is queued is never too old"
    done = reader.read(lambda c: stored.list_transfers(c, stored.TransferFilter(states=("done",), source="BNL_DISK")))
    assert [(t.destination, t.lfn) for t in done] == [("UTA_DISK", "events.root")]
