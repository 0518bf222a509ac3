"""Any mix of jobs, pilots, kills and archiving: every job is in one place, and what is told of it stays the same."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa
from factories import Grid, Pki
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import archive, monitoring, records, schema
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.database import Connection, Database
from pandaserver.taskbuffer.records import Record

SOME = st.integers(0, 10**6)
WORDS = st.sampled_from(["starting", "running", "finished", "failed"])
QUEUES = ("BNL", "UTA")


class AnyArchive(RuleBasedStateMachine):
    """A server whose jobs may move into the archive at any moment."""

    def __init__(self, make: Any, statistics: Counter[str]) -> None:
        super().__init__()
        self.grid: Grid = make()
        self.statistics = statistics
        self.submitted: list[int] = []
        self.held: list[dict[str, Any]] = []
        self.kept: dict[int, tuple[Any, Record]] = {}  # what was told of jobs when they went into the archive

    # --- users and pilots

    @initialize()
    def some_jobs(self) -> None:
        self.submit(3, "BNL", 1)
        self.submit(2, "UTA", 2)
        for queue, outcome in (("BNL", "finished"), ("BNL", "failed"), ("UTA", "finished")):
            self.claim(queue)
            self.end_well(outcome)
        self.claim("BNL")
        self.archive_what_is_due(0, 1)

    @rule(number=st.integers(1, 3), site=st.sampled_from(QUEUES), attempts=st.integers(0, 3))
    def submit(self, number: int, site: str, attempts: int) -> None:
        jobs = [f.production_job(n, maxAttempt=attempts, computingSite=site) for n in range(number)]
        self.submitted += self.grid.submit(*jobs, who="prodman")
        self.grid.work()

    @rule(number=SOME, several=st.integers(1, 4))
    def kill(self, number: int, several: int) -> None:
        chosen = [self.submitted[(number + n) % len(self.submitted)] for n in range(several)]
        answers = self.grid.call("prodman", "killJobs", ids=chosen)
        for job_id, killed in zip(chosen, answers, strict=True):
            assert not (killed and job_id in self.kept)

    @rule(queue=st.sampled_from(QUEUES))
    def claim(self, queue: str) -> None:
        answer = self.grid.get_job(queue)
        if answer["StatusCode"] == 0:
            assert answer["PandaID"] not in self.kept
            self.held.append(answer)

    @precondition(lambda self: self.held)
    @rule(number=SOME, word=WORDS)
    def speak(self, number: int, word: str) -> None:
        """Say anything of any claim there ever was, also of those in the archive."""
        job = self.held[number % len(self.held)]
        told = {"jobId": job["PandaID"], "attemptNr": job["attemptNr"], "jobToken": job["jobToken"], "state": word}
        answer = self.grid.client("pilot").post("/server/panda/updateJob", json=told)
        if job["PandaID"] in self.kept:
            assert (answer.status_code, answer.json["command"]) == (200, "tobekilled")
            self.statistics["words about archived jobs"] += 1

    @precondition(lambda self: self.held)
    @rule(outcome=st.sampled_from(["finished", "finished", "failed"]))
    def end_well(self, outcome: str) -> None:
        job = self.held[-1]
        if self.grid.state(job["PandaID"]) in ("sent", "starting", "running"):
            self.grid.update(job, "running")
            stored = {job["logFile"]: self.grid.store("BNL_DISK", job["scopeLog"], job["logFile"], b"log")}
            if outcome == "finished":
                scopes = [*filter(None, job["scopeOut"].split(",")), job["scopeLog"]]
                for scope, lfn in zip(scopes, job["outFiles"].split(","), strict=True):
                    stored[lfn] = self.grid.store("BNL_DISK", scope, lfn, lfn.encode())
            self.grid.update(job, outcome, xml=json.dumps(stored), pilotErrorCode=1305 if outcome == "failed" else 0)
        self.grid.work()

    @rule(seconds=st.sampled_from([1, 90, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.grid.clock.forward(seconds)
        self.grid.work()

    # --- the archive

    @rule(after_s=st.sampled_from([0, 0, 60, 3600]), batch=st.integers(1, 5))
    def archive_what_is_due(self, after_s: float, batch: int) -> None:
        before = self.told()
        moved = Archiver(self.grid.buffer, ArchivePolicy(after_s, batch)).run_once()
        self.moved(before, moved)

    @precondition(lambda self: self.submitted)
    @rule(number=SOME)
    def archive_one(self, number: int) -> None:
        """Move a job that has ended, in whatever order."""
        before = self.told()
        ended = [job_id for job_id, (_, record) in before.items() if record.job.state in FINAL and not record.archived]
        if ended:
            moved = self.grid.buffer.run(lambda c: archive.move(c, [ended[number % len(ended)]]))
            self.moved(before, moved)

    def moved(self, before: dict[int, tuple[Any, Record]], number: int) -> None:
        after = self.told()
        for job_id, (described, record) in after.items():
            assert described == before[job_id][0]
            assert vars(record) == vars(before[job_id][1]) | {"archived": record.archived}
        new = {i: told for i, told in after.items() if told[1].archived and not before[i][1].archived}
        assert len(new) == number
        self.kept |= new
        self.statistics["jobs archived"] += number

    def told(self) -> dict[int, tuple[Any, Record]]:
        """Give what users, and the monitor, are told of every job."""
        described = self.grid.call(None, "getFullJobStatus", ids=self.submitted)
        ids = self.submitted

        def read(connection: Connection) -> list[Record | None]:
            return [records.of_job(connection, job_id) for job_id in ids]

        found = self.grid.buffer.read(read)
        return {i: (d, r) for i, d, r in zip(ids, described, found, strict=True) if r is not None}

    # --- what must be true

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        def read(connection: Connection) -> list[list[int]]:
            tables = (schema.jobs, schema.archived["jobs"])
            return [list(connection.execute(sa.select(t.c.job_id)).scalars()) for t in tables]

        living, kept = self.grid.buffer.read(read)
        assert sorted(living + kept) == sorted(self.submitted), "none is lost, none is there twice"
        assert sorted(kept) == sorted(self.kept)

    @invariant()
    def nothing_is_left_behind(self) -> None:
        def read(connection: Connection) -> list[str]:
            wrong = []
            for name, old in schema.archived.items():
                live = schema.metadata.tables[name]
                for table, others in ((live, schema.archived["jobs"]), (old, schema.jobs)):
                    stray = sa.select(table.c.job_id).where(table.c.job_id.in_(sa.select(others.c.job_id)))
                    wrong += [f"{table.name} {i}" for i in connection.execute(stray).scalars()]
            return wrong

        assert self.grid.buffer.read(read) == []

    @invariant()
    def what_is_kept_stays_as_it_is(self) -> None:
        after = self.told()
        assert {i: told for i, told in after.items() if i in self.kept} == self.kept

    @invariant()
    def the_monitor_counts_them_all(self) -> None:
        counted = self.grid.buffer.read(lambda c: monitoring.count_jobs(c, monitoring.JobFilter()))
        by_state: Counter[JobState] = Counter()
        for group in counted.groups:
            by_state[group.state] += group.number
        assert by_state == Counter(record.job.state for _, record in self.told().values())

    def teardown(self) -> None:
        self.statistics["lives"] += 1
        self.statistics["jobs"] += len(self.submitted)
        self.statistics.update(f"archived {record.job.state}" for _, record in self.kept.values())
        self.grid.close()


@pytest.mark.parametrize("examples", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_any_archive(prepared_url: str, pki: Pki, tmp_path: Path, examples: int) -> None:
    numbers, statistics = itertools.count(), Counter[str]()
    examples //= 3 if prepared_url.startswith("mysql") else 1

    def make() -> Grid:
        database = Database(prepared_url)
        database.run(f.empty)
        database.close()
        return f.make_grid(tmp_path / str(next(numbers)), pki, prepared_url)

    told = settings(max_examples=examples, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(lambda: AnyArchive(make, statistics), settings=told)
    print(", ".join(f"{name}: {number}" for name, number in sorted(statistics.items())))
    assert statistics["lives"] >= examples and statistics["jobs archived"] > 0


def test_the_states_that_end_are_those_that_move() -> None:
    assert {JobState.FINISHED, JobState.FAILED, JobState.CANCELLED, JobState.CLOSED} == FINAL
