"""Duties about priorities: jobs that wait for long move forward, and the CPU time of users is summed up."""

from __future__ import annotations

from collections.abc import Callable

from pandaserver.background.duties import Duty
from pandaserver.config import PrioritySection
from pandaserver.taskbuffer import ageing, usage
from pandaserver.taskbuffer.ageing import Ageing
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Connection
from pandaserver.taskbuffer.marks import Step

_PERIOD_S = 60.0
_AT_ONCE = 500


def priority_duties(buffer: TaskBuffer, configured: PrioritySection) -> list[Duty]:
    """Give those duties that the configuration asks for."""
    found = []
    if configured.ageing_points is not None:
        rule = Ageing(configured.ageing_after_s, configured.ageing_points)
        found.append(_duty(buffer, "ageing", lambda c: ageing.raise_waiting(c, rule, now=buffer.now(), limit=_AT_ONCE)))
    if configured.daily_cpu_s is not None:
        found.append(_duty(buffer, "cpu usage", lambda c: usage.add_up(c, now=buffer.now(), limit=_AT_ONCE)))
    return found


def _duty(buffer: TaskBuffer, name: str, step: Callable[[Connection], Step]) -> Duty:
    def run() -> int:
        done, more = 0, True
        while more:
            made = buffer.run(step)
            done, more = done + made.done, made.more
        return done

    return Duty(name, _PERIOD_S, run)
