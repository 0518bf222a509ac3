"""The call that tells who may make which call; it is one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pandaserver.web.access import table, with_verdict
from pandaserver.web.calls import Call, Caller
from pandaserver.web.roles import READ, permit, roles_of


def with_table(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Add to calls the one that shows the table of all of them."""

    def get_roles(caller: Caller) -> dict[str, Any]:
        """Show who may make which call, and what the caller may."""
        configured = caller.rooms.config.identity
        verdicts = [permit(call.allows, caller.identity, configured) for call in every]
        have = roles_of(caller.identity, configured)
        return {
            "you": {
                "dn": caller.identity.dn if caller.identity else None,
                "roles": {role.value: [str(scope) for scope in scopes] for role, scopes in have.items()},
            },
            "calls": [with_verdict(row, verdict) for row, verdict in zip(table(every), verdicts, strict=True)],
        }

    every = (*calls, Call("system/get_roles", "getRoles", READ, get_roles))
    return every
