"""Where pilots wait: a request that finds no job is parked until one is activated for its queue.

A parked request is a thread that sleeps; it holds no database connection. One thread per process looks for all of them
whether there are new jobs, and wakes as many as there are. Where somebody was woken and found that the job is not for
it, the next one may try; how often that happens is limited, for jobs that are for nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pandaserver.jobdispatcher.comeback import Comebacks

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_S = 0.2  # what this process activates itself it hears of at once
_LEAST_PAUSE_S = 0.02  # between two looks, however often there is news
_TROUBLE_S = 1.0
_EXTRA_TRIES, _MOST_EXTRA_TRIES = 2, 20  # by those next in line: more of them with each look, and at once


class Signs(Protocol):
    """What can be seen of queues without taking anything."""

    def activations(self, queues: Collection[str]) -> Mapping[str, int]:
        """Tell how many jobs have been activated for each queue since ever."""

    def with_jobs(self, queues: Collection[str]) -> Collection[str]:
        """Tell in which of the queues jobs wait now."""


class LotFull(Exception):
    """No more requests can be parked in this process, now; whoever asked shall come back after some seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"no place to wait, come back in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Wait:
    """How long a request may be parked; one that comes again under its key takes the place of the one before."""

    seconds: float
    key: str = ""
    still_there: Callable[[], bool] = lambda: True


@dataclass(eq=False)
class _Waiter:
    """A parked request; `heard` counts the news of its queue up to its last try."""

    key: str
    heard: int
    bell: threading.Event = field(default_factory=threading.Event)
    asleep: bool = False
    woken: bool = False  # for a job, and has not got one yet
    last_try: bool = False
    heir: _Waiter | None = None  # the same request, come again

    def wake(self) -> None:
        self.asleep, self.woken = False, True
        self.bell.set()


@dataclass(eq=False)
class _Room:
    """Those who wait for jobs of one queue, in the order in which they came."""

    waiters: list[_Waiter] = field(default_factory=list)
    activations: int | None = None  # as last seen, since somebody waits here
    news: int = 0
    owed: int = 0  # tries for which somebody was woken in vain
    unwanted: bool = False  # there may be jobs that nobody took who was woken

    @property
    def curious(self) -> bool:
        """Say whether it matters that jobs wait which are not new."""
        return self.activations is None or self.owed > 0

    def wake(self, most: int) -> int:
        """Wake some that have not tried since the last news; tell how many."""
        chosen = [w for w in self.waiters if w.asleep and w.heard < self.news][:most]
        for waiter in chosen:
            waiter.wake()
        return len(chosen)

    def was_in_vain(self, waiter: _Waiter) -> None:
        """Note that the next one may try in the place of somebody who was woken."""
        waiter.woken = False
        self.owed += 1
        self.unwanted = True

    def hear(self, activations: int, *, jobs_wait: bool) -> None:
        """Take in what was seen, and wake as many as there are new jobs."""
        if self.activations is None:  # what came before the first look may have come after a waiter's try
            new = len(self.waiters) if jobs_wait else 0
        else:
            new = activations - self.activations
        if self.curious and not jobs_wait:
            self.owed, self.unwanted = 0, False
        self.activations = activations
        if new > 0:
            self.news += 1
            self.wake(new)


