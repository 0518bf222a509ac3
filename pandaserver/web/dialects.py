"""The two dialects in which every call is served: /server/panda/<method> and /api/v1/<module>/<method>."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

from flask import Blueprint, Request, Response, request

from pandaserver import errors
from pandaserver.errors import PandaError
from pandaserver.model.job import KILL_COMMAND
from pandaserver.web import pilotwire, values
from pandaserver.web.access import check_access
from pandaserver.web.body import read_parameters
from pandaserver.web.calls import Call, Caller, Role, Rooms
from pandaserver.web.identity import Identity, IdentityCache, from_environ
from pandaserver.web.requestid import current_request_id

log = logging.getLogger(__name__)

STATUS: dict[type[PandaError], int] = {  # the most special first
    errors.TooLarge: 413,
    errors.BadInput: 400,
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.UncertainCommit: 503,
    errors.DDMError: 503,
    PandaError: 500,
}
_STATUS_CODE = {401: pilotwire.NOT_SECURE, 403: pilotwire.NO_PERMISSION}
_UNREADABLE = "body"  # errors in this field mean that no parameter could be read at all
_KEY_HEADER = "Idempotency-Key"
V1 = "/api/v1"


def http_status(error: PandaError) -> int:
    """Give the HTTP status of an error."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


class Server:
    """Takes requests to calls: reads, identifies, authorises, runs."""

    def __init__(self, rooms: Rooms, identities: IdentityCache) -> None:
        self.rooms, self._identities = rooms, identities

    def identity(self, incoming: Request) -> Identity | None:
        """Find out who calls."""
        return from_environ(incoming.environ, self._identities.identify)

    def perform(self, call: Call, incoming: Request) -> Any:
        """Do what a request asks; raises PandaError."""
        identity = self.identity(incoming)
        check_access(call, identity, self.rooms.config.identity)
        config = self.rooms.config
        limit_mb = config.cache.max_upload_mb + 1 if call.takes_file else config.server.max_body_mb
        told, upload = read_parameters(incoming, limit_mb * 1024 * 1024)
        caller = Caller(
            self.rooms,
            identity,
            environ=incoming.environ,
            upload=upload,
            client_key=incoming.headers.get(_KEY_HEADER, ""),
        )
        return call.handler(caller, **call.read(told))


def legacy_dialect(server: Server, calls: Iterable[Call]) -> Blueprint:
    """Serve calls as /server/panda/<method>: true HTTP statuses, plain JSON or text."""
    blueprint = Blueprint("legacy", __name__, url_prefix="/server/panda")
    for call in calls:
        view = partial(_legacy_answer, server, call)
        blueprint.add_url_rule(f"/{call.legacy}", call.legacy, view, methods=_methods(call))
    return blueprint


def v1_dialect(server: Server, calls: Iterable[Call]) -> Blueprint:
    """Serve calls as /api/v1/<module>/<method>: always an envelope, which clients take from answers with status 200."""
    blueprint = Blueprint("v1", __name__, url_prefix=V1)
    for call in calls:
        view = partial(_v1_answer, server, call)
        blueprint.add_url_rule(f"/{call.path}", call.path.replace("/", "_"), view, methods=_methods(call))
    return blueprint


def _methods(call: Call) -> list[str]:
    return ["POST"] if call.writes else ["GET", "POST"]


def _legacy_answer(server: Server, call: Call) -> Response:
    try:
        data = call.legacy_answer(server.perform(call, request))
    except PandaError as error:
        return legacy_error(error, pilot=call.role is Role.PILOT)
    if isinstance(data, str):
        return Response(data, mimetype="text/plain")
    return _with_retry_after(as_json(values.plain(data, marked_times=False)), data)


def legacy_error(error: PandaError, *, pilot: bool = False) -> Response:
    """Write an error as the old dialect says it; a pilot of a job that is not there is told to stop."""
    status = http_status(error)
    _log_refusal(error, status)
    return as_json(refusal_of(error, pilot=pilot), status)


def refusal_of(error: PandaError, *, pilot: bool) -> dict[str, Any]:
    """Say an error in the old dialect, without its status."""
    status = http_status(error)
    told = legacy_refusal(error.message, status, field=error.field, value=error.value)
    return told | {"command": KILL_COMMAND} if pilot and status == 404 else told


def legacy_refusal(text: str, status: int, **culprit: str | None) -> dict[str, Any]:
    """Say no in the old dialect."""
    told = {"StatusCode": _STATUS_CODE.get(status, pilotwire.FAILED), "message": text, "errorDialog": text}
    return told | {"field": None, "value": None} | culprit | {"requestId": current_request_id()}


def v1_refusal(text: str, status: int, **culprit: str | None) -> dict[str, Any]:
    """Say no in the dialect of today."""
    error = {"status": status, "field": None, "value": None} | culprit | {"request_id": current_request_id()}
    return {"success": False, "message": text, "data": None, "error": error}


def _v1_answer(server: Server, call: Call) -> Response:
    try:
        data = server.perform(call, request)
    except PandaError as error:
        status = http_status(error)
        _log_refusal(error, status)
        http = status if error.field == _UNREADABLE or isinstance(error, errors.TooLarge) else 200
        return as_json(v1_refusal(error.message, status, field=error.field, value=error.value), http)
    told = {"success": True, "message": "", "data": values.plain(data, marked_times=True)}
    return _with_retry_after(as_json(told), data)


def _log_refusal(error: PandaError, status: int) -> None:
    level = logging.ERROR if status >= 500 else logging.INFO
    log.log(level, "refused with %d: %s", status, errors.shorten(error.message, 500))


def as_json(data: Any, status: int = 200) -> Response:
    """Write JSON."""
    return Response(json.dumps(data), status, mimetype="application/json")


def _with_retry_after(response: Response, data: Any) -> Response:
    """Say it in the header too, where the answer says when to come again."""
    if isinstance(data, dict) and "retryAfter" in data:
        response.headers["Retry-After"] = str(data["retryAfter"])
    return response
