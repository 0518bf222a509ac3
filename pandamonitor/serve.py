"""Runs the monitor without Apache: gunicorn, plain HTTP, one process whose threads share one cache."""

from __future__ import annotations

from wsgiref.types import WSGIApplication

from gunicorn.app.base import BaseApplication

from pandamonitor.app import create_app
from pandamonitor.settings import Settings


class MonitorServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`MonitorServer(settings).run()` serves until SIGTERM."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Hand over the settings: no file, command line or GUNICORN_CMD_ARGS is read."""
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Make the application; this happens after the fork, so that no database connection is shared."""
        return create_app(self._settings)


def options(settings: Settings) -> dict[str, object]:
    """Give gunicorn's settings."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "proc_name": "panda-monitor",
        "workers": 1,
        "threads": settings.threads,
        "worker_class": "gthread",
        "timeout": 60,
        "graceful_timeout": 5,
        "keepalive": 15,
        "limit_request_line": 8190,
        "limit_request_fields": 60,
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "control_socket_disable": True,
        "errorlog": "-",
        "loglevel": settings.log_level.lower(),
    }
