"""The Flask application: both dialects, the cache, and errors that nobody foresaw."""

from __future__ import annotations

import json
import logging

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from pandaserver.web.cache import cache_pages
from pandaserver.web.callers import Callers
from pandaserver.web.calls import Rooms
from pandaserver.web.dialects import (
    V1,
    Server,
    as_json,
    legacy_dialect,
    legacy_refusal,
    log_refusal,
    v1_dialect,
    v1_refusal,
)
from pandaserver.web.grid_calls import GRID_CALLS
from pandaserver.web.openapi import describe_calls
from pandaserver.web.pilot_calls import PILOT_CALLS
from pandaserver.web.queue_calls import QUEUE_CALLS
from pandaserver.web.requestid import with_request_id
from pandaserver.web.role_calls import with_table
from pandaserver.web.secret_calls import SECRET_CALLS
from pandaserver.web.user_calls import USER_CALLS
from pandaserver.web.why_calls import WHY_CALLS

log = logging.getLogger(__name__)

CALLS = with_table((*GRID_CALLS, *QUEUE_CALLS, *USER_CALLS, *WHY_CALLS, *PILOT_CALLS, *SECRET_CALLS))


def make_application(rooms: Rooms, callers: Callers) -> Flask:
    """Put the web part together."""
    app = Flask("pandaserver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = (rooms.config.cache.max_upload_mb + 1) * 1024 * 1024
    server = Server(rooms, callers)
    app.register_blueprint(legacy_dialect(server, CALLS))
    app.register_blueprint(v1_dialect(server, CALLS))
    app.register_blueprint(cache_pages(server))
    _serve_description(app, rooms)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unforeseen)
    app.after_request(_safe_headers)
    app.wsgi_app = with_request_id(app.wsgi_app)  # type: ignore[method-assign,assignment]
    return app


def _serve_description(app: Flask, rooms: Rooms) -> None:
    """Serve the calls as an OpenAPI document, for tools that make clients or tests of it."""
    text = json.dumps(describe_calls(CALLS, rooms.config.server.public_url))

    @app.get(f"{V1}/openapi.json")
    def openapi() -> Response:
        return Response(text, mimetype="application/json")


def _http_error(error: HTTPException) -> Response:
    """Say unknown paths and wrong methods as clearly as everything else."""
    text, status = f"{(error.name or 'error').lower()}: {error.description}", error.code or 500
    log_refusal(f"{request.method}: {text}", status)
    answer = _refusal(text, status)
    if isinstance(error, MethodNotAllowed):
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return answer


def _unforeseen(error: Exception) -> Response:
    log.error("unforeseen error", exc_info=error)
    text = "the server has a fault; its operators find it in the log by the request id"
    return _refusal(text, 500)


def _refusal(text: str, status: int) -> Response:
    refusal = v1_refusal if request.path.startswith(V1) else legacy_refusal
    return as_json(refusal(text, status), status)


def _safe_headers(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    return response
