"""Prepared statements: the same rows, values and errors as SQLAlchemy's own, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from pandaserver.taskbuffer import schema
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.statements import Prepared, Upsert, values

WORK = schema.work
NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
INSERT = Prepared(sa.insert(WORK))
ALL = Prepared(sa.select(WORK).order_by(WORK.c.key))
BY_IDS = Prepared(sa.select(WORK.c.key).where(WORK.c.work_id.in_(values("ids"))).order_by(WORK.c.key))


def rows(*keys: str, **more: Any) -> list[dict[str, Any]]:
    told = {"kind": "k", "payload": {"a": [1, None, "é%s\\'\""]}, "due_at": NOW, "created_at": NOW}
    return [told | {"key": key} | more for key in keys]


def core(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(sa.select(WORK).order_by(WORK.c.key))]


def test_rows_are_those_of_sqlalchemy(buffer: TaskBuffer) -> None:
    buffer.run(lambda c: INSERT.many(c, rows("a", "b", "100%", "%(x)s", "'; DROP TABLE work; --", "\N{SNAKE}")))
    prepared, by_core = buffer.read(lambda c: (ALL.rows(c), core(c)))
    assert [tuple(row) for row in prepared] == by_core
    assert {row[1] for row in prepared} == {"k"}
    assert all(row[5] == NOW and row[5].tzinfo is UTC for row in prepared)


def test_nothing_to_insert_is_no_statement(buffer: TaskBuffer) -> None:
    buffer.run(lambda c: INSERT.many(c, []))
    assert buffer.read(ALL.rows) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17, 33, 127, 128, 129, 1000])
def test_lists_of_any_length(buffer: TaskBuffer, count: int) -> None:
    buffer.run(lambda c: INSERT.many(c, rows(*(f"{n:04d}" for n in range(1100)))))
    ids = [row[0] for row in buffer.read(ALL.rows)][:count]
    found = buffer.read(lambda c: BY_IDS.rows(c, ids=ids))
    assert [row[0] for row in found] == [f"{n:04d}" for n in range(count)]


def test_a_list_without_end_is_refused(buffer: TaskBuffer) -> None:
    with pytest.raises(ValueError, match="5001 values"):
        buffer.read(lambda c: BY_IDS.rows(c, ids=list(range(5001))))


def test_lists_that_exclude(buffer: TaskBuffer) -> None:
    but = Prepared(sa.select(WORK.c.key).where(WORK.c.key.not_in(values("but"))).order_by(WORK.c.key))
    buffer.run(lambda c: INSERT.many(c, rows("a", "b", "c", "d")))
    assert [row[0] for row in buffer.read(lambda c: but.rows(c, but=["b", "c", "x"]))] == ["a", "d"]


def test_several_lists_and_other_values_and_literals_together(buffer: TaskBuffer) -> None:
    wanted = Prepared(
        sa.select(WORK.c.key).where(
            WORK.c.kind.in_(values("kinds")), WORK.c.key.in_(values("keys")), WORK.c.due_at <= sa.bindparam("now"),
            WORK.c.tries == 0,
        ).order_by(WORK.c.key).limit(2)
    )  # fmt: skip
    later = rows("d", due_at=NOW + timedelta(seconds=1))
    buffer.run(lambda c: INSERT.many(c, [*rows("a", "b", "c"), *later, *rows("e", kind="other")]))
    given = {"kinds": ["k", "l", "m"], "keys": ["e", "d", "c", "b"], "now": NOW}
    assert [row[0] for row in buffer.read(lambda c: wanted.rows(c, **given))] == ["b", "c"]
    assert buffer.read(lambda c: wanted.rows(c, **(given | {"kinds": []}))) == []


def test_changes_tell_how_many_rows_they_touched(buffer: TaskBuffer) -> None:
    change = Prepared(
        sa.update(WORK)
        .where(WORK.c.key.in_(values("keys")))
        .values(owner=sa.bindparam("who"), version=WORK.c.version + 1, last_error=None)
    )
    buffer.run(lambda c: INSERT.many(c, rows("a", "b", "c")))
    assert buffer.run(lambda c: change.run(c, keys=["a", "c", "x"], who="me")) == 2
    assert buffer.run(lambda c: change.run(c, keys=[], who="me")) == 0
    assert [(r[1 + 1], r[4], r[7]) for r in buffer.read(ALL.rows)] == [("a", 2, "me"), ("b", 1, None), ("c", 2, "me")]


def test_an_upsert_changes_what_is_there_and_adds_what_is_not(buffer: TaskBuffer) -> None:
    put = Upsert(WORK, lambda new: {"version": WORK.c.version + new["version"], "due_at": new["due_at"]})
    buffer.run(lambda c: INSERT.many(c, rows("a", "b")))
    again = rows("b", "c", version=5, due_at=NOW + timedelta(days=1))
    buffer.run(lambda c: put.many(c, again))
    buffer.run(lambda c: put.many(c, []))
    seen = [(row[2], row[4], row[5]) for row in buffer.read(ALL.rows)]
    assert seen == [("a", 1, NOW), ("b", 6, NOW + timedelta(days=1)), ("c", 5, NOW + timedelta(days=1))]


def test_errors_are_those_of_sqlalchemy_and_the_transaction_is_undone(buffer: TaskBuffer) -> None:
    buffer.run(lambda c: INSERT.many(c, rows("a")))

    def twice(connection: Connection) -> None:
        INSERT.many(connection, rows("b"))
        INSERT.many(connection, rows("a"))

    with pytest.raises(IntegrityError):
        buffer.database._write_once(twice)
    assert [row[2] for row in buffer.read(ALL.rows)] == ["a"]


def test_a_moment_without_zone_is_refused(buffer: TaskBuffer) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="naive"):
        buffer.run(lambda c: INSERT.many(c, rows("a", due_at=naive)))
    assert buffer.read(ALL.rows) == []


@pytest.mark.mysql
@pytest.mark.parametrize("prepared_url", ["mariadb"], indirect=True)
def test_a_lost_connection_is_known_as_such_and_replaced(buffer: TaskBuffer) -> None:
    tries = []

    def lose(connection: Connection) -> list[Any]:
        tries.append(1)
        if len(tries) == 1:
            (killed,) = connection.execute(sa.text("SELECT CONNECTION_ID()")).one()
            with buffer.database.reader.connect() as other:
                other.execute(sa.text(f"KILL {killed}"))
        return ALL.rows(connection)

    assert buffer.run(lose) == []
    assert len(tries) == 2


@pytest.mark.mysql
@pytest.mark.parametrize("prepared_url", ["mariadb"], indirect=True)
def test_after_an_error_at_commit_nothing_stays_open(buffer: TaskBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = buffer.database.writer.dialect
    commit, refused = dialect.do_commit, []

    def once(connection: Any) -> None:
        if not refused:
            refused.append(1)
            raise dialect.loaded_dbapi.OperationalError(1205, "Lock wait timeout exceeded")
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", once)
    with pytest.raises(OperationalError):
        buffer.database._write_once(lambda c: INSERT.many(c, rows("lost")))
    buffer.run(lambda c: INSERT.many(c, rows("kept")))
    assert [row[2] for row in buffer.read(ALL.rows)] == ["kept"]


def test_reads_after_an_error_start_anew(buffer: TaskBuffer) -> None:
    wrong = Prepared(sa.select(sa.literal_column("no_such_column")).select_from(WORK))
    with pytest.raises(DBAPIError):
        buffer.read(wrong.rows)
    assert buffer.read(ALL.rows) == []
