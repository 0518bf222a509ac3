"""The command line of the pilot."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pandapilot import __version__, host
from pandapilot.clock import SystemClock
from pandapilot.codes import ExitCode
from pandapilot.failures import CannotWork, Interrupted
from pandapilot.files import remove_tree
from pandapilot.limits import MIB, STDOUT_LIMIT_BYTES
from pandapilot.logs import PilotLog
from pandapilot.pilot import Pilot
from pandapilot.processes import harden
from pandapilot.report import Sender
from pandapilot.runner import Site, Tools
from pandapilot.server import Server
from pandapilot.settings import Settings, find_identity, server_url
from pandapilot.signals import Signals

logger = logging.getLogger(__name__)

_EPILOG = """\
example:
  panda-pilot --server https://panda.example.org:25443 --queue EXAMPLE_Q --work-dir /scratch --max-jobs 1

environment: X509_USER_PROXY (proxy with certificate and key), X509_CERT_DIR (directory of trusted CAs)

exit codes: 0 all went well, with or without jobs; 2 wrong arguments;
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a pilot and return the exit code of its process."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        url = server_url(options.server, insecure_http=options.insecure_http)
    except ValueError as error:
        parser.error(str(error))
    try:
        return _run(_settings(url, options))
    except CannotWork as error:
        print(f"panda-pilot: {error}", file=sys.stderr)
        return error.exit_code


def _run(settings: Settings) -> int:
    """Prepare the pilot's directory and tools, and remove and close them in the end."""
    signals = Signals()
    signals.install()
    harden()
    directory = _make_directory(settings.work_directory)
    log = _open_log(settings.log_file or directory / "pilot.log", directory)
    tools = _tools(settings, signals, log=log, directory=directory)
    try:
        return _work(tools)
    finally:
        tools.server.close()
        log.close()
        remove_tree(directory)


def _work(tools: Tools) -> int:
    """Let the pilot live its life and translate its end into an exit code."""
    logger.info("pilot %s %s for queue %s", tools.sender.pilot_id, __version__, tools.settings.queue)
    code = ExitCode.OK
    try:
        pilot = Pilot(tools)
        if tools.settings.dry_run:
            print(json.dumps(_plan(tools, pilot.first_site()), indent=1, sort_keys=True))
        else:
            pilot.run()
    except CannotWork as error:
        logger.error("%s", error)
        code = error.exit_code
    except Interrupted:
        pass
    except Exception:
        logger.exception("unexpected error")
        code = ExitCode.INTERNAL
    if tools.signals.received is not None:
        return 128 + tools.signals.received
    return code


def _plan(tools: Tools, site: Site) -> dict[str, Any]:
    """Tell what this pilot would work with."""
    settings = tools.settings
    return {
        "server": settings.server,
        "queue": {**asdict(site.queue), "environment": dict(site.queue.environment)},
        "endpoints": {name: asdict(endpoint) for name, endpoint in site.endpoints.items()},
        "node": {
            "name": tools.sender.node,
            "memory_mb": host.memory_mb(),
            "free_disk_mb": host.free_disk_mb(tools.directory),
        },
        "limits": {
            "lifetime_s": settings.lifetime_s,
            "reserve_s": settings.reserve_s,
            "max_jobs": settings.max_jobs,
            "looping_s": settings.looping_s,
            "stdout_mb": STDOUT_LIMIT_BYTES // MIB,
        },
    }


def _tools(settings: Settings, signals: Signals, *, log: PilotLog, directory: Path) -> Tools:
    clock = SystemClock()
    return Tools(
        settings=settings,
        server=Server(settings.server, settings.identity, clock),
        clock=clock,
        signals=signals,
        log=log,
        sender=Sender(settings.queue, host.node_name(), settings.pilot_id or directory.name, settings.scheduler_id),
        directory=directory,
        deadline=clock.now() + settings.lifetime_s,
    )


