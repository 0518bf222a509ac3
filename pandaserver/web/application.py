"""The Flask application: both dialects, the cache, and errors that nobody foresaw."""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Flask, Response, send_from_directory
from werkzeug.exceptions import HTTPException

from pandaserver.errors import NotFound
from pandaserver.externalinterface import information
from pandaserver.web.calls import Rooms
from pandaserver.web.dialects import Server, as_json, legacy_dialect, legacy_error, v1_dialect
from pandaserver.web.grid_calls import GRID_CALLS
from pandaserver.web.identity import IdentityCache
from pandaserver.web.pilot_calls import PILOT_CALLS
from pandaserver.web.user_calls import USER_CALLS

log = logging.getLogger(__name__)

CALLS = (*GRID_CALLS, *USER_CALLS, *PILOT_CALLS)


def make_application(rooms: Rooms, identities: IdentityCache) -> Flask:
    """Put the web part together."""
    app = Flask("pandaserver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = (rooms.config.cache.max_upload_mb + 1) * 1024 * 1024
    server = Server(rooms, identities)
    app.register_blueprint(legacy_dialect(server, CALLS))
    app.register_blueprint(v1_dialect(server, CALLS))
    _serve_cache(app, rooms)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unforeseen)
    app.after_request(_safe_headers)
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
        return send_from_directory(directory, name, mimetype="application/octet-stream")


def _http_error(error: HTTPException) -> Response:
    """Say unknown paths and wrong methods as clearly as everything else."""
    name = (error.name or "error").lower()
    return as_json(
        {"StatusCode": 30, "message": f"{name}: {error.description}", "field": None, "value": None}, error.code or 500
    )


def _unforeseen(error: Exception) -> Response:
    log.error("unforeseen error", exc_info=error)
    text = "the server has a fault; its operators find it in the log by the request id"
    return as_json({"StatusCode": 30, "message": text, "field": None, "value": None}, 500)


def _safe_headers(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    return response
