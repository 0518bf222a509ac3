"""Any mix of users, pilots, crashes and passing time: what must be true at every moment, and at the end."""

from __future__ import annotations

import itertools
import json
import zlib
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

from pandaserver.model.states import FINAL, WITH_PILOT, JobState, allowed
from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.database import Connection, Database

HOUR = 3600
SOME = st.integers(0, 10**6)
WORDS = st.sampled_from(["starting", "running", "holding", "transferring", "finished", "failed"])
SPOIL = st.sampled_from(["", "", "", "without output", "wrong size", "strange file"])


class AnyLife(RuleBasedStateMachine):
    """A server, its users and its pilots."""

    def __init__(self, make: Any, statistics: Counter[str]) -> None:
        super().__init__()
        self.grid: Grid = make()
        self.statistics = statistics
        self.submitted: list[int] = []
        self.held: list[dict[str, Any]] = []  # claims of all pilots, also of those long lost
        self.said: list[tuple[dict[str, Any], str, dict[str, Any]]] = []
        self.ended: dict[int, str] = {}
        self.late = False  # somebody stored files for an attempt that was over

    # --- users

    @initialize()
    def some_data_and_some_jobs(self) -> None:
        self.grid.register("mc.some.data", "BNL_DISK", "data.1")
        self.grid.register("mc.some.data", "UTA_DISK", "data.2")
        self.submit_production(3, None, 0)
        self.submit_production(1, "UTA", 3)
        self.submit_analysis("UTA", 2, False)
        self.claim_at_leisure("UTA", "managed")

    @rule(number=st.integers(1, 3), site=st.sampled_from([None, "BNL", "UTA"]), attempts=st.integers(0, 3))
    def submit_production(self, number: int, site: str | None, attempts: int) -> None:
        more = {"computingSite": site} if site else {}
        jobs = [f.production_job(n, maxAttempt=attempts, **more) for n in range(number)]
        self.submitted += self.grid.submit(*jobs, who="prodman")

    @rule(site=st.sampled_from([None, "BNL", "UTA"]), number=SOME, missing=st.booleans())
    def submit_analysis(self, site: str | None, number: int, missing: bool) -> None:
        """Read data that is there, an output that some job will make, or one that nobody ever makes."""
        made = [f"evnt.{job_id:05d}._00000.root" for job_id in self.submitted]
        inputs = [("data.1", "mc.some.data"), ("data.2", "mc.some.data")][: number % 3]
        inputs += [(made[number % len(made)], "mc.test.evnt")] if made and number % 2 else []
        inputs += [("never.made", "mc.test.evnt")] if missing else []
        job = f.analysis_job(**({"computingSite": site} if site else {}))
        job["Files"] += [{"type": "input", "lfn": lfn, "dataset": dataset} for lfn, dataset in inputs]
        self.submitted += self.grid.submit(job)

    @rule()
    def submit_what_nobody_can_run(self) -> None:
        self.submitted += self.grid.submit(f.analysis_job(minRamCount=10**6))

    @precondition(lambda self: self.submitted)
    @rule(number=SOME)
    def kill(self, number: int) -> None:
        job_id = self.submitted[number % len(self.submitted)]
        self.grid.call("prodman", "killJobs", ids=[job_id])

    # --- pilots

    @precondition(lambda self: self.submitted)
    @rule(queue=st.sampled_from(["BNL", "UTA"]), label=st.sampled_from(["", "", "user", "managed"]))
    def claim_at_leisure(self, queue: str, label: str) -> None:
        self.grid.work()
        self.claim(queue, label)

    @precondition(lambda self: self.submitted)
    @rule(queue=st.sampled_from(["BNL", "UTA"]), label=st.sampled_from(["", "user", "managed"]))
    def claim(self, queue: str, label: str) -> None:
        answer = self.grid.get_job(queue, prodSourceLabel=label)
        if answer["StatusCode"] == 0:
            self.held.append(answer)

    @precondition(lambda self: self.held)
    @rule(number=SOME, word=WORDS)
    def speak(self, number: int, word: str) -> None:
        """Say anything of any claim there ever was; most are stale some time later."""
        self.say(self.held[number % len(self.held)], word, {})

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 3), spoil=SPOIL, outcome=st.sampled_from(["finished", "finished", "failed"]))
    def end(self, number: int, spoil: str, outcome: str) -> None:
        """End a recent claim with outputs and log, good or not; each attempt makes other bytes."""
        job = self.held[-1 - number % min(len(self.held), 4)]
        stored = self.store(job, f"{{lfn}} of attempt {job['attemptNr']}")
        output = next(lfn for lfn in stored if lfn != job["logFile"])
        if spoil == "wrong size":
            stored[output]["fsize"] += 1
        elif spoil == "without output":
            del stored[output]
        elif spoil == "strange file":
            stored["strange"] = stored[output]
        if outcome == "failed":
            stored = {job["logFile"]: stored[job["logFile"]]}
        self.say(job, outcome, {"xml": json.dumps(stored)})

    @precondition(lambda self: self.held)
    @rule(number=SOME)
    def store_without_a_word(self, number: int) -> None:
        """Store the outputs of any claim there ever was, as pilots do that have lost their server."""
        self.store(self.held[number % len(self.held)], "{lfn}, stored by somebody who does not know how late it is")

    def store(self, job: dict[str, Any], content: str) -> dict[str, dict[str, Any]]:
        (row,) = [row for row in self.look()["jobs"] if row.job_id == job["PandaID"]]
        self.late |= row.state not in WITH_PILOT or row.attempt != job["attemptNr"]
        return self.grid.store_all(job, content)

    def say(self, job: dict[str, Any], word: str, more: dict[str, Any]) -> None:
        self.said.append((job, word, more))
        told = {"jobId": job["PandaID"], "attemptNr": job["attemptNr"], "jobToken": job["jobToken"], "state": word}
        answer = self.grid.client("pilot").post("/server/panda/updateJob", json=told | more)
        status = f"{answer.status_code} {answer.json['StatusCode']}"
        assert status in ("200 0", "200 30", "409 30"), answer.text
        self.statistics[f"words answered {status}"] += 1

    @precondition(lambda self: self.said)
    @rule(number=SOME)
    def repeat(self, number: int) -> None:
        """Say again what was said before, now or long ago."""
        job, word, more = self.said[-1 - number % min(len(self.said), 4)]
        self.say(job, word, more)

    @precondition(lambda self: self.held)
    @rule(number=SOME)
    def forge(self, number: int) -> None:
        before = self.look()
        job = self.held[number % len(self.held)]
        assert self.grid.update(job | {"jobToken": "0" * 64}, "finished")["StatusCode"] == 30
        assert self.look() == before

    # --- the server

    @rule(limit=st.sampled_from([1, 1000]))
    def work(self, limit: int) -> None:
        self.grid.server.pool.run_all(limit)

    @rule(seconds=st.sampled_from([1, 90, HOUR, 2 * HOUR + 60, 13 * HOUR]))
    def pass_time(self, seconds: int) -> None:
        self.grid.clock.forward(seconds)
        self.grid.server.duties.run_due()

    @rule(seconds=st.sampled_from([0, 90]))
    def restart(self, seconds: int) -> None:
        self.grid.restart()
        self.grid.clock.forward(seconds)

    # --- what must be true

    def look(self) -> dict[str, list[Any]]:
        """Read all that matters, in one transaction."""

        def read(connection: Connection) -> dict[str, list[Any]]:
            return {table.name: list(connection.execute(rows_of(table))) for table in SEEN}

        return self.grid.buffer.read(read)

    @invariant()
    def everything_is_in_order(self) -> None:
        rows = self.look()
        jobs = {row.job_id: row for row in rows["jobs"]}
        assert sorted(jobs) == sorted(self.submitted), "no job is lost or made up"
        check_history(rows["job_history"], {job_id: row.state for job_id, row in jobs.items()})
        activated = {(row.site, row.job_id) for row in jobs.values() if row.state == JobState.ACTIVATED}
        queue_of = {lane.lane_id: lane.queue for lane in rows["lanes"]}
        assert {(queue_of[row.lane_id], row.job_id) for row in rows["ready"]} == activated
        with_pilot = [(row.job_id, row.attempt) for row in jobs.values() if row.state in WITH_PILOT]
        assert [(row.job_id, row.number) for row in rows["attempts"] if row.ended_at is None] == with_pilot
        states = {row.job_id: row.state for row in jobs.values()}
        assert self.ended.items() <= states.items(), "what has ended stays ended"
        self.ended = {job_id: state for job_id, state in states.items() if state in FINAL}
        lost = {row.lfn for row in rows["files"] if row.status == "failed"}
        datasets = {row.dataset for row in rows["files"] if row.type == "output"}
        assert not lost & {row.lfn for row in rows["ddm_contents"] if row.dataset in datasets}
        self.what_is_registered_is_what_is_there()

    def what_is_registered_is_what_is_there(self) -> None:
        """Nobody's bytes have got into the place of those that count."""
        copies, facts = schema.ddm_replicas, schema.ddm_files
        same = sa.and_(copies.c.scope == facts.c.scope, copies.c.lfn == facts.c.lfn)
        statement = sa.select(copies.c.endpoint, facts).join(facts, same)
        for row in self.grid.buffer.read(lambda c: list(c.execute(statement))):
            content = self.grid.place(row.endpoint, row.scope, row.lfn).read_bytes()
            assert (len(content), f"{zlib.adler32(content):08x}") == (row.size_bytes, row.adler32), row.lfn
            self.statistics["copies compared"] += 1

    def waiting_beside(self) -> set[str]:
        """Names of files that wait beside their place."""
        return {path.name for name in ("BNL_DISK", "UTA_DISK") for path in (self.grid.root / name).rglob("*.a*-*")}

    def teardown(self) -> None:
        """Let good pilots do the rest, and time pass: in the end every job has ended."""
        for _ in range(12):
            self.grid.watch(10)
            if {row.state for row in self.look()["jobs"]} <= FINAL:
                break
            for queue in ("BNL", "UTA"):
                while (job := self.grid.get_job(queue))["StatusCode"] == 0:
                    self.grid.run_job(job)
            self.grid.watch(25 * HOUR)
        self.everything_is_in_order()
        rows = self.look()
        states = {row.job_id: row.state for row in rows["jobs"]}
        live = {job_id: state for job_id, state in states.items() if state not in FINAL}
        self.statistics.update(f"jobs {state}" for state in states.values())
        self.statistics["attempts"] += len(rows["attempts"])
        self.statistics["changes of state"] += len(rows["job_history"])
        self.statistics["lives"] += 1
        self.grid.watch(25 * HOUR)
        self.statistics["lives in which nobody stored too late"] += not self.late
        left = set() if self.late else self.waiting_beside()
        self.grid.close()
        assert (live, left) == ({}, set())


