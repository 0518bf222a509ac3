"""Numbers requests: users see the id in a header and in error messages, operators on every line of the log."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from pandaserver import log as logs
from pandaserver.errors import shorten

HEADER = "X-Request-ID"

_current: ContextVar[str] = ContextVar("request_id", default="-")


def current_request_id() -> str:
    """Tell the id of the request that is being answered."""
    return _current.get()


def with_request_id(application: WSGIApplication) -> WSGIApplication:
    """Wrap an application; also the answers to what it does not foresee carry the id."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request_id = uuid.uuid4().hex[:12]

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, (HEADER, request_id)], *error)

        token = _current.set(request_id)
        try:
            with logs.context(f"{shorten(_called(environ), 60)} {request_id}"):
                return application(environ, start)
        finally:
            _current.reset(token)

    return serve


def _called(environ: WSGIEnvironment) -> str:
    return str(environ.get("PATH_INFO", "")).removeprefix("/server/panda/").removeprefix("/api/v1/") or "/"
