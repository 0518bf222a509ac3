"""The work of a scheduler: look at server and batch system, decide, send; then again after the interval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

from schedulers.batch.protocol import LIVE, BatchId, BatchState, BatchSystem, PilotCounts, PilotStatus
from schedulers.breaker import Breaker, after
from schedulers.command import pilot_request
from schedulers.config import Config, QueueConfig
from schedulers.errors import BatchUnknown, PilotNotKnown, ServerUnknown
from schedulers.memory import Memory
from schedulers.policy import (
    BackOff,
    Decision,
    FillActivated,
    MaxPending,
    MaxRunning,
    MinPending,
    PerCycle,
    Policy,
    QueueFacts,
    QueueStatus,
    Unknown,
    decide,
    share,
)
from schedulers.report import CycleReport, QueueReport
from schedulers.server import JobCounts, Server

log = logging.getLogger(__name__)

WITH_PILOT = ("sent", "starting", "running")
"""The states of jobs that a pilot has in its hands."""

Pilots = dict[BatchId, PilotStatus]


@dataclass(frozen=True)
class Services:
    """The outside world of the engine."""

    server: Server
    batch: BatchSystem
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True)
class View:
    """All that server and batch system said at the beginning of a cycle."""

    jobs: JobCounts
    statuses: dict[str, str]
    counts: dict[str, PilotCounts]


def policies_for(queue: QueueConfig) -> tuple[Policy, ...]:
    """Give the chain of one queue; the limit over all queues comes after it."""
    return (
        FillActivated(queue.weight),
        MinPending(queue.min_pending),
        QueueStatus(queue.test_pilots),
        BackOff(),
        MaxPending(queue.max_pending),
        MaxRunning(queue.max_running),
        PerCycle(queue.per_cycle),
    )


def run_once(config: Config, services: Services, memory: Memory, *, dry_run: bool = False) -> CycleReport:
    """Do one cycle; when anybody does not answer, look only and send nothing."""
    now = services.now()
    try:
        # A pilot that moves on between the questions must never fall between the answers, so each is asked about a
        # later stage of its life than the one before: in the queue, running, with a job.
        counts = services.batch.counts()
        pilots = _learn(config, services.batch, memory, now=now)
        view = View(services.server.job_counts(), services.server.queue_status(), counts)
    except (ServerUnknown, BatchUnknown) as error:
        log.warning("nothing is sent in this cycle: %s", error)
        decision = decide((), Unknown(str(error)))
        reports = tuple(QueueReport(queue.name, decision=decision) for queue in config.queues)
        return CycleReport(now, reports, problem=str(error))
    facts = {queue.name: _facts(config, queue, view, pilots=pilots, memory=memory, now=now) for queue in config.queues}
    decisions = {queue.name: decide(policies_for(queue), facts[queue.name]) for queue in config.queues}
    alive = {name: counts.alive for name, counts in view.counts.items()}
    decisions = share(decisions, alive=alive, limit=config.scheduler.max_total)
    reports = tuple(
        _report(
            queue, facts[queue.name], view, _send(config, queue, decisions[queue.name], services.batch, memory, dry_run)
        )
        for queue in config.queues
    )
    return CycleReport(now, reports, dry_run=dry_run)


def adopt(batch: BatchSystem, memory: Memory) -> None:
    """Take over the pilots that an earlier scheduler process left behind."""
    live = batch.live()
    if live:
        log.info("%d pilots of an earlier run are still there", len(live))
    memory.watched.update(live)


def stop_pilots(batch: BatchSystem, *, wait: Callable[[float], object], patience_s: float, step_s: float = 0.2) -> int:
    """Cancel every pilot of this scheduler and wait for them to go; give the number of those that did not."""
    left = batch.live()
    log.info("cancelling %d pilots", len(left))
    batch.cancel(tuple(left))
    waited_s = 0.0
    while left and waited_s < patience_s:
        wait(step_s)
        waited_s += step_s
        left = batch.live()
    return len(left)


def run_forever(cycle: Callable[[], None], *, interval_s: float, stop: Event) -> None:
    """Repeat the cycle until told to stop; an accident in one cycle is logged and does not end the scheduler."""
    while not stop.is_set():
        try:
            cycle()
        except Exception:
            log.exception("this cycle failed; the next one comes in %g s", interval_s)
        stop.wait(interval_s)


def _learn(config: Config, batch: BatchSystem, memory: Memory, *, now: datetime) -> Pilots:
    """Ask after all watched pilots, draw the lessons of those that ended, and forget these."""
    pilots = batch.poll(tuple(memory.watched))
    for batch_id, status in sorted(pilots.items(), key=lambda pair: pair[1].ended_at or now):
        queue = memory.watched[batch_id]
        before = memory.breakers.get(queue, Breaker())
        breaker = after(before, status, rules=config.scheduler.breaker_rules, now=now)
        if breaker.opened > before.opened:
            times = (breaker.bad_in_a_row, breaker.pause_left_s(now))
            log.warning("%s: %d pilots in a row died young; nothing is sent for %.0f s", queue, *times)
            log.warning(
                "the last of them: exit code %s %s; %s", status.exit_code, status.reason, _where(batch, batch_id)
            )
        memory.breakers[queue] = breaker
        if status.state not in LIVE:
            del memory.watched[batch_id]
    return pilots


def _where(batch: BatchSystem, batch_id: BatchId) -> str:
    try:
        return f"see {batch.logs(batch_id).stderr}"
    except PilotNotKnown:
        return "its logs are gone"


def _facts(
    config: Config, queue: QueueConfig, view: View, *, pilots: Pilots, memory: Memory, now: datetime
) -> QueueFacts | Unknown:
    status = view.statuses.get(queue.name)
    if status is None:
        return Unknown(f"the server gives no status for a queue {queue.name}")
    jobs = view.jobs.get(queue.name, {})
    counts = view.counts.get(queue.name, PilotCounts())
    ages_s = _running_ages_s(queue.name, pilots, memory, now=now)
    without_job = max(0, counts.running - sum(jobs.get(state, 0) for state in WITH_PILOT))
    breaker = memory.breakers.get(queue.name, Breaker())
    return QueueFacts(
        status=status,
        activated=jobs.get("activated", 0),
        pending=counts.pending,
        running=counts.running,
        starting=min(without_job, sum(age_s < queue.starting_s for age_s in ages_s)),
        unproven=sum(age_s < config.scheduler.short_pilot_s for age_s in ages_s),
        pause_left_s=breaker.pause_left_s(now),
        probing=breaker.probing,
    )


def _running_ages_s(queue: str, pilots: Pilots, memory: Memory, *, now: datetime) -> Sequence[float]:
    return [
        status.lived_s(now)
        for batch_id, status in pilots.items()
        if status.state is BatchState.RUNNING and memory.watched.get(batch_id) == queue
    ]


@dataclass(frozen=True)
class _Sent:
    decision: Decision
    number: int = 0
    problem: str = ""


def _send(
    config: Config, queue: QueueConfig, decision: Decision, batch: BatchSystem, memory: Memory, dry_run: bool
) -> _Sent:
    if dry_run or decision.n == 0:
        return _Sent(decision)
    try:
        ids = batch.submit(decision.n, pilot_request(config, queue))
    except BatchUnknown as error:
        log.warning("%s: %d pilots were not sent: %s", queue.name, decision.n, error)
        return _Sent(decision, problem=str(error))
    memory.watched.update(dict.fromkeys(ids, queue.name))
    log.info("%s: sent %d pilots: %s", queue.name, len(ids), decision.reason)
    return _Sent(decision, len(ids))


def _report(queue: QueueConfig, facts: QueueFacts | Unknown, view: View, sent: _Sent) -> QueueReport:
    counts = view.counts.get(queue.name, PilotCounts())
    known = facts if isinstance(facts, QueueFacts) else None
    return QueueReport(
        queue.name,
        decision=sent.decision,
        status=known.status if known else None,
        activated=known.activated if known else None,
        pending=counts.pending,
        running=counts.running,
        sent=sent.number,
        problem=sent.problem,
    )
