"""Statements of the hot calls: written with SQLAlchemy, compiled once, run by the driver itself.

SQLAlchemy spends more time on building and running a small statement than the database on executing it. So what every
pilot's call runs is a `Prepared` at module level. Lists of values are `some.in_(values("ids"))`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, Any]
Converter = Callable[[Any], Any]

_MOST_IN_LIST = 5000  # longer lists would make statements that no server likes


def values(name: str) -> sa.BindParameter[Any]:
    """Stand for a list of values, given when the statement is run."""
    return sa.bindparam(name, expanding=True)


@dataclass(frozen=True)
class _Slot:
    """A place for a value in the text: which value, which of a list, and how it is converted."""

    source: str
    index: int | None
    convert: Converter | None
    fixed: bool = False  # a literal of the statement itself: `convert` gives it

    def pick(self, given: Values) -> Any:
        """Give the value for this place."""
        if self.fixed and self.convert is not None:
            return self.convert(None)
        value = given[self.source] if self.index is None else given[self.source][self.index]
        return value if self.convert is None else self.convert(value)


@dataclass(frozen=True)
class _Text:
    """A statement in the words of one driver; the values stand in the order of their places."""

    sql: str
    slots: tuple[_Slot, ...]
    results: tuple[tuple[int, Converter], ...]

    def parameters(self, given: Values) -> tuple[Any, ...]:
        """Put the values into order."""
        return tuple([slot.pick(given) for slot in self.slots])

    def all_parameters(self, rows: Sequence[Values]) -> list[tuple[Any, ...]]:
        """Put the values of many rows into order; this is where a server spends its time."""
        if any(slot.fixed or slot.index is not None for slot in self.slots):
            return [self.parameters(row) for row in rows]
        places = [(slot.source, slot.convert) for slot in self.slots]
        return [tuple([row[s] if c is None else c(row[s]) for s, c in places]) for row in rows]

    def converted(self, row: Sequence[Any]) -> Sequence[Any]:
        """Make values of Python of a row."""
        if not self.results:
            return row
        changed = list(row)
        for place, converter in self.results:
            changed[place] = converter(changed[place])
        return changed


class Prepared:
    """One statement; rows come as plain sequences, in the order of its columns."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._texts: dict[tuple[str, tuple[int, ...], tuple[str, ...]], _Text] = {}
        self._lists: tuple[str, ...] | None = None

    def rows(self, connection: Connection, **given: Any) -> list[Sequence[Any]]:
        """Run a SELECT."""
        if (text := self._text_for(connection, given)) is None:
            return []
        cursor = _execute(connection, text.sql, text.parameters(self._padded(given)))
        try:
            found = cursor.fetchall()
        finally:
            cursor.close()
        return [text.converted(row) for row in found]

    def run(self, connection: Connection, **given: Any) -> int:
        """Run an INSERT, UPDATE or DELETE; tell how many rows it touched."""
        if (text := self._text_for(connection, given)) is None:
            return 0
        cursor = _execute(connection, text.sql, text.parameters(self._padded(given)))
        cursor.close()
        return int(cursor.rowcount)

    def many(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run an INSERT of many rows, all with the same columns, which the driver sends as one statement."""
        if not rows:
            return
        text = self._compiled(connection.dialect, (), tuple(rows[0]))
        _execute(connection, text.sql, text.all_parameters(rows), many=True).close()

    def _text_for(self, connection: Connection, given: Values) -> _Text | None:
        """Give the text for lists of these lengths; None when one is empty, since nothing is in it."""
        if self._lists is None:
            binds = self._statement.compile(dialect=connection.dialect).binds
            self._lists = tuple(sorted(name for name, bind in binds.items() if bind.expanding))
        lengths = tuple(_room_for(len(given[name])) for name in self._lists)
        return None if 0 in lengths else self._compiled(connection.dialect, lengths, ())

    def _padded(self, given: Values) -> Values:
        lists = {name: _padded(given[name]) for name in self._lists or ()}
        return {**given, **lists} if lists else given

    def _compiled(self, dialect: Dialect, lengths: tuple[int, ...], columns: tuple[str, ...]) -> _Text:
        key = (dialect.name, lengths, columns)
        if key not in self._texts:
            lists = dict(zip(self._lists or (), lengths, strict=False))
            self._texts[key] = _compile(self._statement, dialect, lists, columns)
        return self._texts[key]


class Upsert:
    """An INSERT of many rows that updates those which are there already, by their primary or unique key."""

    def __init__(self, table: sa.Table, update: Callable[[Any], Values]) -> None:
        """Prepare it; `update` makes of the columns of the row as it came what is written instead."""
        mine, lite = mysql.insert(table), sqlite.insert(table)
        self._by_dialect = {
            "mysql": Prepared(mine.on_duplicate_key_update(dict(update(mine.inserted)))),
            "mariadb": Prepared(mine.on_duplicate_key_update(dict(update(mine.inserted)))),
            "sqlite": Prepared(lite.on_conflict_do_update(set_=dict(update(lite.excluded)))),
        }

    def many(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run it; all rows have the same columns."""
        self._by_dialect[connection.dialect.name].many(connection, rows)


def _room_for(length: int) -> int:
    """Give the length that a list is filled up to, so that few different texts do."""
    if length > _MOST_IN_LIST:
        raise ValueError(f"a list of {length} values in one statement; at most {_MOST_IN_LIST}, in parts")
    if length <= 16:
        return 1 << (length - 1).bit_length() if length else 0
    return -(-length // 16) * 16 if length <= 128 else -(-length // 128) * 128


def _padded(given: Sequence[Any]) -> Sequence[Any]:
    room = _room_for(len(given))
    return given if room == len(given) else [*given, *[given[-1]] * (room - len(given))]


def _compile(statement: Any, dialect: Dialect, lists: Mapping[str, int], columns: tuple[str, ...]) -> _Text:
    compiled = statement.compile(dialect=dialect, column_keys=list(columns) or None)
    wanted: dict[str, Any] = {name: None for name, bind in compiled.binds.items() if bind.required}
    expanded = compiled.construct_expanded_state(wanted | {name: [None] * length for name, length in lists.items()})
    of_list = {
        part: (name, index) for name in lists for index, part in enumerate(expanded.parameter_expansion.get(name, ()))
    }
    sql, names = _in_order(expanded.statement, expanded.positiontup)
    return _Text(
        sql=sql,
        slots=tuple(_slot(name, of_list.get(name), compiled, dialect) for name in names),
        results=tuple(_results(compiled, dialect)),
    )


def _in_order(sql: str, names: Sequence[str] | None) -> tuple[str, Sequence[str]]:
    """Give a text whose places have no names, and their names: drivers are quicker with values in order."""
    if names is not None:
        return sql, names
    return _NAMED.sub("%s", sql), _NAMED.findall(sql)


_NAMED = re.compile(r"%\((\w+)\)s")


def _slot(name: str, of_list: tuple[str, int] | None, compiled: SQLCompiler, dialect: Dialect) -> _Slot:
    source, index = of_list or (name, None)
    bind = compiled.binds[source]
    convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if bind.required:
        return _Slot(source, index, convert)
    fixed = bind.value if convert is None else convert(bind.value)
    return _Slot("", None, lambda _: fixed, fixed=True)


def _results(compiled: SQLCompiler, dialect: Dialect) -> list[tuple[int, Converter]]:
    found: list[tuple[int, Converter]] = []
    for place, column in enumerate(compiled._result_columns):
        convert = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if convert is not None:
            found.append((place, convert))
    return found


def _execute(connection: Connection, sql: str, parameters: Any, *, many: bool = False) -> Any:
    """Run text on the driver; its errors come out as SQLAlchemy's, like those of all other statements.

    Raises:
        DBAPIError: as Connection.execute does.
    """
    dialect = connection.dialect
    cursor = connection.connection.cursor()
    try:
        (cursor.executemany if many else cursor.execute)(sql, parameters)
    except dialect.loaded_dbapi.Error as error:
        cursor.close()
        gone = dialect.is_disconnect(error, connection.connection.dbapi_connection, cursor)
        if gone:
            connection.invalidate(error)
        raised = DBAPIError.instance(
            sql, None, error, dialect.loaded_dbapi.Error, connection_invalidated=gone, dialect=dialect
        )
        raise raised from error
    return cursor
