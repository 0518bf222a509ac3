"""`panda-server`: starts the embedded server or a worker, looks after the database, installs, checks."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pandaserver import config as configuration
from pandaserver import log as logs
from pandaserver.app import Installation, PandaServer, create_app, read_installation
from pandaserver.config import Config, is_dn
from pandaserver.deploy import command as deploy
from pandaserver.errors import ConfigError, NotFound, PandaError
from pandaserver.externalinterface import sites_command
from pandaserver.externalinterface.sites import load_topology
from pandaserver.taskbuffer import migrate, sources, topology, users
from pandaserver.taskbuffer.clock import utc_now
from pandaserver.taskbuffer.database import Connection, Database
from pandaserver.web.gunicorn_conf import EmbeddedServer, EmbeddedSettings, check_files
from pandaserver.web.identity import compact_name

log = logging.getLogger(__name__)

_EXAMPLE = """example:
  panda-server db upgrade --config panda_server.cfg
  panda-server start --config panda_server.cfg
"""


_DATABASE = """upgrade  make the tables, or bring them up to date; one that was interrupted can be run again
status   tell the revision of the tables, what is to be done, and whether this version can work on them
check    the same, and exit code 1 where this version cannot work on them"""

_DATABASE_EXAMPLE = """example, to replace servers one by one while others run:
  panda-server db upgrade --phase pre     (of the new version: only adds, old servers go on)
  ... restart one server after the other with the new version ...
  panda-server db upgrade                 (takes away what only old servers needed)
