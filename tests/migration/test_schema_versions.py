"""Migrations lead to exactly the schema in the code; a server refuses a database of another version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pandaserver.errors import ConfigError
from pandaserver.taskbuffer import migrate, partitions, schema
from pandaserver.taskbuffer.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def test_upgraded_and_fresh_schemas_do_not_differ(database: Database) -> None:
    migrate.upgrade(database)
    with database.writer.connect() as connection:
        options = {"compare_type": True, "user_module_prefix": "schema."}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def described(database: Database) -> dict[str, object]:
    """All that the database itself says of its tables."""
    look = sa.inspect(database.writer)
    return {
        name: {
            "columns": [{k: str(v) for k, v in column.items()} for column in look.get_columns(name)],
            "key": look.get_pk_constraint(name)["constrained_columns"],
            "partitions": database.read(lambda c, table=name: partitions.of_table(c, table)),  # type: ignore[misc]
            "indexes": sorted((i["name"], i["column_names"], bool(i["unique"])) for i in look.get_indexes(name)),
            "foreign": sorted(
                (f["constrained_columns"], f["referred_table"], sorted(f["options"].items()))
                for f in look.get_foreign_keys(name)
            ),
        }
        for name in look.get_table_names()
        if name != "alembic_version"
    }


def test_upgraded_and_fresh_databases_describe_themselves_alike(database: Database) -> None:
    migrate.upgrade(database)
    upgraded = described(database)
    assert set(upgraded) == set(schema.metadata.tables)
    with database.writer.begin() as connection:
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)
    assert described(database) == upgraded


def test_the_archive_is_partitioned_where_that_is_possible(database: Database) -> None:
    migrate.upgrade(database)
    found = {name for name, told in described(database).items() if told["partitions"]}  # type: ignore[index]
    expected = set() if database.writer.dialect.name == "sqlite" else {t.name for t in schema.archived.values()}
    assert found == expected


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    migrate.upgrade(database)
    before = described(database)
    migrate.upgrade(database)
    assert described(database) == before
    assert migrate.current_revision(database) == migrate.newest_revision() != ""
    migrate.check_current(database)


def test_an_empty_database_is_refused_with_the_way_out(database: Database) -> None:
    with pytest.raises(ConfigError, match=r"has schema \(none\), this server needs \d+: run panda-server db upgrade"):
        migrate.check_current(database)


def test_names_are_compared_to_the_letter_on_mariadb(database: Database) -> None:
    migrate.upgrade(database)
    if database.writer.dialect.name == "sqlite":
        return  # compares to the letter anyway
    question = """
        SELECT TABLE_NAME, TABLE_COLLATION, ENGINE FROM information_schema.TABLES
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME <> 'alembic_version'
    """
    with database.reader.connect() as connection:
        rows = connection.execute(sa.text(question)).all()
    assert {(row[1], row[2]) for row in rows} == {("utf8mb4_bin", "InnoDB")}
    assert {row[0] for row in rows} == set(schema.metadata.tables)
