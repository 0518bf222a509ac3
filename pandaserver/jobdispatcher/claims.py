"""Claims: which jobs requests get, and all that their pilots need to run them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pandaserver.dataservice import staging
from pandaserver.errors import NotFound, PandaError
from pandaserver.jobdispatcher.matching import Matchmaker
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.jobdispatcher.tokens import TOKEN_SECRET, job_token
from pandaserver.model.attempt import ClaimRequest
from pandaserver.model.file import File
from pandaserver.model.grid import Queue
from pandaserver.model.job import Job
from pandaserver.model.share import Shares
from pandaserver.taskbuffer import attempts, counters, files, jobs, topology
from pandaserver.taskbuffer.database import Connection


@dataclass(frozen=True)
class Claim:
    """A job for a pilot, with all it needs to run it."""

    job: Job
    files: tuple[File, ...]
    parameters: str
    attributes: dict[str, object]
    queue: Queue
    token: str
    lease_s: float
    output_suffix: str = ""  # outputs are stored beside their place, with this at the end of their names


class Claims:
    """Answers requests for jobs, several in one transaction; for one thread at a time."""

    def __init__(self, now: Callable[[], datetime], policy: DispatchPolicy, shares: Shares) -> None:
        self._now, self._policy = now, policy
        self._matchmaker = Matchmaker(shares)

    def answer(self, connection: Connection, requests: Sequence[ClaimRequest]) -> list[Claim | PandaError | None]:
        """Answer each request; one for a queue that is not there with the error."""
        queues = topology.load(connection).queues
        possible = [place for place, request in enumerate(requests) if request.queue in queues]
        closed = {requests[place].queue for place in possible if queues[requests[place].queue].is_closed}
        given = self._jobs_for(connection, [requests[place] for place in possible], closed)
        by_place = dict(zip(possible, given, strict=True))
        complete = self._complete(connection, {job.job_id: job for job in given if job is not None})
        answers: list[Claim | PandaError | None] = []
        for place, request in enumerate(requests):
            job = by_place.get(place)
            if request.queue not in queues:
                answers.append(_no_queue(request, queues))
            else:
                answers.append(None if job is None else complete(job, queues[request.queue]))
        return answers

    def _jobs_for(
        self, connection: Connection, requests: Sequence[ClaimRequest], closed: Collection[str]
    ) -> list[Job | None]:
        """Give each request its earlier job, or a new one, or nothing; a request that is there twice gets one job.

        At closed queues there are no new jobs.
        """
        earlier = attempts.claimed_by(connection, requests)
        found: list[Job | None] = [None] * len(requests)
        first: dict[object, int] = {}
        for place, request in enumerate(requests):
            before = earlier.get((request.pilot, request.request_id))
            if before is not None and before.job is not None:
                found[place] = before.job
            elif request.queue not in closed:
                first.setdefault((request.pilot, request.request_id) if request.request_id else place, place)
        new = [_unspent(requests[place], earlier) for place in first.values()]
        begun = dict(zip(first.values(), self._start(connection, new), strict=True))
        for place, request in enumerate(requests):
            source = first.get((request.pilot, request.request_id) if request.request_id else place)
            if source is not None:
                found[place] = begun[source]
        return found

    def _start(self, connection: Connection, requests: Sequence[ClaimRequest]) -> list[Job | None]:
        matched = self._matchmaker.match(connection, requests)
        taken = [one for one in matched if one is not None]
        begun = iter(attempts.start(connection, taken, now=self._now(), lease_s=self._policy.sent_lease_s))
        return [None if one is None else next(begun) for one in matched]

    def _complete(self, connection: Connection, given: Mapping[int, Job]) -> Callable[[Job, Queue], Claim]:
        """Load what belongs to jobs."""
        ids = sorted(given)
        orders, all_files = jobs.orders_of(connection, ids), files.of_jobs(connection, ids)
        secret = counters.secret(connection, TOKEN_SECRET) if ids else ""
        staged = staging.secret_of(connection) if ids and self._policy.stage_outputs else ""

        def complete(job: Job, queue: Queue) -> Claim:
            return Claim(
                job=job,
                files=all_files.get(job.job_id, ()),
                parameters=orders[job.job_id][0],
                attributes=orders[job.job_id][1],
                queue=queue,
                token=job_token(secret, job.job_id, job.attempt),
                lease_s=self._policy.lease_s,
                output_suffix=staging.suffix(staged, job.job_id, job.attempt) if staged else "",
            )

        return complete


def _unspent(request: ClaimRequest, earlier: Mapping[tuple[str, str], attempts.Earlier]) -> ClaimRequest:
    """Take away an id that a former attempt used up."""
    return replace(request, request_id="") if (request.pilot, request.request_id) in earlier else request


def _no_queue(request: ClaimRequest, queues: Mapping[str, Queue]) -> NotFound:
    text = f"there is no queue {request.queue}; known are {', '.join(sorted(queues))}"
    return NotFound(text, field="siteName", value=request.queue)
