"""Every statement for many rows goes to MariaDB as one: the driver does that only for texts of a certain form."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from pymysql.cursors import RE_INSERT_VALUES
from sqlalchemy.dialects.mysql.pymysql import dialect

from pandaserver import taskbuffer
from pandaserver.taskbuffer import statements
from pandaserver.taskbuffer.statements import Prepared, Upsert


def upserts() -> dict[str, Prepared]:
    found = {}
    for module in pkgutil.iter_modules(taskbuffer.__path__, f"{taskbuffer.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Upsert):
                found[f"{module.name.rpartition('.')[2]}.{name}"] = value._by_dialect["mysql"]
    return found


UPSERTS = upserts()


def test_there_are_upserts() -> None:
    assert {"work._ASK", "files._SAVE", "counters._MOVE_ON"} <= set(UPSERTS)


@pytest.mark.parametrize("name", sorted(UPSERTS))
def test_rows_are_sent_as_one_statement(name: str) -> None:
    statement: Any = UPSERTS[name]._statement
    text = statements._compile(statement, dialect(), {}, tuple(column.name for column in statement.table.c))
    parts = RE_INSERT_VALUES.match(text.sql)
    assert parts is not None, text.sql
    assert "%" not in parts.group(3), "values outside of the rows are not filled in"