class ParkingLot:
    """The waiting requests of this process, at most so many."""

    def __init__(self, signs: Signs, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._signs, self._most, self._clock = signs, most, clock
        self._lock = threading.Lock()
        self._rooms: dict[str, _Room] = {}
        self._parked, self._extra_tries = 0, _MOST_EXTRA_TRIES
        self._comebacks = Comebacks(clock=clock)
        self._occupied, self._soon, self._stopping = threading.Event(), threading.Event(), threading.Event()

    def start(self) -> None:
        """Look for new jobs, in the background."""
        threading.Thread(target=self._loop, name="parking", daemon=True).start()

    def stop(self) -> None:
        """Send everybody away empty-handed, and park nobody any more."""
        self._stopping.set()
        self._occupied.set()
        with self._lock:
            for room in self._rooms.values():
                for waiter in room.waiters:
                    waiter.bell.set()

    def look_soon(self) -> None:
        """Hear that this process may have activated jobs."""
        if self._occupied.is_set():
            self._soon.set()

    @property
    def parked(self) -> int:
        """Tell how many requests are parked."""
        return self._parked

    def wait_for(self, queue: str, attempt: Callable[[], Sequence[T]], wait: Wait) -> Sequence[T]:
        """Try, and try again whenever there is a new job, until something is found or the time is over.

        Raises:
            LotFull: nothing is found now, and there is no place to wait.
        """
        heard = self._news_of(queue)  # before the try: what comes while it is being made counts as news
        found = attempt()
        if found or wait.seconds <= 0:
            return found
        end = self._clock() + wait.seconds
        waiter = _Waiter(wait.key, heard)
        room = self._enter(queue, waiter)
        try:
            while not found and self._sleep(room, waiter, end) and wait.still_there():
                found = attempt()
        finally:
            self._leave(room, waiter, served=bool(found))
        return found

    def look(self) -> None:
        """See which jobs are new in the queues that somebody waits for."""
        with self._lock:
            self._extra_tries = min(self._extra_tries + _EXTRA_TRIES, _MOST_EXTRA_TRIES)
            rooms = {queue: room for queue, room in self._rooms.items() if room.waiters}
            curious = [queue for queue, room in rooms.items() if room.curious]
        activations = self._signs.activations(list(rooms)) if rooms else {}
        with_jobs = self._signs.with_jobs(curious) if curious else ()
        with self._lock:
            for queue, room in rooms.items():
                if room.waiters:
                    room.hear(activations.get(queue, 0), jobs_wait=queue in with_jobs)
                    self._let_next_try(room)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._occupied.wait()
            self._soon.wait(LOOK_S)
            self._soon.clear()
            try:
                self.look()
            except Exception:
                log.exception("cannot see whether there are new jobs, trying again")
                self._stopping.wait(_TROUBLE_S)
            self._stopping.wait(_LEAST_PAUSE_S)

    def _news_of(self, queue: str) -> int:
        with self._lock:
            return self._rooms[queue].news if queue in self._rooms else 0

    def _enter(self, queue: str, waiter: _Waiter) -> _Room:
        with self._lock:
            room = self._rooms.setdefault(queue, _Room())
            for before in room.waiters:
                if waiter.key and before.key == waiter.key and before.heir is None:
                    self._dismiss(before, waiter)
            if self._parked >= self._most or self._stopping.is_set():
                raise LotFull(self._comebacks.promise())
            room.waiters.append(waiter)
            self._parked += 1
            self._occupied.set()
        return room

    def _dismiss(self, before: _Waiter, heir: _Waiter) -> None:
        before.heir = heir
        before.bell.set()
        self._parked -= 1

    def _sleep(self, room: _Room, waiter: _Waiter, end: float) -> bool:
        """Sleep until there is a reason to try; False when there is none any more."""
        with self._lock:
            if waiter.woken:
                room.was_in_vain(waiter)
            if waiter.last_try or waiter.heir or self._stopping.is_set():
                return False
            if waiter.heard < room.news:
                waiter.heard = room.news
                return True
            waiter.bell.clear()
            waiter.asleep = True
        waiter.bell.wait(max(0.0, end - self._clock()))
        with self._lock:
            waiter.asleep = False
            waiter.heard = room.news
            if waiter.woken:
                return True
            waiter.last_try = True
            return room.unwanted and not waiter.heir and not self._stopping.is_set()

    def _leave(self, room: _Room, waiter: _Waiter, *, served: bool) -> None:
        with self._lock:
            room.waiters.remove(waiter)
            if waiter.heir is None:
                self._parked -= 1
            elif served and waiter.heir.asleep:
                waiter.heir.wake()  # the answer to its request is there
            if waiter.woken and not served:
                room.was_in_vain(waiter)
            if not room.waiters:
                room.activations, room.owed, room.unwanted = None, 0, False
            if not any(room.waiters for room in self._rooms.values()) and not self._stopping.is_set():
                self._occupied.clear()

    def _let_next_try(self, room: _Room) -> None:
        allowed = min(room.owed, self._extra_tries)
        woken = room.wake(allowed)
        self._extra_tries -= woken
        room.owed = room.owed - woken if woken == allowed else 0
