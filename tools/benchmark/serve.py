"""A child process: the server under measurement, with threads that have names and, over plain HTTP, test people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from flask import Flask, request
from gunicorn.app.base import BaseApplication

from benchmark.naming import name_threads
from benchmark.people import all_variables, with_test_people
from pandaserver import command
from pandaserver import log as logs
from pandaserver.app import Installation, PandaServer, create_app, read_installation
from pandaserver.web.gunicorn_conf import EmbeddedSettings, options

_TLS_OPTIONS = ("certfile", "keyfile", "ssl_context")


class PlainServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The embedded server without TLS: same workers, threads and limits."""

    def __init__(self, settings: EmbeddedSettings, create: Callable[[], WSGIApplication]) -> None:
        self._chosen = {name: value for name, value in options(settings).items() if name not in _TLS_OPTIONS}
        self._create = create
        super().__init__()

    def load_config(self) -> None:
        """Hand over the settings."""
        for name, value in self._chosen.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Make the application, in the worker."""
        return self._create()


def empty_application() -> WSGIApplication:
    """Make a Flask application that reads JSON and answers JSON, and does nothing else."""
    app = Flask("empty", static_folder=None)

    @app.post("/empty")
    def empty() -> dict[str, Any]:
        told = request.get_json()
        return {"StatusCode": 0, "told": len(told)}

    @app.get("/server/panda/isAlive")
    def is_alive() -> str:
        return "alive=yes"

    return app.wsgi_app


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="benchmark.serve", description=__doc__)
    parser.add_argument("kind", choices=["https", "http", "empty"])
    parser.add_argument("config", type=Path)
    chosen = parser.parse_args()
    name_threads()
    if chosen.kind == "https":
        return command.main(["start", "--config", str(chosen.config)])
    serve_plain(read_installation(chosen.config), empty=chosen.kind == "empty")
    return 0


def serve_plain(installation: Installation, *, empty: bool) -> None:
    """Serve PanDA, or nothing, over plain HTTP."""
    settings = installation.config
    logs.set_up(settings.server.log_level, settings.server.log_file)
    people = all_variables(settings.server.host_cert.parent)
    servers: list[PandaServer] = []

    def create() -> WSGIApplication:
        if empty:
            return empty_application()
        servers.append(create_app(installation))
        return with_test_people(servers[0].application, people)

    def each(act: Callable[[PandaServer], None]) -> Callable[[], None]:
        def act_on_all() -> None:
            for one in servers:
                act(one)

        return act_on_all

    server = settings.server
    embedded = EmbeddedSettings(
        server.host_cert, server.host_key, server.ca_dir,
        port=server.port, workers=server.workers, threads=server.threads, log_level=server.log_level.lower(),
        on_worker_start=each(PandaServer.start), on_worker_stop=each(PandaServer.stop),
    )  # fmt: skip
    PlainServer(embedded, create).run()


if __name__ == "__main__":
    sys.exit(main())
