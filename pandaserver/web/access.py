"""Authorisation: lets callers pass, and says no in words that help; who may do what stands in roles.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pandaserver.config import IdentitySection
from pandaserver.errors import NotAllowed, NotAuthenticated
from pandaserver.model.attempt import ClaimRequest, PilotReport
from pandaserver.model.job import NewJob
from pandaserver.web.calls import Call
from pandaserver.web.identity import Identity
from pandaserver.web.roles import Permit, Reach, Role, Scope, permit

HOW_TO_BE_KNOWN = (
    "needs an HTTPS client certificate or proxy (curl --cert PROXY --key PROXY), or the bearer token of an issuer that"
    " this server trusts (curl -H 'Authorization: Bearer TOKEN')"
)
_MAX_DN = 255  # what the tables hold


def check_access(call: Call, identity: Identity | None, configured: IdentitySection) -> Permit:
    """Let a caller pass, and say by which role.

    Raises:
        NotAuthenticated: the call needs a certificate and none was shown.
        NotAllowed: the caller is known and does not have the role.
    """
    permitted = permit(call.allows, identity, configured)
    if call.role is Role.ANYONE and permitted is not None:
        return permitted
    if identity is None:
        raise NotAuthenticated(f"{call.path} {HOW_TO_BE_KNOWN}", field="certificate")
    if len(identity.dn) > _MAX_DN:
        text = f"the DN of the certificate has {len(identity.dn)} characters, at most {_MAX_DN} are taken"
        raise NotAllowed(text, field="certificate", value=identity.dn)
    if permitted is None:
        raise NotAllowed(_refusal(call, identity, configured), field="certificate", value=identity.dn)
    return permitted


def _refusal(call: Call, identity: Identity, configured: IdentitySection) -> str:
    full = replace(identity, limited=False)
    if identity.limited and permit(call.allows, full, configured) is not None:
        return f"{call.path} refuses limited proxies, such as worker nodes hold; use a full proxy of {identity.dn}"
    attributes = f" with attributes {', '.join(identity.fqans)}" if identity.fqans else ""
    where = "(see [identity] in its configuration, and panda roles)"
    return f"{identity.dn}{attributes} is no {call.role.value} identity of this server {where}"


def as_produced(job: NewJob, scopes: Sequence[Scope], dn: str) -> NewJob:
    """Let somebody submit a production job, in the working group of their role where that has one.

    Raises:
        NotAllowed: they are no producer of this job's VO and working group.
    """
    if any(scope.holds(job.vo, job.working_group) for scope in scopes):
        return job
    groups = [scope.working_group for scope in scopes if scope.vo == job.vo]
    if groups and not job.working_group:
        return replace(job, working_group=groups[0])
    whose = f"of VO {job.vo or '(none)'}" + (f" and working group {job.working_group}" if job.working_group else "")
    text = f"{dn} may not submit production jobs {whose} (see [identity] producers in the server's configuration)"
    raise NotAllowed(text, field="prodSourceLabel", value=dn)


def within(request: ClaimRequest, permitted: Permit, dn: str) -> ClaimRequest:
    """Narrow a pilot's request to the jobs that it may have: those of its VO, or its owner's own.

    Raises:
        NotAllowed: it asks for others.
    """
    if permitted.reach is Reach.OWN:
        if request.owner not in ("", dn):
            text = f"{dn} is no pilot identity of this server and gets its own jobs only, not those of {request.owner}"
            raise NotAllowed(text, field="prodUserID", value=request.owner)
        return replace(request, owner=dn)
    for scope in permitted.scopes:
        if request.vo in ("", scope.vo) or not scope.vo:
            group = request.working_group or scope.working_group
            if scope.working_group in ("", group):
                return replace(request, vo=scope.vo or request.vo, working_group=group)
    whose = ", ".join(map(str, permitted.scopes))
    text = f"{dn} is a pilot for jobs of {whose}, not of {request.vo} {request.working_group}".rstrip()
    raise NotAllowed(text, field="vo", value=request.vo)


def check_token(report: PilotReport, permitted: Permit) -> None:
    """Demand the job token of all but the pilots of the installation, of which old ones do not know it.

    Raises:
        NotAllowed: there is none.
    """
    if report.token is None and not permitted.unbounded:
        text = f"jobToken is missing: {report.pilot} may update a job only with the token that came with it"
        raise NotAllowed(text, field="jobToken", value=report.job_id)


def table(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Write the table of calls and roles: of each call, how far each role that may make it goes."""
    return [
        {
            "call": call.path,
            "legacy": call.legacy,
            "writes": call.writes,
            "allows": {role.value: str(call.allows[role]) for role in Role if role in call.allows},
        }
        for call in calls
    ]


def with_verdict(row: Mapping[str, Any], permitted: Permit | None) -> dict[str, Any]:
    """Add to a row of the table what holds for one caller: how far and by which role, None if not at all."""
    verdict = None if permitted is None else {"role": permitted.role.value, "reach": str(permitted.reach)}
    return dict(row) | {"you": verdict}
