"""What somebody may say of a job's organisation and group, where attributes or a token tell which ones he has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pandaserver.errors import NotAllowed
from pandaserver.model.fqan import Fqan, read_fqan
from pandaserver.model.job import NewJob
from pandaserver.web.identity import Identity

_PRODUCTION = "production"


def as_member(jobs: Sequence[NewJob], identity: Identity) -> list[NewJob]:
    """Fill in and check organisation and working group of new jobs; without attributes they are taken as they are.

    Raises:
        NotAllowed: a job names what its submitter does not have.
    """
    had = [read_fqan(each) for each in identity.fqans]
    return [_member_job(job, had, number) for number, job in enumerate(jobs)] if had else list(jobs)


def _member_job(job: NewJob, had: Sequence[Fqan], number: int) -> NewJob:
    vos = list(dict.fromkeys(fqan.vo for fqan in had))
    vo = job.vo or vos[0]
    if vo not in vos:
        text = f"job {number}: VO {vo} is not among those of your attributes: {', '.join(vos)}"
        raise NotAllowed(text, field="VO", value=vo)
    groups = list(dict.fromkeys(fqan.working_group for fqan in had if fqan.vo == vo and fqan.working_group))
    if job.working_group and job.working_group not in groups:
        text = (
            f"job {number}: working group {job.working_group} is not among yours of {vo}: {', '.join(groups) or 'none'}"
        )
        raise NotAllowed(text, field="workingGroup", value=job.working_group)
    return replace(job, vo=vo, working_group=job.working_group or _usual_group(had[0], vo, job))


def _usual_group(primary: Fqan, vo: str, job: NewJob) -> str:
    """Production that somebody does in the role of a group is the group's."""
    is_for_group = job.production and primary.vo == vo and primary.role == _PRODUCTION
    return primary.working_group if is_for_group else ""
