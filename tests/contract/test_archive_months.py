"""The archive month by month: partitions are made ahead and dropped whole on MariaDB, rows are deleted on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.model.states import JobState
from pandaserver.taskbuffer import archive, jobs, partitions, records, schema
from pandaserver.taskbuffer.archiving import ArchivePolicy, Archiver
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database
from pandaserver.taskbuffer.partitions import following, months_between

OLD = schema.archived["jobs"]


@pytest.fixture
def months(database_url: str) -> Iterator[TaskBuffer]:
    """A TaskBuffer over a database of its own, whose partitions no other test has changed."""
    f.prepare(database_url)
    made = TaskBuffer(Database(database_url), f.Clock())  # it is November 2026
    yield made
    made.database.close()


def archiver(buffer: TaskBuffer, keep_months: int = 0, batch: int = 100) -> Archiver:
    return Archiver(buffer, ArchivePolicy(86400, batch, keep_months))


def end_in(buffer: TaskBuffer, job_id: int, year: int, month: int) -> None:
    f.accept(buffer, f.new_job(), first_id=job_id)
    moment = datetime(year, month, 15, tzinfo=UTC)
    locked = buffer.run(lambda c: list(jobs.load(c, [job_id], lock=True).values()))
    buffer.run(lambda c: jobs.change_state(c, locked, JobState.CLOSED, now=moment, reason="long ago"))


def set_clock(buffer: TaskBuffer, year: int, month: int, day: int = 20) -> None:
    buffer.clock.now = datetime(year, month, day, tzinfo=UTC)  # type: ignore[attr-defined]


def kept(buffer: TaskBuffer) -> list[int]:
    return buffer.read(lambda c: list(c.execute(sa.select(OLD.c.job_id).order_by(OLD.c.job_id)).scalars()))


def names(buffer: TaskBuffer, table: str = OLD.name) -> list[str]:
    return list(buffer.read(lambda c: partitions.of_table(c, table)))


def rows_by_partition(buffer: TaskBuffer) -> dict[str, list[int]]:
    def read(connection: sa.Connection) -> dict[str, list[int]]:
        found = {}
        for name in partitions.of_table(connection, OLD.name):
            statement = sa.text(f"SELECT job_id FROM {OLD.name} PARTITION ({name}) ORDER BY job_id")
            found[name] = list(connection.execute(statement).scalars())
        return {name: ids for name, ids in found.items() if ids}

    return buffer.read(read)


def partitioned(buffer: TaskBuffer) -> bool:
    return buffer.database.writer.dialect.name != "sqlite"


# --- months


@pytest.mark.parametrize(
    ("start", "number", "end"),
    [
        (date(2026, 11, 1), 1, date(2026, 12, 1)),
        (date(2026, 12, 1), 1, date(2027, 1, 1)),
        (date(2026, 1, 1), -1, date(2025, 12, 1)),
        (date(2026, 11, 1), 0, date(2026, 11, 1)),
        (date(2026, 11, 1), -24, date(2024, 11, 1)),
        (date(2026, 11, 1), 14, date(2028, 1, 1)),
    ],
)
def test_months_are_counted_over_the_year(start: date, number: int, end: date) -> None:
    assert following(start, number) == end


def test_months_between() -> None:
    found = list(months_between(date(2026, 11, 1), date(2027, 2, 1)))
    assert found == [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)]
    assert list(months_between(date(2027, 2, 1), date(2026, 11, 1))) == []
    assert archive.month_of(datetime(2026, 11, 30, 23, 59, tzinfo=UTC)) == date(2026, 11, 1)


# --- made ahead


def test_months_have_their_partitions_before_they_begin(months: TaskBuffer) -> None:
    archiver(months).run_once()
    expected = ["p202611", "p202612", "p202701", "p202702", "pmax"] if partitioned(months) else []
    for table in schema.archived.values():
        assert names(months, table.name) == expected
    archiver(months).run_once()
    assert names(months) == expected, "once is enough"
    set_clock(months, 2027, 1)
    archiver(months).run_once()
    assert names(months)[4:] == (["p202703", "p202704", "pmax"] if partitioned(months) else [])


def test_what_is_older_than_the_archive_has_its_months_too(months: TaskBuffer) -> None:
    for job_id, month in ((1, 7), (2, 9), (3, 9)):
        end_in(months, job_id, 2026, month)
    assert archiver(months).run_once() == 3
    if partitioned(months):
        assert names(months)[:5] == ["p202607", "p202608", "p202609", "p202610", "p202611"]
        assert rows_by_partition(months) == {"p202607": [1], "p202609": [2, 3]}


def test_a_month_without_a_partition_is_kept_all_the_same(months: TaskBuffer) -> None:
    """Nobody has made partitions: the server was off for long, or may not alter tables."""
    for job_id, (year, month) in enumerate([(1999, 1), (2026, 11), (2031, 7)], start=1):
        end_in(months, job_id, year, month)
        months.run(lambda c, i=job_id: archive.move(c, [i]))
    assert kept(months) == [1, 2, 3]
    if partitioned(months):
        assert rows_by_partition(months) == {"pmax": [1, 2, 3]}
    set_clock(months, 2031, 8)
    archiver(months).run_once()
    assert kept(months) == [1, 2, 3], "they go where they belong, and none is lost"
    if partitioned(months):
        by_partition = rows_by_partition(months)
        assert by_partition["p203107"] == [3] and "pmax" not in by_partition
    end_in(months, 4, 1998, 1)
    months.run(lambda c: archive.move(c, [4]))
    assert kept(months) == [1, 2, 3, 4], "a month before all others is kept with the first"


def test_a_clock_gone_mad_does_not_make_partitions_without_end(months: TaskBuffer) -> None:
    end_in(months, 1, 1970, 1)
    set_clock(months, 2199, 1)
    assert archiver(months).run_once() == 1
    assert len(names(months)) < 300


# --- dropped


def fill(buffer: TaskBuffer) -> None:
    for job_id, month in enumerate(range(5, 11), start=1):
        end_in(buffer, job_id, 2026, month)
    assert archiver(buffer).run_once() == 6
    assert kept(buffer) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("keep_months", "left"), [(0, [1, 2, 3, 4, 5, 6]), (24, [1, 2, 3, 4, 5, 6]), (4, [3, 4, 5, 6]), (1, [6])]
)
def test_what_was_kept_long_enough_is_forgotten(months: TaskBuffer, keep_months: int, left: list[int]) -> None:
    fill(months)
    archiver(months, keep_months).run_once()
    assert kept(months) == left
    for name, table in schema.archived.items():
        found = months.read(lambda c, t=table: set(c.execute(sa.select(t.c.job_id)).scalars()))
        assert found <= set(left), name
    assert [i for i in range(1, 7) if months.read(lambda c, i=i: records.of_job(c, i)) is not None] == left


def test_it_is_forgotten_when_its_time_has_come(months: TaskBuffer) -> None:
    fill(months)
    keeper = archiver(months, keep_months=6)
    for month, left in ((11, 6), (12, 5)):
        set_clock(months, 2026, month)
        keeper.run_once()
        assert len(kept(months)) == left
    set_clock(months, 2027, 12)
    keeper.run_once()
    assert kept(months) == []
    if partitioned(months):
        assert names(months)[0] == "p202706"


def test_deleting_is_done_in_batches(months: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(months)
    if partitioned(months):
        return  # drops whole months
    monkeypatch.setattr("pandaserver.taskbuffer.archiving._BATCHES", 1)
    keeper = archiver(months, keep_months=1, batch=2)
    left = []
    for _ in range(4):
        keeper.run_once()
        left.append(kept(months))
    assert left == [[3, 4, 5, 6], [5, 6], [6], [6]]


def test_partitions_are_looked_at_once_a_month(months: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[date] = []
    make = partitions.make

    def counted(database: Database, first: date, last: date) -> int:
        looked.append(last)
        return make(database, first, last)

    monkeypatch.setattr(partitions, "make", counted)
    keeper = archiver(months)
    for _ in range(3):
        keeper.run_once()
    set_clock(months, 2026, 12)
    for _ in range(2):
        keeper.run_once()
    assert looked == [date(2027, 2, 1), date(2027, 3, 1)]


# --- and nobody is held up


def test_a_reader_who_holds_a_table_delays_the_partitions_and_nothing_else(
    months: TaskBuffer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not partitioned(months):
        return
    monkeypatch.setattr(partitions, "_PATIENCE_S", 1)
    monkeypatch.setattr("pandaserver.taskbuffer.database.ATTEMPTS", 1)
    end_in(months, 1, 2026, 10)
    keeper = archiver(months)
    with months.database.reader.connect() as reader, reader.begin():
        reader.execute(sa.select(OLD)).all()
        assert keeper.run_once() == 1, "jobs move without partitions of their own"
        assert "left as they are until the next time" in caplog.text
        assert names(months) == ["pmax"]
    caplog.clear()
    keeper.run_once()
    assert names(months) == ["pmax"] and not caplog.text, "not again and again"
    months.clock.forward(3600)  # type: ignore[attr-defined]
    keeper.run_once()
    assert rows_by_partition(months) == {"p202610": [1]}


def test_a_server_that_may_not_alter_tables_archives_all_the_same(
    months: TaskBuffer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not partitioned(months):
        return
    end_in(months, 1, 2026, 10)
    monkeypatch.setattr(partitions, "_alter", lambda database, _statement: partitions_refused(database))
    assert archiver(months, keep_months=1).run_once() == 1
    assert "denied" in caplog.text


def partitions_refused(database: Database) -> None:
    with database.writer.connect() as connection:
        connection.exec_driver_sql(
            "SIGNAL SQLSTATE '42000' SET MYSQL_ERRNO = 1142, MESSAGE_TEXT = 'ALTER command denied'"
        )


def test_a_reader_whose_moment_was_before_the_change_goes_on(months: TaskBuffer) -> None:
    fill(months)
    end_in(months, 7, 2031, 1)
    months.run(lambda c: archive.move(c, [7]))  # into the last partition, which will be cut
    changed = []

    def read(connection: sa.Connection) -> list[int]:
        connection.execute(sa.select(sa.func.count()).select_from(schema.jobs)).scalar_one()  # the moment begins
        if not changed:
            partitions.make(months.database, date(2026, 1, 1), date(2031, 2, 1))
            partitions.drop(months.database, date(2026, 10, 1))
            changed.append("once")
        return list(connection.execute(sa.select(OLD.c.job_id).order_by(OLD.c.job_id)).scalars())

    assert months.read(read) == ([6, 7] if partitioned(months) else [1, 2, 3, 4, 5, 6, 7])


def test_the_database_looks_only_into_the_months_that_count(months: TaskBuffer) -> None:
    if not partitioned(months):
        return
    fill(months)
    found = months.read(lambda c: archive.find(c, [4]))
    assert found.months == (date(2026, 8, 1),)
    table = schema.archived["files"]
    statement = sa.select(table).where(table.c.job_id.in_([4]), table.c.month.in_(found.months))
    text = str(statement.compile(months.database.reader, compile_kwargs={"literal_binds": True}))
    (row,) = months.read(lambda c: c.exec_driver_sql(f"EXPLAIN PARTITIONS {text}").mappings().all())
    assert (row["partitions"], row["key"]) == ("p202608", "PRIMARY")