def _make_directory(parent: Path) -> Path:
    directory = parent / f"pilot-{uuid.uuid4()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise CannotWork(ExitCode.NO_WORK_DIRECTORY, f"work directory {parent} cannot be used: {error}") from None
    return directory


def _open_log(path: Path, directory: Path) -> PilotLog:
    try:
        return PilotLog(path)
    except OSError as error:
        remove_tree(directory)
        raise CannotWork(ExitCode.NO_WORK_DIRECTORY, f"log file {path} cannot be written: {error}") from None


def _settings(url: str, options: argparse.Namespace) -> Settings:
    return Settings(
        server=url,
        queue=options.queue,
        identity=find_identity(url, options.proxy, options.ca_dir),
        work_directory=options.work_dir.absolute(),
        pilot_id=options.pilot_id,
        scheduler_id=options.scheduler_id,
        label=options.label,
        lifetime_s=options.lifetime,
        max_jobs=options.max_jobs,
        idle_s=options.idle_time,
        poll_interval_s=options.poll_interval,
        wait_s=options.wait,
        heartbeat_s=options.heartbeat,
        final_update_s=options.final_update_time,
        looping_s=options.looping_time,
        check_interval_s=options.check_interval,
        kill_grace_s=options.kill_grace,
        retry_pause_s=options.retry_pause,
        log_file=options.log_file.absolute() if options.log_file else None,
        dry_run=options.dry_run,
    )


def _parser() -> argparse.ArgumentParser:
    codes = ";\n".join(f"  {code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode if code)
    parser = argparse.ArgumentParser(
        prog="panda-pilot",
        description="Takes jobs for a queue from the PanDA server and runs them here.",
        epilog=f"{_EPILOG}{codes};\n  128 + n stopped by signal n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--server", required=True, metavar="URL", help="PanDA server, like https://host:25443")
    parser.add_argument("--queue", required=True, help="name of the PanDA queue to take jobs from")
    parser.add_argument("--label", choices=("managed", "user", "test"), help="take only jobs with this prodSourceLabel")
    parser.add_argument("--proxy", metavar="FILE", help="grid proxy: PEM file with certificate and key")
    parser.add_argument("--ca-dir", metavar="DIR", help="directory with hashed certificates of the trusted CAs")
    parser.add_argument("--work-dir", type=Path, default=Path(), metavar="DIR", help="where jobs work (default: here)")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="keep the pilot's log in this file")
    parser.add_argument("--pilot-id", default="", metavar="TEXT", help="name of this pilot for the server")
    parser.add_argument(
        "--scheduler-id", default=os.environ.get("PANDA_JSID", "unknown"), metavar="TEXT", help="who sent this pilot"
    )
    parser.add_argument("--max-jobs", type=_count, default=0, metavar="N", help="end after so many jobs (0: no limit)")
    parser.add_argument("--dry-run", action="store_true", help="print queue data and limits, take no job")
    parser.add_argument("--insecure-http", action="store_true", help="allow a plain http server on this very machine")
    _add_times(parser)
    return parser


def _add_times(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group("times, in seconds")
    for name, default, meaning in (
        ("lifetime", 86400.0, "life of the pilot; a job still running near its end is stopped"),
        ("idle-time", 60.0, "how long to keep asking when there is no job"),
        ("poll-interval", 10.0, "time between two questions for a job"),
        ("wait", 30.0, "how long to let the server wait for a job before it answers a question (0: not)"),
        ("heartbeat", 0.0, "time between two heartbeats (0: as the server says)"),
        ("final-update-time", 1200.0, "how long to repeat a final report, or a request for a job, without an answer"),
        ("looping-time", 10800.0, "stop a payload that touches no file for so long (0: never)"),
        ("check-interval", 5.0, "time between two measurements of the payload"),
        ("kill-grace", 10.0, "time for a payload to end by itself before it is killed"),
        ("retry-pause", 5.0, "time before a failed copy or download is tried again"),
    ):
        times.add_argument(f"--{name}", type=_seconds, default=default, metavar="S", help=f"{meaning} ({default:g})")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
