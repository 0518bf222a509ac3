"""The command panda-scheduler."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from threading import Event

from schedulers import __version__, memory
from schedulers.batch.load import open_batch_system
from schedulers.batch.protocol import BatchSettings, BatchSystem
from schedulers.config import ON_STOP, Config, read_config
from schedulers.engine import Services, adopt, run_forever, run_once, stop_pilots
from schedulers.errors import SchedulerError
from schedulers.memory import Memory
from schedulers.report import CycleReport
from schedulers.server import PandaServer

log = logging.getLogger(__name__)

EXAMPLE = """\
examples:
  panda-scheduler generic --config /etc/panda/scheduler.cfg
  panda-scheduler generic --config scheduler.cfg --once --dry-run --json
"""


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="panda-scheduler",
        description="Keep batch systems supplied with pilots, as many as the jobs that wait can use.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    generic = commands.add_parser(
        "generic",
        help="send pilots to the back end named in the configuration",
        description="Send pilots to the back end named in the configuration, until SIGTERM or SIGINT.",
        epilog=f"{EXAMPLE}\nexit codes: 0 well, 1 a single cycle could not be done, 2 the scheduler could not begin",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    generic.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="configuration; see conf/scheduler.cfg"
    )
    generic.add_argument("--once", action="store_true", help="do one cycle and end; the pilots live on")
    generic.add_argument("--dry-run", action="store_true", help="say what would be sent, send nothing, change nothing")
    generic.add_argument("--json", action="store_true", help="print one JSON object per cycle instead of a table")
    generic.add_argument("--log-file", type=Path, metavar="FILE", help="append the log here; standard error without it")
    generic.add_argument("--on-stop", choices=ON_STOP, help="what becomes of the pilots at the end; overrides the file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        _log_to(options.log_file)
        return _generic(options, read_config(options.config))
    except SchedulerError as error:
        print(f"panda-scheduler: {error}", file=sys.stderr)
        return 2


def _generic(options: argparse.Namespace, config: Config) -> int:
    scheduler = config.scheduler
    batch = open_batch_system(scheduler.back_end, _settings(config, look_only=options.dry_run))
    with (
        _holding(scheduler.state_dir, dry_run=options.dry_run),
        PandaServer(
            scheduler.server, proxy=scheduler.proxy, ca_dir=scheduler.ca_dir, timeout_s=scheduler.request_timeout_s
        ) as server,
    ):
        remembered = memory.load(scheduler.state_dir)
        adopt(batch, remembered)
        show = _json_printer() if options.json else _table_printer()
        cycle = _cycle(config, Services(server, batch), remembered, dry_run=options.dry_run)
        if options.once:
            report = cycle()
            show(report)
            return 1 if report.problem else 0
        stop = _stop_on_signals()
        run_forever(lambda: show(cycle()), interval_s=scheduler.interval_s, stop=stop)
        return _end(batch, config, cancel=(options.on_stop or scheduler.on_stop) == "cancel" and not options.dry_run)


def _settings(config: Config, *, look_only: bool) -> BatchSettings:
    scheduler = config.scheduler
    return BatchSettings(
        scheduler.state_dir,
        scheduler.scheduler_id,
        slots={queue.name: queue.slots for queue in config.queues},
        command_prefix=scheduler.command_prefix,
        stop_grace_s=scheduler.stop_grace_s,
        keep_logs_s=scheduler.keep_logs_s,
        look_only=look_only,
    )


def _holding(state_dir: Path, *, dry_run: bool) -> AbstractContextManager[None]:
    return nullcontext() if dry_run else memory.only_scheduler(state_dir)


def _cycle(config: Config, services: Services, remembered: Memory, *, dry_run: bool) -> Callable[[], CycleReport]:
    saved: list[Memory] = []

    def cycle() -> CycleReport:
        report = run_once(config, services, remembered, dry_run=dry_run)
        if not dry_run and saved != [remembered]:
            memory.save(remembered, config.scheduler.state_dir)
            saved[:] = [deepcopy(remembered)]
        return report

    return cycle


def _json_printer() -> Callable[[CycleReport], None]:
    return lambda report: print(json.dumps(report.as_json()), flush=True)


def _table_printer() -> Callable[[CycleReport], None]:
    """Print a table when it differs from the last one, so that a quiet hour leaves a quiet screen."""
    last: list[str] = []

    def show(report: CycleReport) -> None:
        table = report.as_table()
        if last != [table]:
            print(f"{report.at:%Y-%m-%d %H:%M:%S} UTC\n{table}", flush=True)
            last[:] = [table]

    return show


def _stop_on_signals() -> Event:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _end(batch: BatchSystem, config: Config, *, cancel: bool) -> int:
    if not cancel:
        log.info("stopped; the pilots live on")
        return 0
    left = stop_pilots(batch, wait=Event().wait, patience_s=config.scheduler.stop_grace_s + 10)
    if left:
        log.error("%d pilots could not be stopped", left)
    return 1 if left else 0


def _log_to(path: Path | None) -> None:
    try:
        handler: logging.Handler = logging.FileHandler(path) if path else logging.StreamHandler()
    except OSError as error:
        raise SchedulerError(f"--log-file {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
