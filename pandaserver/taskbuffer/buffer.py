"""What every verb of the server works on: the database, and the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy.engine import Connection

from pandaserver.taskbuffer.clock import Clock, utc_now
from pandaserver.taskbuffer.database import Database

T = TypeVar("T")


@dataclass(frozen=True)
class TaskBuffer:
    """The queue of the server: one transaction per verb."""

    database: Database
    clock: Clock = utc_now

    def now(self) -> datetime:
        """Tell the time, aware UTC."""
        return self.clock()

    @property
    def has_replica(self) -> bool:
        """Say whether there is a database that lags behind."""
        return self.database.replica is not self.database.reader

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction; it may be run twice, so it does nothing outside the database."""
        return self.database.run(work)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads: it sees all that was committed before, and all of it as of one moment."""
        return self.database.read(work)

    def read_replica(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads and decides nothing, where it may see what was true a while ago."""
        return self.database.read_replica(work)
