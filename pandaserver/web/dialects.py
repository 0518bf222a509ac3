"""The two dialects in which every call is served: /server/panda/<method> and /api/v1/<module>/<method>."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Blueprint, Request, Response, request

from pandaserver import errors
from pandaserver.errors import PandaError
from pandaserver.model.job import KILL_COMMAND
from pandaserver.web import pilotwire, values
from pandaserver.web.bans import Bans
from pandaserver.web.body import read_parameters
from pandaserver.web.callers import Callers
from pandaserver.web.calls import Call, Caller, Rooms
from pandaserver.web.door import Door
from pandaserver.web.hermes import Hermes
from pandaserver.web.identity import Identity
from pandaserver.web.pickle_answers import write_pickle
from pandaserver.web.pickles import looks_pickled, read_pickle
from pandaserver.web.requestid import current_request_id
from pandaserver.web.roles import Role

log = logging.getLogger(__name__)

STATUS: dict[type[PandaError], int] = {  # the most special first
    errors.TooLarge: 413,
    errors.BadInput: 400,
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.TooMany: 429,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.UncertainCommit: 503,
    errors.NotAvailable: 503,
    errors.DDMError: 503,
    PandaError: 500,
}
_STATUS_CODE = {401: pilotwire.NOT_SECURE, 403: pilotwire.NO_PERMISSION}
_UNREADABLE = "body"  # errors in this field mean that no parameter could be read at all
_KEY_HEADER = "Idempotency-Key"
_CHALLENGES = (
    'Bearer realm="PanDA"',
    'X509 realm="PanDA", hint="show a client certificate or proxy in the TLS handshake"',
)
V1 = "/api/v1"


def http_status(error: PandaError) -> int:
    """Give the HTTP status of an error."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


@dataclass(frozen=True)
class Done:
    """What a call gave, and whether the client, an old one, expects a pickle."""

    data: Any
    pickled: bool = False


class Server:
    """Takes requests to calls: reads, identifies, authorises, runs."""

    def __init__(self, rooms: Rooms, callers: Callers) -> None:
        self.rooms, self._callers = rooms, callers
        self.door = Door(rooms.config, Bans(rooms.buffer))
        self._hermes = Hermes(rooms.config)

    def identity(self, incoming: Request) -> Identity | None:
        """Find out who calls."""
        return self._callers.identify(incoming.environ)

    def perform(self, call: Call, incoming: Request, *, pickles: bool = False) -> Done:
        """Do what a request asks; raises PandaError."""
        identity = self.identity(incoming)
        address = incoming.remote_addr or ""
        permitted = self._hermes.permit(call, incoming.environ) or self.door.let_in(
            call, identity, length=incoming.content_length, address=address
        )
        config = self.rooms.config
        limit_mb = config.cache.max_upload_mb + 1 if call.takes_file else config.server.max_body_mb
        told, upload = read_parameters(incoming, limit_mb * 1024 * 1024, lines="messages" if call.hermes else "")
        is_old = pickles and config.server.accept_pickles and looks_pickled(told.get(call.pickled))
        if is_old:
            told |= {call.pickled: read_pickle(told[call.pickled], call.pickled)}
        caller = Caller(
            self.rooms,
            identity,
            environ=incoming.environ,
            upload=upload,
            client_key=incoming.headers.get(_KEY_HEADER, ""),
            permit=permitted,
        )
        return Done(call.handler(caller, **call.read(told)), is_old)


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
        done = server.perform(call, request, pickles=True)
    except PandaError as error:
        return legacy_error(error, pilot=call.role is Role.PILOT)
    if done.pickled:
        return Response(write_pickle(call.pickled_answer(done.data)), mimetype="text/plain")
    data = call.legacy_answer(done.data)
    if isinstance(data, str):
        return Response(data, mimetype="text/plain")
    return _with_retry_after(as_json(values.plain(data, marked_times=False)), data)


def legacy_error(error: PandaError, *, pilot: bool = False) -> Response:
    """Write an error as the old dialect says it; a pilot of a job that is not there is told to stop."""
    status = http_status(error)
    log_refusal(error.message, status)
    return _with_hints(as_json(refusal_of(error, pilot=pilot), status), error)


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
        data = server.perform(call, request).data
    except PandaError as error:
        status = http_status(error)
        log_refusal(error.message, status)
        plainly = error.field == _UNREADABLE or isinstance(error, errors.TooLarge | errors.TooMany)
        told = v1_refusal(error.message, status, field=error.field, value=error.value)
        return _with_hints(as_json(told, status if plainly else 200), error)
    answer = {"success": True, "message": "", "data": values.plain(data, marked_times=True)}
    return _with_retry_after(as_json(answer), data)


def log_refusal(text: str, status: int) -> None:
    """Let operators find why somebody was refused; the id of the request stands on every line."""
    level = logging.ERROR if status >= 500 else logging.INFO
    log.log(level, "refused with %d: %s", status, errors.shorten(text, 500))


def as_json(data: Any, status: int = 200) -> Response:
    """Write JSON."""
    return Response(json.dumps(data), status, mimetype="application/json")


def _with_hints(response: Response, error: PandaError) -> Response:
    """Say when to come again to those who asked for too much, and how to be known to those who are not."""
    if isinstance(error, errors.TooMany):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.NotAuthenticated):
        for challenge in _CHALLENGES:
            response.headers.add("WWW-Authenticate", challenge)
    return response


def _with_retry_after(response: Response, data: Any) -> Response:
    """Say it in the header too, where the answer says when to come again."""
    if isinstance(data, dict) and "retryAfter" in data:
        response.headers["Retry-After"] = str(data["retryAfter"])
    return response
