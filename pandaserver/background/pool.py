"""A pool of threads that does what the work queue holds; a killed pool's work is taken over by any other.

What is due of one kind is taken and done together, since a hundred pieces cost little more than one. Each kind has
threads of its own, so that a flood of one kind holds up no other.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from pandaserver import log as logs
from pandaserver.background.pace import Measure, Pace
from pandaserver.taskbuffer import work
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.work import WorkItem

log = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_S = 0.5  # how late work committed by another process may be noticed
_BREATH_S = 0.1  # between two looks at the queue, however much news there is
_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 300.0
_RENEWED_AT_ONCE = 1000

Bunch = Sequence[WorkItem]  # of one kind, done together


@dataclass(frozen=True)
class Handler:
    """How one kind of work is done, and what happens when it never succeeds.

    `run` does all of a bunch or raises. Then the bunch is done again in two halves, and so on, down to the one piece
    that cannot be done: it alone has failed. So what was done before must be no trouble when it comes again.
    """

    run: Callable[[Bunch], None]
    give_up: Callable[[WorkItem, str], None] | None = None
    measure: Measure = field(default_factory=Measure)


def one_by_one(act: Callable[[WorkItem], None]) -> Callable[[Bunch], None]:
    """Make what does a bunch of what does a single piece."""

    def run(bunch: Bunch) -> None:
        for item in bunch:
            act(item)

    return run


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
        threads: int,  # for each kind of work
        lease_s: float,
        give_up_after_s: float,
    ) -> None:
        self._buffer, self._handlers = buffer, handlers
        self._lease_s, self._give_up_after = lease_s, timedelta(seconds=give_up_after_s)
        self._paces = {kind: Pace(handler.measure, threads) for kind, handler in handlers.items()}
        self._most_threads = threads * max(1, len(handlers))
        self._owner = new_owner()
        self._stopping = threading.Event()
        self._news = buffer.database.news
        self._wake = self._news.bell
        self._fresh: set[str] = set()  # kinds of which there may be work; the others are looked at with each poll
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
        """Do everything that is due now, here and without pauses; for tests and tools."""
        count = 0
        while count < limit and (bunches := self._claim(dict.fromkeys(self._handlers, limit - count))):
            for bunch in bunches:
                self._do(bunch)
                count += len(bunch)
        return count

    # --- taking

    def _loop(self) -> None:
        with ThreadPoolExecutor(self._most_threads, thread_name_prefix="work") as executor:
            renew_at = poll_at = 0.0
            while not self._stopping.is_set():
                self._wake.clear()
                self._fresh |= self._news.hear()
                if time.monotonic() >= poll_at:
                    poll_at = time.monotonic() + _POLL_S
                    self._fresh |= self._handlers.keys()
                try:
                    self._begin(executor)
                    if time.monotonic() >= renew_at:
                        renew_at = time.monotonic() + self._lease_s / 3
                        self._renew()
                except Exception:
                    log.exception("the work queue cannot be read, trying again")
                    self._stopping.wait(_POLL_S)
                self._stopping.wait(_BREATH_S)
                self._wake.wait(self._patience_s())

    def _begin(self, executor: ThreadPoolExecutor) -> None:
        now_s = time.monotonic()
        with self._lock:
            rooms = {kind: self._paces[kind].room(now_s) for kind in self._fresh}
        wanted = {kind: room for kind, room in rooms.items() if room > 0}
        self._fresh -= wanted.keys()
        for bunch in self._claim(wanted):
            with self._lock:
                more = self._paces[bunch[0].kind].begun(len(bunch), now_s)
            executor.submit(self._do_timed, bunch)
            if more:
                self._news.tell([bunch[0].kind])

    def _patience_s(self) -> float:
        """Say how long nobody needs to look, if there is no news: until the next poll, or the end of a pause."""
        now_s = time.monotonic()
        with self._lock:
            pauses = [pace.pause_left_s(now_s) for pace in self._paces.values()]
        return min([_POLL_S, *(left_s for left_s in pauses if left_s)])

    def _claim(self, wanted: Mapping[str, int]) -> list[Bunch]:
        """Take what is due, up to so many pieces of each kind."""
        now = self._buffer.now()
        asked = [kind for kind, most in wanted.items() if most > 0]
        due = self._buffer.read(lambda c: work.due(c, asked)) if asked else {}
        ready = [kind for kind in sorted(due, key=lambda kind: due[kind]) if due[kind] <= now]

        def claim(connection: Connection) -> list[WorkItem]:
            taken = list[WorkItem]()
            for kind in ready:
                taken += work.claim(connection, self._owner, wanted[kind], now=now, lease_s=self._lease_s, kind=kind)
            return taken

        items = self._buffer.run(claim) if ready else []
        with self._lock:
            self._held |= {item.work_id for item in items}
        return list(self._bunches(items))

    def _bunches(self, items: Sequence[WorkItem]) -> Iterator[Bunch]:
        """Put together what is done together; what has failed before shall not hold up what is new."""
        together: dict[tuple[str, bool], list[WorkItem]] = defaultdict(list)
        for item in items:
            together[item.kind, item.tries > 0].append(item)
        for (kind, _), members in together.items():
            yield from _parts(members, self._handlers[kind].measure.at_once)

    def _renew(self) -> None:
        with self._lock:
            held = sorted(self._held)
        now = self._buffer.now()

        def renew(connection: Connection) -> None:
            for part in _parts(held, _RENEWED_AT_ONCE):
                work.renew(connection, self._owner, part, now=now, lease_s=self._lease_s)

        if held:
            self._buffer.run(renew)

    # --- doing

    def _do_timed(self, bunch: Bunch) -> None:
        begun_s = time.monotonic()
        try:
            self._do(bunch)
        finally:
            with self._lock:
                self._paces[bunch[0].kind].ended(len(bunch), time.monotonic() - begun_s)
            self._news.tell([bunch[0].kind])

    def _do(self, bunch: Bunch) -> None:
        first, more = bunch[0], f" and {len(bunch) - 1} more" if len(bunch) > 1 else ""
        try:
            with logs.context(f"{first.kind} {first.key}{more}"):
                self._work_off(bunch)
        finally:
            with self._lock:
                self._held -= {item.work_id for item in bunch}

    def _work_off(self, bunch: Bunch) -> None:
        try:
            self._handlers[bunch[0].kind].run(bunch)
            self._buffer.run(lambda c: work.done(c, bunch, now=self._buffer.now()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the work is not lost, and it is logged there
            if len(bunch) == 1:
                self._failed(bunch[0], error)
                return
            log.info("%d pieces fail together, so they are done in two halves: %s", len(bunch), error)
            for half in _parts(bunch, (len(bunch) + 1) // 2):
                if not self._stopping.is_set():
                    self._work_off(half)

    def _failed(self, item: WorkItem, error: Exception) -> None:
        now = self._buffer.now()
        handler = self._handlers[item.kind]
        too_long = item.first_tried_at is not None and now - item.first_tried_at > self._give_up_after
        try:
            if too_long and handler.give_up is not None:
                log.error("given up after %d tries: %s", item.tries + 1, error)
                handler.give_up(item, str(error))
                self._buffer.run(lambda c: work.done(c, [item], now=now))
                return
            delay = min(_FIRST_DELAY_S * 2**item.tries, _LONGEST_DELAY_S)
            log.warning("try %d failed, again in %.0f s: %s", item.tries + 1, delay, error, exc_info=error)
            self._buffer.run(lambda c: work.postpone(c, item, now=now, delay_s=delay, error=str(error)))
        except Exception:
            log.exception("work cannot be given back; its lease will end")


def _parts(whole: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(whole), size):
        yield whole[begin : begin + size]
