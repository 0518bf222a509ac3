"""The Flask application: both dialects, the cache, and errors that nobody foresaw."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from flask import Flask, Response, request, send_from_directory
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoSuchPage

from pandaserver.errors import NotFound
from pandaserver.externalinterface import information
from pandaserver.web.callers import Callers
from pandaserver.web.calls import Rooms
from pandaserver.web.dialects import (
    V1,
    Server,
    as_json,
    legacy_dialect,
    legacy_error,
    legacy_refusal,
    v1_dialect,
    v1_refusal,
)
from pandaserver.web.grid_calls import GRID_CALLS
from pandaserver.web.openapi import describe_calls
from pandaserver.web.pilot_calls import PILOT_CALLS
from pandaserver.web.requestid import with_request_id
from pandaserver.web.role_calls import with_table
from pandaserver.web.user_calls import USER_CALLS

log = logging.getLogger(__name__)

CALLS = with_table((*GRID_CALLS, *USER_CALLS, *PILOT_CALLS))


def make_application(rooms: Rooms, callers: Callers) -> Flask:
    """Put the web part together."""
    app = Flask("pandaserver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = (rooms.config.cache.max_upload_mb + 1) * 1024 * 1024
    server = Server(rooms, callers)
    app.register_blueprint(legacy_dialect(server, CALLS))
    app.register_blueprint(v1_dialect(server, CALLS))
    _serve_cache(app, rooms)
    _serve_description(app, rooms)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unforeseen)
    app.after_request(_safe_headers)
    app.wsgi_app = with_request_id(app.wsgi_app)  # type: ignore[method-assign,assignment]
    return app


def _serve_cache(app: Flask, rooms: Rooms) -> None:
    """Serve sandboxes and grid information; worker nodes fetch them without a certificate."""
    directory: Path = rooms.config.cache.directory.absolute()

    @app.get("/cache/schedconfig/<queue>.all.json")
    def queue_data(queue: str) -> Response:
        try:
            return as_json(information.queue_data(information.queue(rooms.buffer, queue)))
        except NotFound as error:
            return legacy_error(error)

    @app.get("/cache/ddmendpoints.json")
    def storage_data() -> Response:
        endpoints = information.grid(rooms.buffer).endpoints
        return as_json({name: information.storage_data(endpoint) for name, endpoint in endpoints.items()})

    @app.get("/cache/<name>")
    def sandbox(name: str) -> Response:
        if name.startswith("."):  # files still being written
            raise NoSuchPage
        return send_from_directory(directory, name, mimetype="application/octet-stream")


def _serve_description(app: Flask, rooms: Rooms) -> None:
    """Serve the calls as an OpenAPI document, for tools that make clients or tests of it."""
    text = json.dumps(describe_calls(CALLS, rooms.config.server.public_url))

    @app.get(f"{V1}/openapi.json")
    def openapi() -> Response:
        return Response(text, mimetype="application/json")


def _http_error(error: HTTPException) -> Response:
    """Say unknown paths and wrong methods as clearly as everything else."""
    answer = _refusal(f"{(error.name or 'error').lower()}: {error.description}", error.code or 500)
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
