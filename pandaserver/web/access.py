"""Authorisation: who may make which call, said in one place."""

from __future__ import annotations

from pandaserver.config import IdentitySection
from pandaserver.errors import NotAllowed, NotAuthenticated
from pandaserver.web.calls import Call, Role
from pandaserver.web.identity import Identity

_MAX_DN = 255  # what the tables hold


def check_access(call: Call, identity: Identity | None, configured: IdentitySection) -> None:
    """Let a caller pass.

    Raises:
        NotAuthenticated: the call needs a certificate and none was shown.
        NotAllowed: the caller is known and does not have the role.
    """
    if call.role is Role.ANYONE:
        return
    if identity is None:
        text = f"{call.path} needs an HTTPS client certificate or proxy (curl --cert PROXY --key PROXY)"
        raise NotAuthenticated(text, field="certificate")
    if len(identity.dn) > _MAX_DN:
        text = f"the DN of the certificate has {len(identity.dn)} characters, at most {_MAX_DN} are taken"
        raise NotAllowed(text, field="certificate", value=identity.dn)
    if call.role is Role.USER and identity.limited:
        text = f"{call.path} refuses limited proxies, such as worker nodes hold; use a full proxy of {identity.dn}"
        raise NotAllowed(text, field="certificate", value=identity.dn)
    listed = {Role.PILOT: configured.pilots, Role.DDM: configured.ddm}.get(call.role)
    if listed is not None and identity.dn not in listed:
        text = f"{identity.dn} is no {call.role.value} identity of this server (see [identity] in its configuration)"
        raise NotAllowed(text, field="certificate", value=identity.dn)


def is_operator(identity: Identity, configured: IdentitySection) -> bool:
    """Say whether somebody may act on other people's jobs."""
    return identity.dn in configured.operators and not identity.limited


def check_production(dn: str, configured: IdentitySection) -> None:
    """Let somebody submit production jobs; where no producers are named, everybody may.

    Raises:
        NotAllowed: others are named.
    """
    if configured.producers and dn not in configured.producers:
        text = f"{dn} may not submit production jobs (see [identity] producers in the server's configuration)"
        raise NotAllowed(text, field="prodSourceLabel", value=dn)
