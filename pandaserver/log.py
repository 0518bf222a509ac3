"""Logging for the server: one line per event, with the request's or the work's id on every line."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_context: ContextVar[str] = ContextVar("log_context", default="-")

FORMAT = "%(asctime)s %(levelname)s %(name)s [%(context)s] %(message)s"


class _ContextFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.context = _context.get()
        return True


def set_up(level: str = "INFO", file: Path | None = None) -> None:
    """Send the log to a file (reopened when logrotate moves it) or to stderr."""
    handler: logging.Handler = logging.handlers.WatchedFileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(_OneLine(FORMAT))
    handler.addFilter(_ContextFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class _OneLine(logging.Formatter):
    """Writes a message on one line: what came from outside must not look like a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        record.message = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in record.message)
        return super().formatMessage(record)


@contextmanager
def context(text: str) -> Iterator[None]:
    """Put `text` on every line logged inside."""
    token = _context.set(text)
    try:
        yield
    finally:
        _context.reset(token)


def current_context() -> str:
    """Tell the id that log lines carry now; users see it in error messages."""
    return _context.get()
