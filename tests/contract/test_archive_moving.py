"""Ended jobs move into the archive: those that are due, with all that is recorded, each in exactly one place."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.model.choice import Candidate, Choice
from pandaserver.model.codes import ErrorFamily, JobError
from pandaserver.model.file import FileStatus, FileType, NewFile
from pandaserver.model.states import FINAL, JobState
from pandaserver.taskbuffer import archive, files, jobs, migrate, reasons, records, schema
from pandaserver.taskbuffer.archiving import UNSETTLED_FOR, ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.statements import Prepared

S = JobState
DAY_S = 86400.0
NAMES = sorted(schema.archived)


def end(buffer: TaskBuffer, *job_ids: int, state: JobState = S.CANCELLED) -> None:
    """Write jobs with a file, a reason and an error each, and let them end."""
    file = NewFile(lfn="out.root", type=FileType.OUTPUT, dataset="user.alice.out", scope="user.alice")
    error = JobError(ErrorFamily.TASKBUFFER, 100, "no more wanted")
    for job_id in job_ids:
        f.accept(buffer, f.new_job(file, parameters="--seed 7", attributes={"x": 1}), first_id=job_id)
        said = reasons.NewRound(job_id, buffer.now(), Choice("BNL", (Candidate("BNL", 0.5, "nearest"),)))
        buffer.run(lambda c, one=said: reasons.add(c, [one]))
        before = {"job_id": job_id, "at": buffer.now(), "site": "UTA", "verdict": "rejected", "reason": "off"}
        buffer.run(lambda c, one=before: c.execute(sa.insert(schema.brokerage_reasons).values(one)))
        job = f.load_job(buffer, job_id)
        buffer.run(lambda c, one=job: jobs.add_errors(c, one, [error], buffer.now()))
        f.move(buffer, job_id, state)


def archiver(buffer: TaskBuffer, *, after_s: float = DAY_S, batch: int = 100, keep_months: int = 0) -> Archiver:
    return Archiver(buffer, ArchivePolicy(after_s, batch, keep_months))


def ids_in(buffer: TaskBuffer, table: sa.Table) -> list[int]:
    statement = sa.select(table.c.job_id).order_by(table.c.job_id)
    return buffer.read(lambda c: list(c.execute(statement).scalars()))


def living(buffer: TaskBuffer) -> list[int]:
    return ids_in(buffer, schema.jobs)


def archived(buffer: TaskBuffer) -> list[int]:
    return ids_in(buffer, schema.archived["jobs"])


def contents(buffer: TaskBuffer) -> dict[str, list[Any]]:
    """Every row of every job, without the month, wherever it is: what moving must not change."""

    def read(connection: Connection) -> dict[str, list[Any]]:
        rows = {}
        for name, old in schema.archived.items():
            live = schema.metadata.tables[name]
            both = [sa.select(*live.c), sa.select(*(old.c[c.name] for c in live.c))]
            rows[name] = sorted(repr(tuple(row)) for one in both for row in connection.execute(one))
        return rows

    return buffer.read(read)


# --- which


def test_only_what_has_ended_long_ago_moves(buffer: TaskBuffer) -> None:
    end(buffer, 1, 2)
    buffer.clock.forward(DAY_S)  # type: ignore[attr-defined]
    end(buffer, 3)
    f.accept(buffer, f.new_job(), first_id=4)
    assert archiver(buffer).run_once() == 2
    assert (living(buffer), archived(buffer)) == ([3, 4], [1, 2])
    assert archiver(buffer).run_once() == 0, "what is done is done"
    buffer.clock.forward(DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer).run_once() == 1
    assert (living(buffer), archived(buffer)) == ([4], [1, 2, 3]), "who lives stays, however old"


PATHS = {
    S.FINISHED: (S.ACTIVATED, S.SENT, S.RUNNING, S.HOLDING, S.FINISHED),
    S.FAILED: (S.ACTIVATED, S.SENT, S.FAILED),
    S.CANCELLED: (S.CANCELLED,),
    S.CLOSED: (S.WAITING, S.CLOSED),
}


@pytest.mark.parametrize("state", sorted(FINAL))
def test_every_way_to_end_leads_into_the_archive(buffer: TaskBuffer, state: JobState) -> None:
    f.accept(buffer, f.new_job(), first_id=5)
    f.move(buffer, 5, *PATHS[state], site="A")
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer).run_once() == 1
    assert buffer.read(lambda c: archive.find(c, [5])).jobs[5].state is state


@pytest.mark.parametrize("state", [s for s in S if s not in FINAL])
def test_no_other_state_does(buffer: TaskBuffer, state: JobState) -> None:
    f.accept(buffer, f.new_job(), first_id=5)
    buffer.run(lambda c: c.execute(sa.update(schema.jobs).values(state=state.value)))
    buffer.clock.forward(900 * DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer, after_s=0).run_once() == 0
    assert living(buffer) == [5]


def test_nothing_waits_where_the_time_is_zero(buffer: TaskBuffer) -> None:
    end(buffer, 1)
    assert archiver(buffer, after_s=0).run_once() == 1


def set_file(buffer: TaskBuffer, job_id: int, status: FileStatus) -> None:
    (file,) = buffer.read(lambda c: files.of_jobs(c, [job_id]))[job_id]
    buffer.run(lambda c: files.set_status(c, [file.file_id], status))


def test_a_job_with_a_log_on_its_way_waits_for_it(buffer: TaskBuffer) -> None:
    end(buffer, 1, 2, state=S.FAILED)
    set_file(buffer, 1, FileStatus.TRANSFERRING)
    buffer.clock.forward(3 * DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer).run_once() == 1
    assert (living(buffer), archived(buffer)) == ([1], [2])
    set_file(buffer, 1, FileStatus.READY)
    assert archiver(buffer).run_once() == 1


def test_but_not_for_ever(buffer: TaskBuffer) -> None:
    end(buffer, 1, state=S.FAILED)
    set_file(buffer, 1, FileStatus.TRANSFERRING)
    buffer.clock.forward(UNSETTLED_FOR.total_seconds() - 60)  # type: ignore[attr-defined]
    assert archiver(buffer).run_once() == 0
    buffer.clock.forward(120)  # type: ignore[attr-defined]
    assert archiver(buffer).run_once() == 1
    (one,) = buffer.read(lambda c: archive.load_jobs(c, archive.find(c, [1])))
    assert one.files[0].status is FileStatus.TRANSFERRING, "as it was known last"


def test_those_held_up_do_not_hold_up_others(buffer: TaskBuffer) -> None:
    end(buffer, *range(1, 8), state=S.FAILED)
    for job_id in (1, 2, 3):
        set_file(buffer, job_id, FileStatus.TRANSFERRING)
    buffer.clock.forward(3 * DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer, batch=2).run_once() == 4
    assert living(buffer) == [1, 2, 3]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8])
def test_batches_of_any_size_do_it_all(buffer: TaskBuffer, batch: int) -> None:
    end(buffer, *range(1, 8))
    before = contents(buffer)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer, batch=batch).run_once() == 7
    assert (living(buffer), archived(buffer)) == ([], list(range(1, 8)))
    assert contents(buffer) == before


def test_one_run_is_bounded(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandaserver.taskbuffer.archiving._BATCHES", 2)
    end(buffer, *range(1, 8))
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    moved = []
    while number := archiver(buffer, batch=3).run_once():
        moved.append(number)
    assert moved == [6, 1]


# --- what


def test_a_row_of_every_table_moves_and_none_stays(buffer: TaskBuffer) -> None:
    f.accept(buffer, f.new_job(), first_id=1)
    end(buffer, 2)
    when = buffer.now()
    attempt = {"number": 1, "queue": "A", "claimed_at": when, "lease_until": when, "usage": {"a": [1]}}
    decision = {
        "attempt": 1, "rule": "again", "action": "retry", "passive": False, "done": True, "at": when,
    }  # fmt: skip
    for job_id in (1, 2):
        rows = ((schema.attempts, attempt), (schema.retry_decisions, decision))
        for table, row in rows:
            buffer.run(lambda c, t=table, r=row, i=job_id: c.execute(sa.insert(t).values(r | {"job_id": i})))
    before = contents(buffer)
    assert all(before[name] for name in NAMES), "each table has something to lose"
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    assert archiver(buffer).run_once() == 1
    assert contents(buffer) == before
    for name in NAMES:
        live, old = schema.metadata.tables[name], schema.archived[name]
        assert set(ids_in(buffer, live)) <= {1} and set(ids_in(buffer, old)) == {2}, name


def test_every_table_that_belongs_to_a_job_has_its_place_in_the_archive() -> None:
    of_jobs = {
        table.name
        for table in schema.metadata.sorted_tables
        if any(key.column.table is schema.jobs for key in table.foreign_keys)
    }
    assert of_jobs - {"ready"} | {"jobs"} == set(schema.archived), "who adds a table for jobs decides about the archive"


@pytest.mark.parametrize("name", NAMES)
def test_the_archive_takes_every_column_as_it_is(name: str) -> None:
    live, old = schema.metadata.tables[name], schema.archived[name]
    assert set(old.c.keys()) == {*live.c.keys(), "month"}
    for column in live.c:
        assert repr(old.c[column.name].type) == repr(column.type)
        assert old.c[column.name].nullable is column.nullable
    assert not old.foreign_keys and "month" in old.primary_key.columns and next(iter(old.primary_key)).name == "job_id"


def test_a_record_is_the_same_before_and_after(buffer: TaskBuffer) -> None:
    end(buffer, 1, state=S.FAILED)
    before = buffer.read(lambda c: records.of_job(c, 1))
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    archiver(buffer).run_once()
    after = buffer.read(lambda c: records.of_job(c, 1))
    assert before is not None and after is not None
    assert vars(after) == vars(before) | {"archived": True}
    assert [len(vars(after)[kind]) for kind in ("history", "errors", "rounds", "files")] == [2, 1, 2, 1]
    assert buffer.read(lambda c: records.of_job(c, 2)) is None


def test_the_month_is_that_of_the_end(buffer: TaskBuffer) -> None:
    ends = (datetime(2026, 10, 31, 23, 59, 59, 999999, UTC), datetime(2026, 11, 1, tzinfo=UTC))
    for job_id, moment in enumerate(ends, start=1):
        f.accept(buffer, f.new_job(), first_id=job_id)
        locked = buffer.run(lambda c, i=job_id: list(jobs.load(c, [i], lock=True).values()))
        buffer.run(lambda c, j=locked, m=moment: jobs.change_state(c, j, S.CLOSED, now=m, reason="x"))
    assert archiver(buffer).run_once() == 2
    for name in ("jobs", "job_history", "job_details"):
        table = schema.archived[name]
        found = buffer.read(lambda c, t=table: set(c.execute(sa.select(t.c.job_id, t.c.month))))
        assert {tuple(row) for row in found} == {(1, date(2026, 10, 1)), (2, date(2026, 11, 1))}


# --- in one place, whatever happens


class Died(RuntimeError):
    """The process ends here."""


def dying(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let everything break before the n-th statement that moves."""
    done: list[str] = []
    run = Prepared.run

    def run_or_die(self: Prepared, connection: Connection, **given: Any) -> int:
        if len(done) == number:
            raise Died
        done.append("one more")
        return run(self, connection, **given)

    monkeypatch.setattr(Prepared, "run", run_or_die)


