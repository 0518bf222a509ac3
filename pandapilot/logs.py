"""The pilot's own log: to a file and to stderr, with secrets masked and the last warnings kept for the report."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
MASK = "********"
KEPT_LINES = 20


class MaskingFormatter(logging.Formatter):
    """Formats in UTC and masks every known secret, wherever in a line or traceback it stands."""

    converter = staticmethod(time.gmtime)

    def __init__(self, secrets: set[str], form: str = FORMAT) -> None:
        """Keep the set itself: secrets learnt later are masked too."""
        super().__init__(form, datefmt="%Y-%m-%dT%H:%M:%SZ")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Format as usual, then mask."""
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        return line


class _RecentWarnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class PilotLog:
    """Where the log is and what of it concerns the present job."""

    def __init__(self, path: Path) -> None:
        """Open the file and attach it and stderr to the package's logger."""
        self.path = path
        self._secrets: set[str] = set()
        self._recent = _RecentWarnings()
        self._handlers = (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stderr), self._recent)
        self._start = 0
        root = logging.getLogger("pandapilot")
        root.setLevel(logging.INFO)
        for handler in self._handlers:
            handler.setFormatter(MaskingFormatter(self._secrets))
            root.addHandler(handler)

    def begin_job(self, secret: str) -> None:
        """Mask the job's secret from now on and remember where its part of the log starts."""
        if secret:
            self._secrets.add(secret)
        self._recent.lines.clear()
        self._start = self.path.stat().st_size

    def of_job(self) -> bytes:
        """Return the part of the log that was written since the job began."""
        with self.path.open("rb") as stream:
            stream.seek(self._start)
            return stream.read()

    def warnings(self) -> list[str]:
        """Return the last warnings and errors since the job began."""
        return list(self._recent.lines)

    def close(self) -> None:
        """Detach from the logger and close the file."""
        for handler in self._handlers:
            logging.getLogger("pandapilot").removeHandler(handler)
            handler.close()
