"""Who may make which call: the configuration gives roles to DNs and VOMS attributes, each call says what roles may.

A pilot or producer is one for all jobs where the role is given to a DN, and for the jobs of a VO (or a group of it)
where an attribute gives it: /atlas/Role=pilot is a pilot for jobs of atlas, /atlas/higgs/Role=production a producer for
its working group higgs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, StrEnum
from fnmatch import fnmatchcase

from pandaserver.config import IdentitySection, is_dn
from pandaserver.model.fqan import Fqan, read_fqan
from pandaserver.web.identity import Identity


class Role(Enum):
    """What a caller can be to the server; every certificate's holder is a user too."""

    ANYONE = "anyone"
    USER = "user"
    PRODUCTION = "production"
    PILOT = "pilot"
    OPERATOR = "operator"
    DDM = "ddm"


class Reach(StrEnum):
    """How far a role goes in a call."""

    ALL = "all"
    SCOPE = "vo"  # the jobs of a VO or working group; everything, where the role is given to a DN
    OWN = "own"  # what belongs to the caller's DN; of an attempt, what its job token opens


Grants = Mapping[Role, Reach]  # the first role is the one that a call is made for

READ: Grants = {Role.ANYONE: Reach.ALL}
OWN: Grants = {Role.USER: Reach.OWN}
OPERATE: Grants = {Role.OPERATOR: Reach.ALL}
OWN_OR_OPERATOR: Grants = {Role.USER: Reach.OWN, Role.OPERATOR: Reach.ALL}
SUBMIT: Grants = {Role.USER: Reach.OWN, Role.PRODUCTION: Reach.SCOPE}
PILOTS: Grants = {Role.PILOT: Reach.SCOPE, Role.USER: Reach.OWN}
DDM: Grants = {Role.DDM: Reach.ALL}


@dataclass(frozen=True)
class Scope:
    """The jobs for which somebody has a role; empty means all."""

    vo: str = ""
    working_group: str = ""

    def holds(self, vo: str, working_group: str) -> bool:
        """Say whether jobs of a VO and working group are among them."""
        return self.vo in ("", vo) and self.working_group in ("", working_group)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.vo, self.working_group))) or "all"


EVERYTHING = Scope()
_FOR_JOBS = (Role.PILOT, Role.PRODUCTION)  # the other roles have no scope


@dataclass(frozen=True)
class Permit:
    """By which role a caller may make a call, how far it goes, and for which jobs."""

    role: Role
    reach: Reach
    scopes: tuple[Scope, ...] = (EVERYTHING,)

    @property
    def unbounded(self) -> bool:
        """Say whether it holds for the jobs of everybody."""
        return self.reach is not Reach.OWN and EVERYTHING in self.scopes


BY_ANYONE = Permit(Role.ANYONE, Reach.ALL)


def scopes_of(identity: Identity, role: Role, configured: IdentitySection) -> tuple[Scope, ...]:
    """Tell for which jobs somebody has a role: none, if empty."""
    listed = {
        Role.PILOT: configured.pilots,
        Role.OPERATOR: configured.operators,
        Role.DDM: configured.ddm,
        Role.PRODUCTION: configured.producers or ("*",),
        Role.USER: configured.users or ("*",),
        Role.ANYONE: ("*",),
    }[role]
    if role is Role.OPERATOR and identity.limited:
        return ()
    found = tuple(dict.fromkeys(_granted(identity, listed)))
    return (EVERYTHING,) if EVERYTHING in found or (found and role not in _FOR_JOBS) else found


def _granted(identity: Identity, listed: Iterable[str]) -> Iterable[Scope]:
    for entry in listed:
        if entry == "*" or (is_dn(entry) and entry == identity.dn):
            yield EVERYTHING
        elif not is_dn(entry):
            yield from (Scope(f.vo, f.working_group) for f in _attributes(identity) if fnmatchcase(str(f), entry))


def _attributes(identity: Identity) -> Iterable[Fqan]:
    """Read the attributes of somebody; what is none gives nothing."""
    for text in identity.fqans:
        with suppress(ValueError):
            yield read_fqan(text)


def permit(grants: Grants, identity: Identity | None, configured: IdentitySection) -> Permit | None:
    """Find the farthest-reaching role by which somebody may make a call, None if there is none."""
    for reach in Reach:
        for role in (role for role, how_far in grants.items() if how_far is reach):
            scopes = _scopes_for(grants, role, identity, configured)
            if scopes:
                return Permit(role, reach, scopes)
    return None


def _scopes_for(
    grants: Grants, role: Role, identity: Identity | None, configured: IdentitySection
) -> tuple[Scope, ...]:
    if role is Role.ANYONE:
        return (EVERYTHING,)
    if identity is None:
        return ()
    if role in (Role.USER, Role.PRODUCTION):
        for_pilots = Role.PILOT in grants
        if identity.limited and not for_pilots:
            return ()
        if for_pilots and not configured.user_pilots:
            return ()
        if role is Role.PRODUCTION and not scopes_of(identity, Role.USER, configured):
            return ()
    return scopes_of(identity, role, configured)


def roles_of(identity: Identity | None, configured: IdentitySection) -> dict[Role, tuple[Scope, ...]]:
    """Tell all roles that somebody has, and for which jobs."""
    if identity is None:
        return {Role.ANYONE: (EVERYTHING,)}
    found = {role: scopes_of(identity, role, configured) for role in Role}
    return {role: scopes for role, scopes in found.items() if scopes}