"""


_BANNING = {
    "ban": "refuse all calls of these DNs, within seconds; what they have in the queue goes on",
    "unban": "take these DNs' calls again",
    "bans": "list the DNs that are banned, or which of some are",
}
_BAN_EXAMPLE = """example:
  panda-server ban --config panda_server.cfg '/DC=org/O=Grid/CN=Mallory'
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 fine, 1 what was asked failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.run in (deploy.run, sites_command.run):  # what they are about need not be good yet
            return int(options.run(options))
        installation = read_installation(configuration.config_path(options.config), strict=options.run == _check)
        return int(options.run(installation, options) or 0)
    except PandaError as error:
        print(f"panda-server: {error.message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "panda-server", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="default: $PANDA_CONFIG or /etc/panda/panda_server.cfg")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    start = commands.add_parser("start", parents=[common], help="serve HTTPS in the foreground until SIGTERM")
    start.add_argument("--pid-file", type=Path, metavar="FILE")
    start.set_defaults(run=_start)
    work = commands.add_parser("work", parents=[common], help="do only background work, until SIGTERM")
    work.set_defaults(run=_work)
    database = commands.add_parser(
        "db", parents=[common], help="look after the database", description=_DATABASE, epilog=_DATABASE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    database.add_argument("action", choices=["upgrade", "status", "check"])
    database.add_argument(
        "--phase", choices=["pre"], help="upgrade: only as far as servers of the version before go on"
    )
    database.add_argument("--json", action="store_true")
    database.set_defaults(run=_database)
    for name, words in _BANNING.items():
        banning = commands.add_parser(name, parents=[common], help=words, description=words, epilog=_BAN_EXAMPLE,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        banning.add_argument("dns", nargs="*" if name == "bans" else "+", metavar="DN")
        banning.add_argument("--json", action="store_true")
        banning.set_defaults(run=_ban, action=name)
    check = commands.add_parser("check", parents=[common], help="check configuration, certificates and database")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)
    sites = commands.add_parser("sites", help="check the sites file, import queue data, say what is wrong")
    sites_command.add_arguments(sites)
    sites.set_defaults(run=sites_command.run)
    install = commands.add_parser("install", help="put everything in place for Apache, and say what is wrong")
    deploy.add_arguments(install)
    install.set_defaults(run=deploy.run)
    return parser


def _start(installation: Installation, options: argparse.Namespace) -> None:
    config = installation.config
    logs.set_up(config.server.log_level, config.server.log_file)
    servers: list[PandaServer] = []

    def create() -> object:
        servers.append(create_app(installation))
        return servers[0].application

    def each(act: Callable[[PandaServer], None]) -> Callable[[], None]:
        def act_on_all() -> None:
            for server in servers:
                act(server)

        return act_on_all

    database = Database(config.database.write)
    migrate.check_current(database)
    if not database.read(topology.load).queues:
        load_topology(config.grid.sites)  # without it there is nothing to go on with: say so before the workers do
    EmbeddedServer(
        replace(
            _embedded(config, options.pid_file),
            on_worker_start=each(PandaServer.start),
            on_worker_told_to_stop=each(PandaServer.send_waiting_away),
            on_worker_stop=each(PandaServer.stop),
        ),
        create,  # type: ignore[arg-type]
    ).run()


def _work(installation: Installation, _options: argparse.Namespace) -> None:
    """Take part in the background work of all servers; a server that was stopped leaves its share to others."""
    config, told_to_stop = installation.config, threading.Event()
    logs.set_up(config.server.log_level, config.server.log_file)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: told_to_stop.set())
    worker = create_app(installation)
    worker.start_work()
    log.info("working")
    told_to_stop.wait()
    worker.stop()
    log.info("stopped")


def _embedded(config: Config, pid_file: Path | None = None) -> EmbeddedSettings:
    server = config.server
    return EmbeddedSettings(
        host=server.host,
        port=server.port,
        host_cert=server.host_cert,
        host_key=server.host_key,
        ca_directory=server.ca_dir,
        workers=server.workers,
        threads=server.threads,
        pidfile=pid_file,
        log_level=server.log_level.lower(),
    )


def _database(installation: Installation, options: argparse.Namespace) -> int:
    if options.phase and options.action != "upgrade":
        raise ConfigError("--phase belongs to upgrade: panda-server db upgrade --phase pre", field="phase")
    database = Database(installation.config.database.write)
    try:
        if options.action == "upgrade":
            migrate.upgrade(database, phase=migrate.Phase(options.phase) if options.phase else None)
        found = migrate.standing(database)
    finally:
        database.close()
    print(json.dumps(_standing_json(found)) if options.json else _standing_text(found))
    return 1 if options.action == "check" and found.obstacle else 0


def _standing_json(found: migrate.Standing) -> dict[str, object]:
    return {
        "revision": found.revision,
        "newest": found.newest,
        "usable": not found.obstacle,
        "pending": [vars(step) for step in found.pending],
        "message": found.words,
    }


def _standing_text(found: migrate.Standing) -> str:
    lines = [f"schema {found.revision or '(none)'}, this version knows up to {found.newest}: {found.words}"]
    return "\n".join([*lines, *(f"  pending: {s.revision} ({s.phase}) {s.words}" for s in found.pending)])


def _ban(installation: Installation, options: argparse.Namespace) -> int:
    strange = [dn for dn in options.dns if not dn.startswith("/") or not is_dn(dn)]
    if strange:
        raise ConfigError(f"{strange[0]!r} is no DN in slash form, such as /DC=org/O=Grid/CN=Mallory", field="DN")
    database = Database(installation.config.database.write)
    try:
        migrate.check_current(database)
        if options.action != "bans":
            act = _banned if options.action == "ban" else _unbanned
            database.run(lambda c: act(c, options.dns))
        banned = database.read(users.banned)
    finally:
        database.close()
    shown = [dn for dn in banned if not options.dns or dn in options.dns] if options.action == "bans" else banned
    print(json.dumps({"banned": shown}) if options.json else "\n".join(shown) or "nobody is banned")
    return 0


def _banned(connection: Connection, dns: list[str]) -> None:
    for dn in dns:
        users.ban(connection, dn, compact_name(dn), utc_now())


def _unbanned(connection: Connection, dns: list[str]) -> None:
    for dn in dns:
        if not users.set_enabled(connection, dn, True):
            raise NotFound(f"{dn} is not known to this server, so it is not banned", field="DN", value=dn)


def _check(installation: Installation, options: argparse.Namespace) -> int:
    """Try everything the server will need, and say of each whether it is good."""
    findings, config = {"configuration": "good"}, installation.config
    trials: dict[str, Callable[[], object]] = {
        "certificates": lambda: check_files(_embedded(config)),
        "database": lambda: migrate.check_current(Database(config.database.write)),
        "queues": lambda: _check_sources(Database(config.database.write)),
    }
    for name, trial in trials.items():
        try:
            trial()
            findings[name] = "good"
        except (PandaError, OSError) as error:
            findings[name] = str(error)
    print(json.dumps(findings) if options.json else "\n".join(f"{n:14} {text}" for n, text in findings.items()))
    return 0 if set(findings.values()) == {"good"} else 1


def _check_sources(database: Database) -> None:
    """Say what running servers found wrong with the descriptions of queues."""
    migrate.check_current(database)
    problems = [f"{state.place}: {state.problem}" for state in database.read(sources.states) if state.problem]
    if problems:
        raise ConfigError("; ".join(problems))


if __name__ == "__main__":
    sys.exit(main())