SEEN = (schema.jobs, schema.job_history, schema.lanes, schema.ready, schema.attempts, schema.files, schema.ddm_contents)


def rows_of(table: sa.Table) -> sa.Select[Any]:
    """All rows of a table, those of the archive too, in the order of its key."""
    places = [table, schema.archived[table.name]] if table.name in schema.archived else [table]
    names = [column.name for column in table.c]
    every = sa.union_all(*(sa.select(*(place.c[name] for name in names)) for place in places)).subquery()
    return sa.select(every).order_by(*(every.c[column.name] for column in table.primary_key.columns))


def check_history(history: list[Any], states: dict[int, str]) -> None:
    """Every job went from state to state as the table of transitions allows, and is where it went."""
    last: dict[int, str] = {}
    for row in history:
        assert row.from_state == last.get(row.job_id), f"job {row.job_id} jumped"
        if row.from_state is not None:
            assert allowed(JobState(row.from_state), JobState(row.to_state))
        last[row.job_id] = row.to_state
    assert last == states


@pytest.mark.parametrize("examples", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_any_life(prepared_url: str, pki: Pki, tmp_path: Path, examples: int) -> None:
    numbers, statistics = itertools.count(), Counter[str]()
    examples //= 3 if prepared_url.startswith("mysql") else 1

    def make() -> Grid:
        database = Database(prepared_url)
        database.run(f.empty)
        database.close()
        return f.make_grid(tmp_path / str(next(numbers)), pki, prepared_url)

    told = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(lambda: AnyLife(make, statistics), settings=told)
    print(", ".join(f"{name}: {number}" for name, number in sorted(statistics.items())))
    assert statistics["lives"] >= examples
