"""Puts the monitor together: addresses, cache, frames, headers, and pages for what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask import Flask, Response, redirect, request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from pandamonitor import __version__, svg
from pandamonitor.cache import PageCache, Rendered, make_cache
from pandamonitor.query import Query, address, read_query
from pandamonitor.render import STATIC, fingerprint, render
from pandamonitor.settings import Settings
from pandamonitor.tables import to_json
from pandamonitor.text import iso, utc
from pandamonitor.views import VIEWS
from pandamonitor.views.page import Elsewhere, Monitor, View
from pandaserver.errors import BadInput, NotFound, PandaError
from pandaserver.taskbuffer.clock import Clock, utc_now
from pandaserver.taskbuffer.monitoring import ReadOnlyDatabase, Unreadable

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NAVIGATION = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/sites", "Sites"),
    ("/datasets", "Datasets"),
    ("/transfers", "Transfers"),
    ("/errors", "Errors"),
    ("/timeouts", "Timeouts"),
    ("/server", "Server"),
)
_STATUS = ((BadInput, 400), (NotFound, 404), (Unreadable, 503))
_WORDS = {400: "This cannot be asked", 404: "Not found", 500: "The monitor failed", 503: "No answer from the database"}


def create_app(settings: Settings, clock: Clock = utc_now) -> Flask:
    """Make the WSGI application; the database is opened with the first page."""
    app = Flask("pandamonitor", static_folder=str(STATIC), static_url_path="/static", template_folder=None)
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 86400
    app.url_map.merge_slashes = False  # names of datasets may hold what they like
    monitor = Monitor(ReadOnlyDatabase(settings.database), settings, clock)
    desk = _Desk(monitor, make_cache(settings.cache))
    for view in VIEWS:
        app.add_url_rule(view.rule, view.rule, desk.serve(view), strict_slashes=False)
    app.register_error_handler(Exception, desk.explain)
    app.after_request(_with_headers)
    return app


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@dataclass(frozen=True)
class _Desk:
    """Where requests come in and answers go out."""

    monitor: Monitor
    cache: PageCache

    def serve(self, view: View) -> Callable[..., BaseResponse]:
        """Make the function that answers requests for a page."""

        def answer(**names: object) -> BaseResponse:
            given = request.args.to_dict(flat=False)
            query = read_query(request.script_root, request.path, given, allowed=("format", *view.parameters))
            try:
                page = self.cache.get(
                    query.key, lambda: self._make(view, query, names), for_s=view.keep_s(self.monitor.settings.cache_s)
                )
            except Elsewhere as other:
                return redirect(other.address, 302)
            return self._send(page, query)

        return answer

    def _make(self, view: View, query: Query, names: dict[str, object]) -> Rendered:
        now = self.monitor.clock()
        page = view.build(self.monitor, query, **names)
        kind = query.text("format", "html")
        if kind == "json":
            body = to_json({"made_at": now, "page": query.path, "data": page.data})
            return Rendered(body, "application/json", page.title, iso(now))
        if kind == "csv":
            if page.table is None:
                raise BadInput("this page has no table; there is format=json", field="format", value="csv")
            return Rendered(page.table.csv(), "text/csv", page.title, iso(now))
        main = render(page.template, {"query": query, "now": now, **page.values})
        return Rendered(str(main), "text/html", page.title, iso(now), has_table=page.table is not None)

    def _send(self, page: Rendered, query: Query) -> BaseResponse:
        made_at = datetime.fromisoformat(page.made_at)
        age_s = (self.monitor.clock() - made_at).total_seconds()
        body = self._framed(page, query, age_s) if page.mimetype == "text/html" else page.body
        response = Response(body, mimetype=page.mimetype)
        response.set_etag(page.etag)
        # to be asked for again each time: an answer of a few bytes, when nothing is new
        response.headers["Cache-Control"] = "private, no-cache"
        response.headers["X-Data-Made-At"] = page.made_at
        if page.mimetype == "text/csv":
            response.headers["Content-Disposition"] = "attachment; filename=panda.csv"
        return response.make_conditional(request)

    def _framed(self, page: Rendered, query: Query, age_s: float) -> str:
        made_at = datetime.fromisoformat(page.made_at)
        values = self._frame(query.root, query.path) | {
            "title": page.title,
            "main": Markup(page.body),  # templates that escape have made it  # nosec B704
            "made_at": page.made_at,
            "made_at_text": utc(made_at),
            "age_s": max(0, round(age_s)),
            "stale": page.stale,
            "json": query.href(format="json"),
            "csv": query.href(format="csv") if page.has_table else None,
        }
        return str(render("layout", values))

    def _frame(self, root: str, path: str) -> dict[str, object]:
        settings = self.monitor.settings
        here = next((p for p, _ in reversed(NAVIGATION) if path == p or path.startswith(f"{p}/")), "")
        return {
            "brand": settings.title,
            "version": __version__,
            "refresh_s": settings.refresh_s,
            "navigation": [(address(root, p, {}), word, p == here) for p, word in NAVIGATION],
            "search": address(root, "/search", {}),
            "symbols": svg.symbols(),
            "static": lambda name: f"{root}/static/{name}?v={fingerprint(name)}",
        }

    def explain(self, error: Exception) -> Response:
        """Tell what was wrong, with which value, and what to do; the log has the rest."""
        if isinstance(error, HTTPException):
            status, message, field = error.code or 500, error.description or error.name, None
        elif isinstance(error, PandaError):
            status = next((code for kind, code in _STATUS if isinstance(error, kind)), 422)
            message, field = error.message, error.field
        else:
            log.exception("page %s failed", request.path)
            status, message, field = 500, "The reason is in the log of the monitor.", None
        value = getattr(error, "value", None)
        if request.args.get("format") == "json":
            told = {"error": {"status": status, "message": message, "field": field, "value": value}}
            return Response(to_json(told), status, mimetype="application/json")
        values = self._frame(request.script_root, request.path) | {"title": _WORDS.get(status, message)}
        main = render("problem", {"status": status, "message": message, "field": field, "value": value, **values})
        nothing: dict[str, object] = {"made_at": None, "made_at_text": "", "age_s": 0, "stale": False, "json": None}
        return Response(str(render("layout", values | nothing | {"main": main, "csv": None})), status)
