"""Which job a pilot gets: lanes are chosen in memory by fair share, jobs are taken in the database.

What this process remembers of a queue's lanes is a few seconds old and serves to choose well: in a lane the order is
exact, among lanes it is that of the priorities last seen. That there is no job is only ever said after a look at the
database in the same transaction.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.lane import Lane, may_fit, surely_fits
from pandaserver.model.share import Shares, Standing
from pandaserver.taskbuffer import lanes
from pandaserver.taskbuffer.attempts import Taken
from pandaserver.taskbuffer.database import Connection

_Plan = dict[tuple[int, ClaimRequest], tuple[Lane, list[int]]]  # from which lane to take for which requests

REMEMBER_S = 3.0  # others take from the same lanes meanwhile, and pilots end


@dataclass
class _View:
    """What is known of one queue."""

    waiting: dict[int, Lane]
    standing: Standing
    until: float
    fitting: dict[ClaimRequest, list[Lane]] = field(default_factory=dict)  # pilots of a queue want mostly the same

    def best(self, wish: ClaimRequest) -> Lane | None:
        """Choose among the lanes that may hold a job for it."""
        if wish not in self.fitting:
            self.fitting[wish] = [lane for lane in self.waiting.values() if may_fit(lane.key, wish)]
        return self.standing.best(self.fitting[wish])

    def add(self, seen: Iterable[Lane]) -> None:
        """Take in lanes in which jobs were seen."""
        self.waiting |= {lane.lane_id: lane for lane in seen}
        self.fitting.clear()

    def drop(self, lane: Lane, wish: ClaimRequest) -> None:
        """Forget a lane that had too little for a wish: for that wish, or for all if it is empty."""
        empty = surely_fits(lane.key, wish)
        if empty:
            self.waiting.pop(lane.lane_id, None)
        for fitting in self.fitting.values() if empty else [self.fitting.get(wish, [])]:
            if lane in fitting:
                fitting.remove(lane)


class Matchmaker:
    """Matches requests of pilots with jobs; for one thread at a time."""

    def __init__(self, shares: Shares, clock: Callable[[], float] = time.monotonic) -> None:
        self._shares, self._clock = shares, clock
        self._views: dict[str, _View] = {}

    def match(self, connection: Connection, requests: Sequence[ClaimRequest]) -> list[Taken | None]:
        """Take a job for each request, in their order; None where at this moment there is none."""
        return _Matching(self, connection, requests).run()

    def views(self, connection: Connection, queues: set[str]) -> dict[str, _View]:
        """Remember the lanes of queues, or look at them."""
        now = self._clock()
        old = {name for name in queues if name not in self._views or self._views[name].until <= now}
        if old:
            for name, seen in lanes.look(connection, old).items():
                standing = self._shares.standing(seen.everything)
                self._views[name] = _View(seen.waiting, standing, now + REMEMBER_S)
        return {name: self._views[name] for name in queues}


class _Matching:
    """One round of matching: requests are given lanes, then the lanes are taken from, until all is decided."""

    def __init__(self, maker: Matchmaker, connection: Connection, requests: Sequence[ClaimRequest]) -> None:
        self._connection, self._requests = connection, requests
        self._views = maker.views(connection, {request.queue for request in requests})
        self._found: list[Taken | None] = [None] * len(requests)
        self._looked: set[ClaimRequest] = set()
        self._taken: defaultdict[int, set[int]] = defaultdict(set)  # lane -> jobs

    def run(self) -> list[Taken | None]:
        undecided = list(range(len(self._requests)))
        while undecided:
            plan, to_look = self._plan(undecided)
            undecided = to_look
            for (_, wish), (lane, places) in plan.items():
                undecided += self._take(lane, wish, places)
            undecided.sort()
        return self._found

    def _plan(self, undecided: Sequence[int]) -> tuple[_Plan, list[int]]:
        """Choose a lane for each request; those for which none is known are told to look, once."""
        plan: _Plan = {}
        to_look = []
        for place in undecided:
            wish = _wish(self._requests[place])
            view = self._views[wish.queue]
            lane = view.best(wish)
            if lane is not None:
                view.standing.took(lane)
                plan.setdefault((lane.lane_id, wish), (lane, []))[1].append(place)
            elif wish not in self._looked:
                self._looked.add(wish)
                view.add(lanes.look_for(self._connection, wish))
                to_look.append(place)
        return plan, to_look

    def _take(self, lane: Lane, wish: ClaimRequest, places: Sequence[int]) -> list[int]:
        """Take jobs from a lane; give the requests for which it had none."""
        before = self._taken[lane.lane_id]
        jobs = lanes.take(self._connection, lane.lane_id, wish, len(places), but=before)
        for place, (job_id, priority) in zip(places, jobs, strict=False):
            self._found[place] = Taken(self._requests[place], job_id, lane.lane_id)
            before.add(job_id)
            lane.priority = priority
        if len(jobs) < len(places):
            self._views[wish.queue].drop(lane, wish)
        return list(places[len(jobs) :])


def _wish(request: ClaimRequest) -> ClaimRequest:
    """Give what a request is matched by: equal for pilots that want the same."""
    return replace(request, pilot="", node="", computing_element="", scheduler_id="", pilot_id="", request_id="")
