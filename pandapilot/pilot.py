"""The pilot's life: ask for a job, have it run, ask for the next, until time, jobs or patience are used up."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from pandapilot import host
from pandapilot.clock import delays, pause
from pandapilot.codes import ExitCode
from pandapilot.failures import CannotWork, NotAuthorised, ServerRefused, ServerUnreachable, TlsFailed
from pandapilot.jobs import InvalidJob, Job, job_from_wire
from pandapilot.queues import endpoints_from_wire, queue_from_wire
from pandapilot.runner import JobRunner, Site, Tools
from pandapilot.server import JobAnswer
from pandapilot.states import Outcome, Phase, next_phase
from pandapilot.text import printable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def load_site(tools: Tools) -> Site:
    """Read the data of the queue and of the storage around it."""
    server, name = tools.server, tools.settings.queue
    return Site(
        queue=queue_from_wire(name, server.queue_data(name)),
        endpoints=endpoints_from_wire(server.storage_data()),
    )


class Pilot:
    """Takes jobs from one queue of one server."""

    def __init__(self, tools: Tools) -> None:
        """Start with no job done."""
        self._tools = tools
        self._settings = tools.settings
        self._clock = tools.clock
        self._jobs = 0

    def run(self) -> None:
        """Work until there is nothing more to do; raises CannotWork where nothing can be done."""
        site = self.first_site()
        phase = Phase.GET_JOB
        while phase is not Phase.END:
            asked, job = self._next_job()
            phase = next_phase(phase, Outcome.OK if job else Outcome.NO_JOB)
            if job:
                phase = self._work(JobRunner(job, self._tools, site=site, asked=asked))
                site = self._present_site(site)

    def first_site(self) -> Site:
        """Read queue and storage data at the start, with patience for a server that is just coming up."""
        site = self._answered(lambda: load_site(self._tools), patience_s=self._settings.idle_s)
        if site.queue.offline:
            raise CannotWork(ExitCode.QUEUE_OFFLINE, f"queue {site.queue.name} is offline")
        return site

    def _present_site(self, site: Site) -> Site:
        """Read queue and storage data anew; without an answer the old ones stay good."""
        try:
            return load_site(self._tools)
        except (ServerUnreachable, ServerRefused) as error:
            logger.warning("queue data not read anew: %s", error)
            return site

    def _next_job(self) -> tuple[float, Job | None]:
        """Ask until there is a job or no use in asking; also tell when the answered question was first put."""
        patient_until = self._clock.now() + self._settings.idle_s
        while self._may_take_job():
            asked = self._clock.now()
            wait_s = int(min(self._settings.wait_s, patient_until - asked, self._remaining_s()))
            request = self._request() | ({"wait": wait_s} if wait_s > 0 else {})
            answer = self._answered(partial(self._ask, request), patience_s=self._settings.final_update_s)
            if answer.job:
                return asked, self._accept(answer.job)
            pause_s = self._pause_s(answer, asked)
            if self._clock.now() + pause_s > patient_until:
                logger.info("no job for queue %s", self._settings.queue)
                break
            pause(self._clock, pause_s, self._tools.signals.check)
        return self._clock.now(), None

    def _ask(self, request: dict[str, Any]) -> JobAnswer:
        waiting = self._tools.signals.ending_the_wait() if "wait" in request else nullcontext()
        with waiting:
            return self._tools.server.get_job(request)

    def _pause_s(self, answer: JobAnswer, asked: float) -> float:
        """Tell when to ask again: as the server says, or in the usual time, of which its waiting was a part."""
        if answer.retry_after_s is not None:
            return answer.retry_after_s
        return max(0.0, asked + self._settings.poll_interval_s - self._clock.now())

    def _may_take_job(self) -> bool:
        enough = self._settings.max_jobs and self._jobs >= self._settings.max_jobs
        return not enough and self._remaining_s() > 0 and self._tools.signals.received is None

    def _remaining_s(self) -> float:
        return self._tools.deadline - self._settings.reserve_s - self._clock.now()

    def _request(self) -> dict[str, Any]:
        """Describe this pilot; the requestId makes repeating the question harmless."""
        sender = self._tools.sender
        request = {
            "siteName": self._settings.queue,
            "computingElement": self._settings.queue,
            "node": sender.node,
            "mem": host.memory_mb(),
            "diskSpace": host.free_disk_mb(self._tools.directory),
            "schedulerID": sender.scheduler_id,
            "pilotID": sender.pilot_id,
            "requestId": str(uuid.uuid4()),
            "remainingTime": int(self._remaining_s()),
        }
        return {**request, "prodSourceLabel": self._settings.label} if self._settings.label else request

    def _accept(self, wire: dict[str, Any]) -> Job:
        self._jobs += 1
        self._tools.log.begin_job(str(wire.get("jobToken") or ""))
        try:
            job = job_from_wire(wire)
        except InvalidJob as error:
            raise CannotWork(ExitCode.BAD_ANSWER, str(error)) from error
        logger.info("job %d, attempt %d: %s", job.job_id, job.attempt_nr, printable(job.transformation))
        return job

    def _work(self, runner: JobRunner) -> Phase:
        """Have a job run; whatever goes wrong inside the pilot, the job is reported."""
        try:
            runner.run()
        except Exception as error:
            logger.exception("unexpected error")
            runner.give_up(f"unexpected error in the pilot: {error!r}")
        return Phase.GET_JOB

    def _answered(self, call: Callable[[], Result], *, patience_s: float) -> Result:
        """Repeat a call until the server answers it; raises CannotWork where it will not, or not in time."""
        end = self._clock.now() + patience_s
        for delay_s in delays():
            try:
                return call()
            except ServerRefused as error:
                raise CannotWork(_exit_code(error), str(error)) from error
            except ServerUnreachable as error:
                if self._clock.now() + delay_s > end or (isinstance(error, TlsFailed) and error.certain):
                    raise CannotWork(_exit_code(error), str(error)) from error
                logger.warning("%s; trying again", error)
            pause(self._clock, delay_s, self._tools.signals.check)
        raise AssertionError("unreachable: the delays have no end")


def _exit_code(error: ServerUnreachable | ServerRefused) -> ExitCode:
    if isinstance(error, ServerUnreachable):
        return ExitCode.TLS_FAILED if isinstance(error, TlsFailed) else ExitCode.SERVER_UNREACHABLE
    if isinstance(error, NotAuthorised):
        return ExitCode.NOT_AUTHORISED
    return ExitCode.QUEUE_UNKNOWN if error.status == 404 else ExitCode.BAD_ANSWER
