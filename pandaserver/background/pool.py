"""A pool of threads that does what the work queue holds; a killed pool's work is taken over by any other."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from pandaserver import log as logs
from pandaserver.taskbuffer import work
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.work import WorkItem

log = logging.getLogger(__name__)

_POLL_S = 0.5  # how late work committed by another process may be noticed
_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 300.0


@dataclass(frozen=True)
class Handler:
    """How one kind of work is done, and what happens when it never succeeds."""

    run: Callable[[WorkItem], None]
    give_up: Callable[[WorkItem, str], None] | None = None


def new_owner() -> str:
    """Make a name for a holder of leases that no other process has or had."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class WorkPool:
    """Claims due work under a lease, does it in threads, renews the leases of what takes long."""

    def __init__(
        self,
        buffer: TaskBuffer,
        handlers: Mapping[str, Handler],
        *,
        threads: int,
        lease_s: float,
        give_up_after_s: float,
    ) -> None:
        self._buffer, self._handlers, self._threads = buffer, handlers, threads
        self._lease_s, self._give_up_after = lease_s, timedelta(seconds=give_up_after_s)
        self._owner = new_owner()
        self._stopping = threading.Event()
        self._wake = buffer.database.work_added
        self._lock = threading.Lock()
        self._held: set[int] = set()

    def start(self) -> None:
        """Start in the background."""
        threading.Thread(target=self._loop, name="work", daemon=True).start()

    def stop(self) -> None:
        """Take no more work; what is being done ends or comes back by its lease."""
        self._stopping.set()
        self._wake.set()

    def run_all(self, limit: int = 1000) -> int:
        """Do everything that is due now, here; for tests and tools."""
        count = 0
        while count < limit and (items := self._claim(8)):
            for item in items:
                self._do(item)
            count += len(items)
        return count

    def _loop(self) -> None:
        with ThreadPoolExecutor(self._threads, thread_name_prefix="work") as executor:
            renew_at = 0.0
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    for item in self._claim(self._free()):
                        executor.submit(self._do, item)
                    if time.monotonic() >= renew_at:
                        renew_at = time.monotonic() + self._lease_s / 3
                        self._renew()
                except Exception:
                    log.exception("the work queue cannot be read, trying again")
                    self._stopping.wait(_POLL_S)
                self._wake.wait(_POLL_S)

    def _free(self) -> int:
        with self._lock:
            return self._threads - len(self._held)

    def _claim(self, limit: int) -> list[WorkItem]:
        if limit <= 0:
            return []
        now = self._buffer.now()
        soonest = self._buffer.read(work.next_due)
        if soonest is None or soonest > now:
            return []
        items = self._buffer.run(lambda c: work.claim(c, self._owner, limit, now=now, lease_s=self._lease_s))
        with self._lock:
            self._held |= {item.work_id for item in items}
        return items

    def _renew(self) -> None:
        with self._lock:
            held = sorted(self._held)
        if held:
            now = self._buffer.now()
            self._buffer.run(lambda c: work.renew(c, self._owner, held, now=now, lease_s=self._lease_s))

    def _do(self, item: WorkItem) -> None:
        with logs.context(f"{item.kind} {item.key}"):
            try:
                self._handlers[item.kind].run(item)
                self._buffer.run(lambda c: work.done(c, item, now=self._buffer.now()))
            except Exception as error:  # noqa: BLE001 - whatever it is, the work is not lost, and it is logged there
                self._failed(item, error)
            finally:
                with self._lock:
                    self._held.discard(item.work_id)
                self._wake.set()

    def _failed(self, item: WorkItem, error: Exception) -> None:
        now = self._buffer.now()
        handler = self._handlers.get(item.kind)
        too_long = item.first_tried_at is not None and now - item.first_tried_at > self._give_up_after
        try:
            if too_long and handler is not None and handler.give_up is not None:
                log.error("given up after %d tries: %s", item.tries + 1, error)
                handler.give_up(item, str(error))
                self._buffer.run(lambda c: work.done(c, item, now=now))
                return
            delay = min(_FIRST_DELAY_S * 2**item.tries, _LONGEST_DELAY_S)
            log.warning("try %d failed, again in %.0f s: %s", item.tries + 1, delay, error, exc_info=error)
            self._buffer.run(lambda c: work.postpone(c, item, now=now, delay_s=delay, error=str(error)))
        except Exception:
            log.exception("work cannot be given back; its lease will end")
