"""Transactions: a unit of work is a function of a connection, run again when the database asks for it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from pymysql import converters
from pymysql.constants import FIELD_TYPE
from sqlalchemy import event
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Connection as Connection  # what work is done on, for rooms without sqlalchemy
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, IsolationLevel
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from pandaserver.errors import ConfigError, UncertainCommit

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Connection], T]

ATTEMPTS = 10
REPLICA_RESTS_S = 30
MYSQL_RETRY = {1213, 1205, 1412}  # deadlock, lock wait timeout, table altered: the whole transaction runs again
MYSQL_GONE = {2006, 2013, 2014, 2045, 2055}  # the connection is gone before the work was committed
_MYSQL_DUPLICATE = 1062
_WORK_ADDED = "panda_work_added"
_RESET = None  # every use ends in COMMIT or ROLLBACK: a further ROLLBACK by the pool would be one more round trip


class WorkNews:
    """Which kinds of background work this process has added and not looked for yet."""

    def __init__(self) -> None:
        self.bell = threading.Event()
        self._lock = threading.Lock()
        self._kinds: set[str] = set()

    def tell(self, kinds: Iterable[str]) -> None:
        """Ring after a commit that added work."""
        with self._lock:
            self._kinds.update(kinds)
        self.bell.set()

    def hear(self) -> set[str]:
        """Take what was told since the last time."""
        with self._lock:
            kinds, self._kinds = self._kinds, set()
        return kinds


class Database:
    """Pools of connections: for writes, for reads, and for reads that another server may answer which lags behind."""

    def __init__(self, write_url: str, read_url: str | None = None) -> None:
        self.writer = _engine(write_url, begin="BEGIN IMMEDIATE")
        self.reader = _engine(write_url, begin="BEGIN", isolation="REPEATABLE READ")
        self.replica = _engine(read_url, begin="BEGIN", isolation="REPEATABLE READ") if read_url else self.reader
        self._replica_rests_until = 0.0  # by the monotonic clock
        self.news = WorkNews()

    def run(self, work: Work[T]) -> T:
        """Run `work` in one transaction; on deadlock or lock wait the whole of it, COMMIT included, runs again.

        So nothing outside the database may happen in `work`.
        """
        return self._retry(self._write_once, work)

    def read(self, work: Work[T]) -> T:
        """Run `work`, which only reads: it sees all that was committed before, and all of it as of one moment."""
        return self._retry(self._read_once, work)

    def read_replica(self, work: Work[T]) -> T:
        """Run `work`, which only reads, on a replica where there is one: it may not know yet what was just committed.

        For what people and scripts look at; nothing may be decided by it. A replica that does not answer is left alone
        for a while, and what is asked meanwhile is read where things are written.
        """
        if self.replica is not self.reader and time.monotonic() >= self._replica_rests_until:
            try:
                return self._read_replica_once(work)
            except DBAPIError as error:
                log.warning("the replica is not asked for %d s, it said: %s", REPLICA_RESTS_S, error.orig)
                self._replica_rests_until = time.monotonic() + REPLICA_RESTS_S
        return self.read(work)

    def close(self) -> None:
        """Close all idle connections."""
        self.writer.dispose()
        self.reader.dispose()
        self.replica.dispose()

    def _retry(self, once: Callable[[Work[T]], T], work: Work[T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return once(work)
            except DBAPIError as error:
                if attempt == ATTEMPTS or not worth_retrying(error):
                    raise
                log.info("transaction runs again after %s (attempt %d)", error.orig, attempt)
                time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)))
        raise AssertionError("not reached")

    def _write_once(self, work: Work[T]) -> T:
        with self.writer.connect() as connection:
            result = _in_transaction(connection, work)
            if kinds := connection.info.pop(_WORK_ADDED, ()):
                self.news.tell(kinds)
            return result

    def _read_once(self, work: Work[T]) -> T:
        with self.reader.connect() as connection, connection.begin():
            return work(connection)

    def _read_replica_once(self, work: Work[T]) -> T:
        with self.replica.connect() as connection, connection.begin():
            return work(connection)


def _in_transaction(connection: Connection, work: Work[T]) -> T:
    """Run work and commit; a connection lost during the commit leaves open whether it was done: not to be done again.

    Raises:
        UncertainCommit: ask the database, or repeat a request that may come twice.
    """
    committing = False
    try:
        with connection.begin():
            result = work(connection)
            committing = True
    except DBAPIError as error:
        if committing and is_gone(error):
            raise UncertainCommit(f"the database went away during a commit: {error.orig}") from error
        _clean(connection)
        raise
    return result


def _clean(connection: Connection) -> None:
    """Leave no transaction open after a failure: a COMMIT that is refused does not end it, and the pool does not."""
    try:
        if not connection.invalidated:
            connection.connection.rollback()
    except connection.dialect.loaded_dbapi.Error as error:
        connection.invalidate(error)


def note_work_added(connection: Connection, kinds: Iterable[str]) -> None:
    """Tell the background threads of this process of new work of these kinds when the transaction commits."""
    connection.info.setdefault(_WORK_ADDED, set()).update(kinds)


def worth_retrying(error: DBAPIError) -> bool:
    """Say whether running the transaction again may help.

    Duplicates are among the reasons: of two equal requests at the same moment one inserts first, and the other, run
    again, finds what that one did.
    """
    duplicate = isinstance(error, IntegrityError) and (_code(error) == _MYSQL_DUPLICATE or "UNIQUE" in str(error.orig))
    return duplicate or is_gone(error) or _code(error) in MYSQL_RETRY or "database is locked" in str(error.orig)


def is_gone(error: DBAPIError) -> bool:
    """Say whether the connection was lost."""
    return error.connection_invalidated or _code(error) in MYSQL_GONE


def _code(error: DBAPIError) -> object:
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def _engine(url: str, *, begin: str, isolation: IsolationLevel = "READ COMMITTED") -> Engine:
    try:
        return _new_engine(sa.make_url(url), begin=begin, isolation=isolation)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        text = f"[database]: no such kind of database: {error}; say sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST/NAME"
        raise ConfigError(text, field="database") from error


def _new_engine(parsed: sa.URL, *, begin: str, isolation: IsolationLevel) -> Engine:
    if parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            parsed,
            connect_args={"check_same_thread": False, "timeout": 30},
            pool_size=20,
            pool_reset_on_return=_RESET,
        )
        _prepare_sqlite(engine, begin)
        return engine
    return sa.create_engine(
        parsed,
        isolation_level=isolation,
        pool_size=20,
        max_overflow=20,
        pool_recycle=1800,
        pool_reset_on_return=_RESET,
        connect_args={
            "conv": _CONVERSIONS,
            "init_command": "SET SESSION sql_mode='TRADITIONAL', time_zone='+00:00'",
            "charset": "utf8mb4",
        },
    )


def _escape_moment(moment: datetime, _mapping: object = None) -> str:
    return f"'{moment.isoformat(' ')}'"


# Python's own reading and writing of moments instead of the driver's, which costs as much as all other columns.
_CONVERSIONS = converters.conversions | {FIELD_TYPE.DATETIME: datetime.fromisoformat, datetime: _escape_moment}


def _prepare_sqlite(engine: Engine, begin: str) -> None:
    """Make SQLite durable and let readers and one writer work side by side; writers queue at BEGIN, not midway."""

    @event.listens_for(engine, "connect")
    def _connect(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def upsert(
    connection: Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    update: Mapping[str, Any] | Sequence[str],
) -> None:
    """Insert rows; where the primary or unique key exists, update: columns from the new row, or given expressions."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        statement = sqlite.insert(table)
        values = update if isinstance(update, Mapping) else {c: statement.excluded[c] for c in update}
        final = statement.on_conflict_do_update(set_=dict(values)) if values else statement.on_conflict_do_nothing()
        connection.execute(final, [dict(r) for r in rows])
        return
    mine = mysql.insert(table)
    values = update if isinstance(update, Mapping) else {c: mine.inserted[c] for c in update}
    first = table.primary_key.columns.values()[0]
    # without columns to update, assigning the key to itself keeps errors other than duplicates alive (IGNORE would not)
    final_mine = mine.on_duplicate_key_update(dict(values) or {first.name: first})
    if isinstance(update, Mapping) and update:
        for row in rows:  # PyMySQL cannot send the parameters of expressions together with many rows
            connection.execute(final_mine, dict(row))
        return
    connection.execute(final_mine, [dict(r) for r in rows])
