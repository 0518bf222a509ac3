"""`panda-server sites`: checks a sites file, imports queue data, shows where the grid is described."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pandaserver import config as configuration
from pandaserver.config import Config
from pandaserver.errors import ConfigError
from pandaserver.externalinterface.cric_import import CricImport, Imported, shown
from pandaserver.externalinterface.sites import Mistake, SitesError, load_topology
from pandaserver.externalinterface.words import counted
from pandaserver.model.grid import SOURCES
from pandaserver.taskbuffer import migrate, sources
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database

_ABOUT = """check FILE       say all that is wrong with a sites file; exit code 1 if anything is
import           bring queue and storage data as CRIC publishes them into the database
status           say where queues are described, what changed last, what is wrong; exit code 1 if anything is"""
_EXAMPLE = """examples:
  panda-server sites check sites.cfg
  panda-server sites import --cric queues.json --endpoints ddmendpoints.json --dry-run
  panda-server sites import --cric https://cric.example.org/queues.json
  panda-server sites status --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description, parser.epilog = _ABOUT, _EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--config", metavar="FILE", help="default: $PANDA_CONFIG or /etc/panda/panda_server.cfg")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", parents=[common], help="say all that is wrong with a sites file")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(act=_check)
    bring = actions.add_parser("import", parents=[common, server], help="import queue data as CRIC publishes them")
    bring.add_argument("--cric", metavar="FILE|URL", help="queue data (that of [grid] cric)")
    bring.add_argument("--endpoints", metavar="FILE|URL", help="storage data (that of [grid] cric_endpoints)")
    bring.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")
    bring.set_defaults(act=_import)
    status = actions.add_parser("status", parents=[common, server], help="say where queues are described")
    status.set_defaults(act=_status)


def run(options: argparse.Namespace) -> int:
    """Do it; 0 when all is good, 1 when something is bad."""
    code, document, lines = options.act(options)
    sys.stdout.write((json.dumps(document, indent=1) if options.json else "\n".join(lines)) + "\n")
    return int(code)


_Answer = tuple[int, dict[str, Any], Sequence[str]]


def _check(options: argparse.Namespace) -> _Answer:
    path: Path = options.file
    try:
        grid = load_topology(path)
    except SitesError as error:
        mistakes = [_mistake(one) for one in error.mistakes]
        number = counted(len(mistakes), "mistake")
        return 1, {"good": False, "mistakes": mistakes}, [*map(str, error.mistakes), f"{path}: {number}"]
    told = {"good": True, "mistakes": [], "queues": sorted(grid.queues), "endpoints": sorted(grid.endpoints)}
    return 0, told, [f"{path}: good, {_read(len(grid.queues), len(grid.endpoints))}"]


def _read(queues: int, endpoints: int) -> str:
    return f"{counted(queues, 'queue')} and {counted(endpoints, 'endpoint')}"


def _mistake(one: Mistake) -> dict[str, str | None]:
    return {"place": one.place, "key": one.key, "value": one.value, "message": one.text}


def _import(options: argparse.Namespace) -> _Answer:
    config = configuration.load(configuration.config_path(options.config))
    queues, endpoints = options.cric or config.grid.cric, options.endpoints
    if not queues:
        raise ConfigError("import from where? Give --cric FILE|URL, or set [grid] cric", field="cric")
    if endpoints is None:
        endpoints = "" if options.cric else config.grid.cric_endpoints
    with _buffer(config) as buffer:
        done = CricImport(buffer, queues, endpoints, config.server.ca_dir).run(dry=options.dry_run)
    document = {
        "dry_run": options.dry_run,
        "queues": done.queues,
        "endpoints": done.endpoints,
        "changes": [str(change) for change in done.changes],
        "left_out": [_mistake(one) for one in done.mistakes],
        "from_sites_file": list(done.from_file),
    }
    return 0, document, _said(done, dry=options.dry_run)


def _said(done: Imported, *, dry: bool) -> list[str]:
    lines = [str(change) for change in done.changes]
    lines += [shown(done.mistakes)] if done.mistakes else []
    if done.from_file:
        lines.append(f"described by the sites file, which goes before: {', '.join(done.from_file)}")
    result = counted(len(done.changes), "change") if done.changes else "nothing new"
    would = ", nothing is changed by this dry run" if dry else ""
    left_out = f"; {counted(len(done.mistakes), 'entry', 'entries')} left out" if done.mistakes else ""
    return [*lines, f"{_read(done.queues, done.endpoints)} read: {result}{left_out}{would}"]


def _status(options: argparse.Namespace) -> _Answer:
    config = configuration.load(configuration.config_path(options.config))
    with _buffer(config) as buffer:
        found = buffer.read(sources.states)
    lines, document = [], []
    for state in found:
        moments = {name: getattr(state, name) for name in ("read_at", "changed_at", "problem_at")}
        told = {name: moment.isoformat() if moment else None for name, moment in moments.items()}
        texts = {"source": state.name.value, "place": state.place, "changes": state.changes, "problem": state.problem}
        document.append(texts | told)
        lines += _lines(state)
    bad = any(state.problem for state in found)
    nothing = ["no server has read any description of queues yet"]
    return int(bad), {"good": not bad, "sources": document}, lines or nothing


def _lines(state: sources.SourceState) -> list[str]:
    good = f"read {state.read_at:%Y-%m-%d %H:%M:%S} UTC" if state.read_at else "never read"
    lines = [f"{SOURCES[state.name]} {state.place}: {good}"]
    if state.changed_at:
        lines.append(f"  last change {state.changed_at:%Y-%m-%d %H:%M:%S} UTC:")
        lines += [f"    {line}" for line in (state.changes or "").splitlines()]
    if state.problem:
        lines.append(f"  WRONG since {state.problem_at:%Y-%m-%d %H:%M:%S} UTC, what was read before goes on to hold:")
        lines += [f"    {line}" for line in state.problem.splitlines()]
    return lines


@contextmanager
def _buffer(config: Config) -> Iterator[TaskBuffer]:
    database = Database(config.database.write)
    try:
        migrate.check_current(database)
        yield TaskBuffer(database)
    finally:
        database.close()
