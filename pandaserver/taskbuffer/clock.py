"""One place that tells the time, so that tests can."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Tell the time now, aware UTC."""
    return datetime.now(UTC)


def database_time(connection: Connection) -> datetime:
    """Tell the time of the database's host; every time in the tables is that of a server, so they must agree."""
    sqlite = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"
    statement = "SELECT UTC_TIMESTAMP(6)" if connection.dialect.name == "mysql" else sqlite
    told = connection.exec_driver_sql(statement).scalar_one()
    moment = told if isinstance(told, datetime) else datetime.fromisoformat(str(told))
    return moment.replace(tzinfo=UTC)