def test_a_crash_between_any_two_statements_leaves_every_job_in_one_place(
    buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(buffer, 1, 2, 3)
    before = contents(buffer)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    statements = len(NAMES) + 1  # each table is copied by one, and one deletes
    for number in range(statements):
        with monkeypatch.context() as patched, pytest.raises(Died):
            dying(patched, number)
            archiver(buffer).run_once()
        assert contents(buffer) == before
        assert (living(buffer), archived(buffer)) == ([1, 2, 3], []), f"what came before statement {number} is undone"
    with monkeypatch.context() as patched:
        dying(patched, statements)
        assert archiver(buffer).run_once() == 3
    assert contents(buffer) == before
    assert (living(buffer), archived(buffer)) == ([], [1, 2, 3])


def test_a_commit_that_fails_leaves_every_job_in_one_place(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    end(buffer, 1, 2)
    before = contents(buffer)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]

    def die(connection: Any) -> None:
        connection.rollback()  # as the database does when the other end is gone
        raise Died

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(buffer.database.writer.dialect, "do_commit", die)
        archiver(buffer).run_once()
    assert contents(buffer) == before
    assert archiver(buffer).run_once() == 2
    assert contents(buffer) == before


def test_what_somebody_holds_is_left_for_the_next_time(buffer: TaskBuffer) -> None:
    end(buffer, 1, 2, 3)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    if buffer.database.writer.dialect.name == "sqlite":
        return  # has one writer at a time: nobody holds anything
    with buffer.database.writer.connect() as other, other.begin():
        assert list(jobs.load(other, [2], lock=True)) == [2]
        assert archiver(buffer).run_once() == 2, "it waits for nobody"
        assert living(buffer) == [2]
    assert archiver(buffer).run_once() == 1


def test_two_at_the_same_time_do_no_harm(buffer: TaskBuffer) -> None:
    end(buffer, *range(1, 31))
    before = contents(buffer)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    gate = threading.Barrier(3)
    moved: list[int] = []

    def go() -> None:
        gate.wait(10)
        moved.append(archiver(buffer, batch=4).run_once())

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    moved.append(archiver(buffer).run_once())
    assert sum(moved) == 30 and len(moved) == 4
    assert contents(buffer) == before
    assert (living(buffer), archived(buffer)) == ([], list(range(1, 31)))


# --- not too early


def set_revision(buffer: TaskBuffer, revision: str) -> None:
    buffer.run(lambda c: c.execute(sa.text("UPDATE alembic_version SET version_num = :it"), {"it": revision}))


@pytest.mark.parametrize("revision", ["0002", "9999"])
def test_nothing_moves_while_servers_may_run_that_know_of_no_archive_or_of_more_columns(
    buffer: TaskBuffer, revision: str
) -> None:
    end(buffer, 1)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    now = buffer.read(migrate.revision_of)
    set_revision(buffer, revision)
    try:
        assert archiver(buffer).run_once() == 0
        assert living(buffer) == [1]
    finally:
        set_revision(buffer, now or "")
    assert archiver(buffer).run_once() == 1


def test_an_upgrade_in_the_middle_of_a_run_is_noticed(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    end(buffer, 1, 2, 3)
    buffer.clock.forward(2 * DAY_S)  # type: ignore[attr-defined]
    now, move = buffer.read(migrate.revision_of), archive.move

    def move_and_upgrade(connection: Connection, job_ids: list[int]) -> int:
        moved = move(connection, job_ids)
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        return moved

    monkeypatch.setattr(archive, "move", move_and_upgrade)
    try:
        assert archiver(buffer, batch=1).run_once() == 1
    finally:
        set_revision(buffer, now or "")
    assert len(living(buffer)) == 2
