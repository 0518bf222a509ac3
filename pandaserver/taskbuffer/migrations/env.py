"""Runs migrations on the connection that migrate.py hands over."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.ddl.mysql import MySQLImpl

from pandaserver.taskbuffer.schema import metadata


class Resumable(MySQLImpl):
    """Steps over what is done already: MariaDB commits each change of a table by itself, so that a migration which was
    interrupted has left a part of its work behind."""

    __dialect__ = "mysql"  # by this name alembic finds it

    def create_table(self, table: sa.Table, **options: Any) -> None:
        """Make a table with its indexes."""
        if not self._look().has_table(table.name):
            super().create_table(table, **options)
            return
        for index in table.indexes:
            self.create_index(index)

    def drop_table(self, table: sa.Table, **options: Any) -> None:
        """Drop a table."""
        if self._look().has_table(table.name):
            super().drop_table(table, **options)

    def create_index(self, index: sa.Index, **options: Any) -> None:
        """Make an index."""
        if not self._has_index(index):
            super().create_index(index, **options)

    def drop_index(self, index: sa.Index, **options: Any) -> None:
        """Drop an index."""
        if self._has_index(index):
            super().drop_index(index, **options)

    def add_column(self, table_name: str, column: sa.Column[Any], **options: Any) -> None:
        """Add a column."""
        if column.name not in self._columns(table_name):
            super().add_column(table_name, column, **options)

    def drop_column(self, table_name: str, column: sa.Column[Any], **options: Any) -> None:
        """Drop a column."""
        if column.name in self._columns(table_name):
            super().drop_column(table_name, column, **options)

    def _look(self) -> sa.Inspector:
        return sa.inspect(self.connection)  # a new one each time: the old one remembers

    def _has_index(self, index: sa.Index) -> bool:
        assert index.table is not None
        return index.name in {known["name"] for known in self._look().get_indexes(index.table.name)}

    def _columns(self, table_name: str) -> set[str]:
        return {column["name"] for column in self._look().get_columns(table_name)}


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    user_module_prefix="schema.",
)
context.run_migrations()
