"""Jobs as they come with a call, made those of their submitter: VO and working group by what the submitter proved."""

from __future__ import annotations

from typing import Any

from pandaserver.errors import BadInput
from pandaserver.model.job import NewJob
from pandaserver.model.priority import PriorityRules
from pandaserver.web.access import as_produced
from pandaserver.web.calls import Caller
from pandaserver.web.jobwire import read_jobs
from pandaserver.web.membership import as_member
from pandaserver.web.roles import Role, scopes_of


def read_new(caller: Caller, jobs: Any) -> list[NewJob]:
    """Read the jobs of a call.

    Raises:
        BadInput: there are too many, or one is not understood.
        NotAllowed: the caller may not have such jobs.
    """
    config, identity = caller.rooms.config, caller.known
    most = config.limits.jobs_per_submission
    if isinstance(jobs, list) and len(jobs) > most:
        raise BadInput(f"{len(jobs)} jobs submitted, 1 to {most} are accepted", field="jobs", value=len(jobs))
    new = as_member(read_jobs(jobs, "" if identity.fqans else config.identity.default_vo), identity)
    scopes = scopes_of(identity, Role.PRODUCTION, config.identity)
    return [as_produced(job, scopes, caller.dn) if job.production else job for job in new]


def priority_rules(caller: Caller) -> PriorityRules:
    """Give what the installation says of priorities."""
    configured = caller.rooms.config.priority
    return PriorityRules(configured.raise_max or 0, configured.daily_cpu_s)
