"""Makes the command line of a pilot from the configuration."""

from __future__ import annotations

from schedulers.batch.protocol import BATCH_ID_MARK, PilotRequest
from schedulers.config import Config, QueueConfig


def pilot_request(config: Config, queue: QueueConfig) -> PilotRequest:
    """Describe the pilot of one queue; options that are not configured are left to the pilot."""
    pilot, scheduler = config.pilot, config.scheduler
    options = {
        "--server": scheduler.server,
        "--queue": queue.name,
        "--label": queue.label or None,
        "--work-dir": pilot.work_dir,
        "--proxy": pilot.proxy or scheduler.proxy,
        "--ca-dir": scheduler.ca_dir,
        "--lifetime": pilot.lifetime_s,
        "--max-jobs": pilot.max_jobs,
        "--idle-time": pilot.idle_s,
        "--poll-interval": pilot.poll_interval_s,
        "--pilot-id": BATCH_ID_MARK,
        "--scheduler-id": scheduler.scheduler_id,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    argv = (*pilot.command, *words, *pilot.extra_options)
    return PilotRequest(queue.name, argv, environment=pilot.environment, work_dir=pilot.work_dir)
