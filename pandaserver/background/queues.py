"""Duties about queues: words of operators that are over, imports, and queues that are no more."""

from __future__ import annotations

import logging

from pandaserver.background.duties import Duty
from pandaserver.config import Config
from pandaserver.externalinterface.cric_import import CricImport
from pandaserver.taskbuffer import switches, topology
from pandaserver.taskbuffer.buffer import TaskBuffer

log = logging.getLogger(__name__)

_SWITCHES_PERIOD_S, _SWEEP_PERIOD_S = 10.0, 3600.0


def queue_duties(buffer: TaskBuffer, config: Config) -> list[Duty]:
    """Give these duties."""
    return [
        Duty("end switches", _SWITCHES_PERIOD_S, lambda: end_switches(buffer)),
        Duty("sweep queues", _SWEEP_PERIOD_S, lambda: sweep_queues(buffer)),
        Duty("import queues", config.grid.cric_period_s, lambda: import_queues(buffer, config)),
    ]


def import_queues(buffer: TaskBuffer, config: Config) -> int:
    """Import queues from CRIC where that is configured; tell how much changed."""
    told = config.grid
    return CricImport(buffer, told.cric, told.cric_endpoints, config.server.ca_dir).run_once() if told.cric else 0


def end_switches(buffer: TaskBuffer) -> int:
    """Let go what operators said of queues for a time that is over; tell how many."""
    ended = buffer.run(lambda c: switches.end_over(c, buffer.now()))
    if ended:
        topology.forget()
        log.info("operators' word is over for %s", ", ".join(ended))
    return len(ended)


def sweep_queues(buffer: TaskBuffer) -> int:
    """Forget removed queues that no job names; tell how many."""
    gone = buffer.run(topology.sweep)
    if gone:
        topology.forget()
        log.info("removed queues without jobs are forgotten: %s", ", ".join(gone))
    return len(gone)
