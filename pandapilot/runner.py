"""One job from its acceptance to its final report: performs the phases in the order that the state table gives."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pandapilot import report
from pandapilot.clock import Clock, delays, pause
from pandapilot.codes import SIGNAL_CODES, ErrorCode
from pandapilot.failures import (
    AttemptStale,
    Interrupted,
    JobFailure,
    LeaseExpired,
    NotAuthorised,
    ServerRefused,
    ServerUnreachable,
)
from pandapilot.files import read_regular, remove_tree, tail_of
from pandapilot.heartbeat import Heartbeat, Lease
from pandapilot.joblog import write_tarball
from pandapilot.jobs import JOB_REPORT, STDERR, STDOUT, TEMPORARY, Job
from pandapilot.limits import limits_for
from pandapilot.logs import PilotLog
from pandapilot.payload import Measure, Payload, environment_for
from pandapilot.processes import default_table
from pandapilot.queues import Endpoint, Queue
from pandapilot.record import JobRecord
from pandapilot.server import Server, UpdateAnswer
from pandapilot.settings import Settings
from pandapilot.signals import Signals
from pandapilot.states import Outcome, Phase, next_phase
from pandapilot.text import harmless
from pandapilot.transfers import Mover, check_outputs
from pandapilot.transformation import Fetcher
from pandapilot.watch import Watch

logger = logging.getLogger(__name__)

# After a signal the batch system leaves little time: so long for the payload to end, for the log, for the report.
HURRY_GRACE_S = 2.0
HURRY_LOG_S = 4.0
HURRY_REPORT_S = 30.0


@dataclass(frozen=True)
class Tools:
    """What a pilot works with, the same for all its jobs."""

    settings: Settings
    server: Server
    clock: Clock
    signals: Signals
    log: PilotLog
    sender: report.Sender
    directory: Path
    deadline: float  # when the pilot's life ends


@dataclass(frozen=True)
class Site:
    """Where the pilot works."""

    queue: Queue
    endpoints: Mapping[str, Endpoint]


class JobRunner:
    """Runs one job; whatever happens to the job, run() returns and its record tells."""

    def __init__(self, job: Job, tools: Tools, *, site: Site, asked: float) -> None:
        """Take the job; its lease has run since it was asked for."""
        self._job, self._tools, self._site = job, tools, site
        self._clock = tools.clock
        self._directory = tools.directory / f"job-{job.job_id}-{job.attempt_nr}"
        self._environment = environment_for(job, self._directory, site.queue.environment)
        self._command: list[str] = []
        self._hurry_until: float | None = None
        self._lease = Lease.of(
            asked,
            length_s=job.lease_s,
            interval_s=tools.settings.heartbeat_s or job.heartbeat_s,
            kill_grace_s=tools.settings.kill_grace_s,
        )
        self._heartbeat = Heartbeat(self._send_heartbeat, self._lease, self._clock)
        self._mover = Mover(
            site.queue, site.endpoints, self._clock, tick=self._tick, pause_s=tools.settings.retry_pause_s
        )
        self.record = JobRecord(job=job, started=self._clock.epoch())
        self.record.spend(Phase.GET_JOB, self._clock.now() - asked)
        self._phases: dict[Phase, Callable[[], None]] = {
            Phase.STAGE_IN: self._stage_in,
            Phase.SET_UP: self._set_up,
            Phase.RUN: self._run,
            Phase.STAGE_OUT: self._stage_out,
            Phase.LOG: self._log,
            Phase.REPORT: self._report,
        }

    def run(self) -> None:
        """Perform phase after phase, then remove the job's directory."""
        phase = Phase.STAGE_IN
        try:
            while phase is not Phase.GET_JOB:
                phase = next_phase(phase, self._perform(phase))
        finally:
            remove_tree(self._directory)

    def give_up(self, diagnosis: str) -> None:
        """Report the job as failed by the pilot's own fault."""
        self.record.fail(ErrorCode.INTERNAL, diagnosis)
        self._perform(Phase.REPORT)

    def _perform(self, phase: Phase) -> Outcome:
        """Do one phase and translate what stopped it into an outcome."""
        logger.info("job %d: %s", self._job.job_id, phase.value)
        self.record.phase, begun = phase, self._clock.now()
        try:
            self._phases[phase]()
        except JobFailure as failure:
            return self._failed(failure.code, failure.diagnosis, Outcome.FAILED)
        except OSError as error:
            code = ErrorCode.NO_LOCAL_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.GENERAL
            return self._failed(code, f"{phase.value}: {error}", Outcome.FAILED)
        except AttemptStale as error:
            return self._failed(ErrorCode.KILLED_BY_SERVER, str(error), Outcome.STALE)
        except LeaseExpired as error:
            return self._failed(ErrorCode.KILLED_BY_SERVER, f"lease lost: {error}", Outcome.EXPIRED)
        except Interrupted as signal:
            return self._interrupted(signal)
        finally:
            self.record.spend(phase, self._clock.now() - begun)
        return Outcome.OK

    def _failed(self, code: ErrorCode, diagnosis: str, outcome: Outcome) -> Outcome:
        logger.error("job %d: %s failed with %d: %s", self._job.job_id, self.record.phase.value, code, diagnosis)
        self.record.fail(code, diagnosis)
        return outcome

    def _interrupted(self, signal: Interrupted) -> Outcome:
        """Once the outputs are stored a signal fails the job no more, it only presses for time."""
        self._hurry_until = self._clock.now() + HURRY_LOG_S
        if self.record.phase not in (Phase.LOG, Phase.REPORT):
            self.record.fail(SIGNAL_CODES.get(signal.number, ErrorCode.SIGNAL), str(signal))
        return Outcome.INTERRUPTED

    def _tick(self) -> None:
        """Let signals and heartbeats through; called often by everything that takes time."""
        if self._hurry_until is None:
            self._tools.signals.check()
            self._heartbeat.tick(obey=self.record.phase is not Phase.LOG)
        elif self._clock.now() > self._hurry_until:
            raise JobFailure(ErrorCode.SIGNAL, "no time left after the signal")

    def _send_heartbeat(self) -> UpdateAnswer:
        self._read_stdout()
        update = report.heartbeat(self.record, self._tools.sender, now=self._clock.epoch())
        return self._tools.server.update_job(update)

    def _read_stdout(self) -> None:
        tail = tail_of(self._directory / STDOUT, report.STDOUT_BYTES)
        self.record.stdout_tail = harmless(tail, report.STDOUT_BYTES)

    # The phases

    def _stage_in(self) -> None:
        self._directory.mkdir(mode=0o700)
        (self._directory / TEMPORARY).mkdir(mode=0o700)
        self._tick()
        if self._job.problems:
            raise JobFailure(self._job.problems[0].code, "; ".join(problem.text for problem in self._job.problems))
        self._mover.stage_in(self._job.inputs, self._directory)

    def _set_up(self) -> None:
        fetcher = Fetcher(self._tools.server, self._clock, self._tick, self._tools.settings.retry_pause_s)
        self._command = fetcher.command(self._job, self._directory, self._environment)

    def _run(self) -> None:
        settings = self._tools.settings
        remaining_s = self._tools.deadline - settings.reserve_s - self._clock.now()
        limits = limits_for(self._job, self._site.queue, remaining_s=remaining_s, looping_s=settings.looping_s)
        payload = Payload(self._command, self._directory, environment=self._environment, table=default_table())
        logger.info("job %d: payload %s started as process %d", self._job.job_id, self._command[0], payload.pid)
        self._heartbeat.soon()
        watch = Watch(payload, self._directory, limits=limits, clock=self._clock, interval_s=settings.check_interval_s)
        try:
            watch.until_ended(self._tick, self._note)
        finally:
            self.record.payload = payload.stop(self._grace_s(), self._clock)
            self._read_payload_files()
        self._judge(self.record.payload.exit_code)

    def _note(self, measured: Measure) -> None:
        peak = max(measured.memory_bytes, self.record.measured.memory_bytes)
        self.record.measured = Measure(cpu_s=measured.cpu_s, memory_bytes=peak)

    def _grace_s(self) -> float:
        limit_s = HURRY_GRACE_S if self._tools.signals.received else self._lease.stop_s * 2 / 3
        return min(self._tools.settings.kill_grace_s, limit_s)

    def _read_payload_files(self) -> None:
        self._read_stdout()
        content = read_regular(self._directory / JOB_REPORT, report.METADATA_BYTES)
        self.record.job_report = (content or b"").decode("utf-8", "replace")

    def _judge(self, exit_code: int) -> None:
        logger.info("job %d: payload ended with exit code %d", self._job.job_id, exit_code)
        if exit_code > 128:
            raise JobFailure(
                ErrorCode.PAYLOAD_FAILED, f"payload was ended by signal {exit_code - 128} or exit {exit_code}"
            )
        if exit_code:
            raise JobFailure(ErrorCode.PAYLOAD_FAILED, f"payload ended with exit code {exit_code}")

    def _stage_out(self) -> None:
        check_outputs(self._job.outputs, self._directory)
        for file in self._job.outputs:
            self.record.transferred.append(self._mover.stage_out(file, self._directory / file.lfn))

    def _log(self) -> None:
        """Make and store the log; a job does not fail by its log, but its report says what went wrong with it."""
        if self._job.log is None:
            return
        try:
            with tempfile.TemporaryDirectory(dir=self._tools.directory) as directory:
                tarball = Path(directory, "log")
                write_tarball(
                    tarball,
                    self._job,
                    directory=self._directory,
                    pilot_log=self._tools.log.of_job(),
                    tick=self._tick,
                )
                self.record.log = self._mover.stage_out(self._job.log, tarball)
        except (JobFailure, OSError) as error:
            self.record.log_problem = f"log not stored: {error}"
            logger.error("job %d: %s", self._job.job_id, self.record.log_problem)

    def _report(self) -> None:
        """Tell the server how the job went, again and again until it hears."""
        self.record.ended = self.record.ended or self._clock.epoch()
        stderr = harmless(tail_of(self._directory / STDERR, report.EXTRACT_BYTES), report.EXTRACT_BYTES)
        self.record.extract = report.extract(self._tools.log.warnings(), stderr)
        update = report.final(self.record, self._tools.sender, now=self._clock.epoch())
        hurry = self._hurry_until is not None
        end = self._clock.now() + (HURRY_REPORT_S if hurry else self._tools.settings.final_update_s)
        for delay_s in delays():
            try:
                self.record.delivered = self._deliver(update)
                return
            except (ServerUnreachable, NotAuthorised) as error:
                logger.warning("job %d: final report not delivered: %s", self._job.job_id, error)
            except ServerRefused as error:
                raise JobFailure(ErrorCode.GENERAL, f"the final report was refused: {error}") from error
            if self._clock.now() + delay_s > end:
                raise JobFailure(ErrorCode.GENERAL, "the final report could not be delivered")
            pause(self._clock, delay_s, self._tools.signals.check)

    def _deliver(self, update: dict[str, object]) -> bool:
        """Send the report, without the payload's texts if the server chokes on them; True when it counts."""
        try:
            answer = self._tools.server.update_job(update)
        except NotAuthorised:
            raise
        except ServerRefused as error:
            logger.warning("job %d: report refused, sending less: %s", self._job.job_id, error)
            answer = self._tools.server.update_job(report.reduced(update))
        logger.info("job %d: reported %s", self._job.job_id, update["state"])
        return answer.accepted
