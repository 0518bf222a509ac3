"""Lets Rucio's hermes in by a password, since it cannot show a certificate."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from pandaserver.config import Config
from pandaserver.config_rucio import secret
from pandaserver.web.calls import Call
from pandaserver.web.roles import Permit, Reach, Role


class Hermes:
    """Knows the password, and which calls it opens: those that say so, and no others."""

    def __init__(self, config: Config) -> None:
        told = config.rucio
        self._known = b""
        if told.hermes_username:
            password = secret(told.hermes_password_file, "hermes_password_file")
            self._known = f"{told.hermes_username}:{password}".encode()

    def permit(self, call: Call, environ: Mapping[str, object]) -> Permit | None:
        """Permit a call to whoever shows the password; None for all others, who may have another right to it."""
        if not (call.hermes and self._known):
            return None
        shown = _shown(str(environ.get("HTTP_AUTHORIZATION") or ""))
        return Permit(Role.DDM, Reach.ALL) if hmac.compare_digest(shown, self._known) else None


def _shown(header: str) -> bytes:
    """Read the header of basic authentication; empty where it is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
