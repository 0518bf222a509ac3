"""Calls about secrets: their owner leaves them and sees their names, the pilot of a running job of his gets them."""

from __future__ import annotations

import json
from typing import Any

from pandaserver.web import values
from pandaserver.web.calls import Call, Caller, Param
from pandaserver.web.roles import OWN, PILOTS

_HIDDEN = "(hidden)"


def set_user_secrets(caller: Caller, key: str | None, value: str | None) -> bool:
    """Keep a secret for one's jobs; without value it is forgotten, without key all are."""
    if key is None or value is None:
        caller.rooms.vault.remove(caller.dn, key)
    else:
        caller.rooms.vault.put(caller.dn, key, value)
    return True


def get_user_secrets(caller: Caller, keys: list[str] | None) -> str:
    """Name the secrets that one has left, as JSON text; what is in them is told to one's jobs only."""
    found = caller.rooms.vault.names(caller.dn)
    return json.dumps({name: _HIDDEN for name in found if keys is None or name in keys})


def get_job_secrets(caller: Caller, jobId: int, jobToken: str) -> dict[str, str]:  # noqa: N803 - names on the wire
    """Give the pilot of a running job the secrets of the job's owner."""
    held = caller.rooms.dispatcher.held_by(jobId, jobToken)
    return caller.rooms.vault.open(held.job.owner)


def _names(value: Any) -> list[str]:
    return [values.text(each) for each in (value if isinstance(value, list) else [value])]


SECRET_CALLS = (
    Call(
        "creds/set_user_secrets", "set_user_secrets", OWN, set_user_secrets,
        (Param("key", values.text, required=False), Param("value", values.text, required=False)), writes=True,
    ),
    Call(
        "creds/get_user_secrets", "get_user_secrets", OWN, get_user_secrets, (Param("keys", _names, required=False),),
    ),
    Call(
        "creds/get_job_secrets", "get_job_secrets", PILOTS, get_job_secrets,
        (Param("jobId", values.whole_number, also=("job_id",)), Param("jobToken", values.text, also=("job_token",))),
        writes=True,
    ),
)  # fmt: skip
