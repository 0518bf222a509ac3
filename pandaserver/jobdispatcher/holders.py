"""Whoever shows the job token of a live attempt holds its job, and may have what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from pandaserver.errors import NotAllowed
from pandaserver.jobdispatcher.tokens import TOKEN_SECRET, is_token
from pandaserver.model.job import Job
from pandaserver.model.states import WITH_PILOT
from pandaserver.taskbuffer import counters, jobs
from pandaserver.taskbuffer.database import Connection

_IN_NAME = "A-Za-z0-9_.+-"


@dataclass(frozen=True)
class Held:
    """A job with a live attempt, and its texts."""

    job: Job
    texts: tuple[str, ...]

    def uses(self, name: str) -> bool:
        """Say whether a file of the cache is named by the job: as its transformation, or in its parameters."""
        whole = re.compile(f"(?<![{_IN_NAME}]){re.escape(name)}(?![{_IN_NAME}])")
        return any(whole.search(text) for text in self.texts)


def held(connection: Connection, job_id: int, token: str) -> Held:
    """Find the job whose live attempt a token belongs to.

    Raises:
        NotAllowed: the token is not that of the current attempt, or the attempt is over.
    """
    job = jobs.load(connection, [job_id]).get(job_id)
    secret = counters.secret(connection, TOKEN_SECRET)
    if job is None or job.state not in WITH_PILOT or not is_token(token, secret, job.job_id, job.attempt):
        text = f"the job token is not that of a live attempt of job {job_id}"
        raise NotAllowed(text, field="jobToken", value=job_id)
    parameters, attributes = jobs.orders_of(connection, [job_id]).get(job_id, ("", {}))
    return Held(job, tuple(_readable((job.transformation, parameters, *map(str, attributes.values())))))


def _readable(texts: Iterable[str]) -> Iterable[str]:
    """Give texts as they are and as they read without the escapes of URLs."""
    for text in texts:
        yield from (text, unquote(text))
