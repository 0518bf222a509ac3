"""The two calls of a pilot's life: get a job, tell what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

from pandaserver.errors import PandaError
from pandaserver.jobdispatcher.claims import Claim, Claims
from pandaserver.jobdispatcher.combiner import Combiner
from pandaserver.jobdispatcher.holders import Held, held
from pandaserver.jobdispatcher.meter import ActivityMeter
from pandaserver.jobdispatcher.policy import DispatchPolicy
from pandaserver.jobdispatcher.words import take_words
from pandaserver.model.attempt import ClaimRequest, PilotReport
from pandaserver.model.job import PlacedJob
from pandaserver.model.share import Shares
from pandaserver.taskbuffer.buffer import TaskBuffer

NO_SHARES = Shares()


class Dispatcher:
    """JobDispatcher over a TaskBuffer; calls that wait at the same moment share a transaction."""

    def __init__(self, buffer: TaskBuffer, policy: DispatchPolicy, shares: Shares = NO_SHARES) -> None:
        self.buffer, self.policy = buffer, policy
        self.meter = ActivityMeter(buffer)
        claims = Claims(buffer.now, policy, shares)
        self._claims = Combiner[ClaimRequest, Claim | None | PandaError](
            lambda requests: buffer.run(lambda c: claims.answer(c, requests))
        )
        self._words = Combiner[PilotReport, PlacedJob | PandaError](
            lambda reports: buffer.run(lambda c: take_words(c, reports, now=buffer.now(), lease_s=policy.lease_s))
        )

    def get_jobs(self, requests: Sequence[ClaimRequest]) -> list[Claim | None]:
        """Give each request a job or nothing, all in one transaction; a request repeated gets its job again.

        Raises:
            NotFound: there is no such queue; nothing is given.
        """
        claims = []
        for request, claim in zip(requests, self._claims.ask(requests), strict=True):
            if isinstance(claim, PandaError):
                raise claim
            self.meter.note(request.queue, "requests")
            if claim is not None:
                self.meter.note(request.queue, "jobs")
            claims.append(claim)
        self.meter.write_due()
        return claims

    def update_jobs(self, reports: Sequence[PilotReport]) -> list[str | PandaError | None]:
        """Take the words of pilots, all in one transaction; give the command for each, None mostly.

        A word that is refused changes nothing, and its answer is the error: NotFound where there is no such job,
        StaleAttempt where the attempt is over or was never this pilot's, Conflict where it contradicts an earlier one.
        """
        answers = self._words.ask(reports)
        for answer in answers:
            if isinstance(answer, PlacedJob):
                self.meter.note(answer.site or "", "updates")
        self.meter.write_due()
        return [answer.command if isinstance(answer, PlacedJob) else answer for answer in answers]

    def held_by(self, job_id: int, token: str) -> Held:
        """Find the job whose live attempt a token belongs to.

        Raises:
            NotAllowed: it belongs to none.
        """
        return self.buffer.run(lambda c: held(c, job_id, token))
