"""Waits until jobs have ended, through outages of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pandaserver.client.answers import JobInfo
from pandaserver.client.api import PandaClient
from pandaserver.client.failures import JobsNotEnded, Refused, Unreachable

Report = Callable[[Sequence[JobInfo]], None]

OUTAGE_S = 600.0  # a server may be away for so long before waiting ends


@dataclass(frozen=True)
class Pace:
    """How often to look, and until when; a limit of 0 means for ever."""

    interval_s: float = 5.0
    limit_s: float = 0.0
    outage_s: float = OUTAGE_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_for(client: PandaClient, ids: Sequence[int], *, pace: Pace, report: Report) -> list[JobInfo]:
    """Look at jobs until all have ended, reporting after each look.

    Raises:
        JobsNotEnded: the time was over before.
        Unreachable: the server was away for too long.
        Refused: the server does not know one of the jobs.
    """
    start = heard = pace.clock()
    known: dict[int, JobInfo] = {}
    while True:
        try:
            known |= known_jobs(client, [i for i in ids if i not in known or not known[i].ended])
            heard = pace.clock()
            report(list(known.values()))
        except Unreachable:
            if pace.clock() - heard > pace.outage_s:
                raise
        if len(known) == len(set(ids)) and all(job.ended for job in known.values()):
            return [known[i] for i in ids]
        pace.sleep(_pause_s(pace, known, total=len(set(ids)), left_s=start + pace.limit_s - pace.clock()))


def known_jobs(client: PandaClient, ids: Sequence[int]) -> dict[int, JobInfo]:
    """Describe jobs by id.

    Raises:
        Refused: the server does not know one of them.
    """
    found = dict(zip(ids, client.status(ids), strict=True))
    strangers = [str(job_id) for job_id, job in found.items() if job is None]
    if strangers:
        text = f"{client.url} knows no job {', '.join(strangers[:10])}"
        raise Refused(text, status=404, field="job_ids", value=strangers[0])
    return {job_id: job for job_id, job in found.items() if job is not None}


def _pause_s(pace: Pace, known: dict[int, JobInfo], *, total: int, left_s: float) -> float:
    """Give the time until the next look, the last of which is just when the time is over."""
    if not pace.limit_s:
        return pace.interval_s
    if left_s <= 0:
        left = total - sum(job.ended for job in known.values())
        text = f"{left} of {total} jobs have not ended after {pace.limit_s:g} s; they go on"
        raise JobsNotEnded(text, field="timeout", value=pace.limit_s)
    return min(pace.interval_s, left_s)
