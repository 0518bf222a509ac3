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

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction; it may be run twice, so it does nothing outside the database."""
        return self.database.run(work)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads."""
        return self.database.read(work)
