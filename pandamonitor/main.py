"""`panda-monitor`: serves the web monitor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pandamonitor.serve import MonitorServer
from pandamonitor.settings import load
from pandaserver import log
from pandaserver.errors import PandaError

_EXAMPLE = """example:
  panda-monitor --database mysql+pymysql://reader:secret@db.example.org/panda --port 25980
  panda-monitor --config /etc/panda/monitor.cfg
"""
_FLAGS = {
    "database": ("URL", "SQLAlchemy URL; a read-only account or a replica is enough"),
    "server-config": ("FILE", "the server's configuration: its database, its timeouts"),
    "host": ("ADDRESS", "where to listen (127.0.0.1)"),
    "port": ("PORT", "where to listen (25980)"),
    "cache": ("CACHE", "memory, or memcached:HOST:PORT for several monitors (memory)"),
    "cache-s": ("SECONDS", "how long a page is shown to others before it is made again (20)"),
    "refresh-s": ("SECONDS", "how often open pages refresh themselves (30)"),
    "title": ("TEXT", "name in the header (PanDA monitor)"),
    "threads": ("NUMBER", "requests served at once (8)"),
    "log-level": ("LEVEL", "DEBUG, INFO, WARNING or ERROR (INFO)"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 fine, 1 the settings are wrong, 2 wrong usage."""
    options = vars(_parser().parse_args(arguments))
    file = options.pop("config")
    try:
        settings = load(file, options)
        log.set_up(settings.log_level)
        MonitorServer(settings).run()
    except PandaError as error:
        print(f"panda-monitor: {error.message}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "panda-monitor", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as an INI file; flags count more")
    for name, (value, text) in _FLAGS.items():
        parser.add_argument(f"--{name}", metavar=value, help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
