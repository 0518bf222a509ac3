"""Stands at the door of every call: not too many, none that are banned, and each with a role that may."""

from __future__ import annotations

from pandaserver.config import Config
from pandaserver.web.access import check_access
from pandaserver.web.bans import Bans
from pandaserver.web.calls import Call
from pandaserver.web.identity import Identity
from pandaserver.web.limits import Limits
from pandaserver.web.roles import Permit, Role, scopes_of

_SERVICES = (Role.PILOT, Role.DDM)
_MB = 1024 * 1024


class Door:
    """Lets callers in, or says why not."""

    def __init__(self, config: Config, bans: Bans, limits: Limits | None = None) -> None:
        self._config, self._bans = config, bans
        self._limits = limits or Limits(config.limits)

    def let_in(self, call: Call, identity: Identity | None, *, length: int | None, address: str) -> Permit:
        """Let a caller in whose request has a body of `length` bytes, None if it does not say.

        Raises:
            TooMany: this DN or address asks for too much.
            NotAuthenticated, NotAllowed: it may not make this call.
        """
        if identity is None:
            self._limits.take_anonymous(address)
        else:
            service = call.role in _SERVICES and bool(scopes_of(identity, call.role, self._config.identity))
            self._limits.take_request(identity.dn, service=service)
        permitted = check_access(call, identity, self._config.identity)
        if identity is not None and call.role is not Role.ANYONE:
            self._bans.check(identity.dn)
        if identity is not None and call.takes_file:
            self._limits.take_upload(identity.dn, self._config.cache.max_upload_mb * _MB if length is None else length)
        return permitted

    def let_read(self, identity: Identity | None, *, address: str) -> None:
        """Let somebody read what is no call.

        Raises:
            TooMany: this DN or address asks for too much.
            NotAllowed: operators have banned the DN.
        """
        if identity is None:
            self._limits.take_anonymous(address)
        else:
            self._limits.take_request(identity.dn, service=bool(scopes_of(identity, Role.PILOT, self._config.identity)))
            self._bans.check(identity.dn)
