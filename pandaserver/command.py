"""`panda-server`: starts the embedded server, looks after the database, checks the configuration."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pandaserver import config as configuration
from pandaserver import log as logs
from pandaserver.app import Installation, PandaServer, create_app, read_installation
from pandaserver.config import Config
from pandaserver.errors import PandaError
from pandaserver.taskbuffer import migrate
from pandaserver.taskbuffer.database import Database
from pandaserver.web.gunicorn_conf import EmbeddedServer, EmbeddedSettings, check_files

log = logging.getLogger(__name__)

_EXAMPLE = """example:
  panda-server db upgrade --config panda_server.cfg
  panda-server start --config panda_server.cfg
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 fine, 1 what was asked failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        installation = read_installation(configuration.config_path(options.config))
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
    database = commands.add_parser("db", parents=[common], help="look after the database")
    database.add_argument("action", choices=["upgrade", "status"])
    database.set_defaults(run=_database)
    check = commands.add_parser("check", parents=[common], help="check configuration, certificates and database")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)
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

    migrate.check_current(Database(config.database.write))
    EmbeddedServer(
        replace(
            _embedded(config, options.pid_file),
            on_worker_start=each(PandaServer.start),
            on_worker_told_to_stop=each(PandaServer.send_waiting_away),
            on_worker_stop=each(PandaServer.stop),
        ),
        create,  # type: ignore[arg-type]
    ).run()


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


def _database(installation: Installation, options: argparse.Namespace) -> None:
    database = Database(installation.config.database.write)
    if options.action == "upgrade":
        migrate.upgrade(database)
    print(f"schema {migrate.current_revision(database) or '(none)'}, this version needs {migrate.newest_revision()}")
    database.close()


def _check(installation: Installation, options: argparse.Namespace) -> int:
    """Try everything the server will need, and say of each whether it is good."""
    findings, config = {"configuration": "good"}, installation.config
    trials: dict[str, Callable[[], object]] = {
        "certificates": lambda: check_files(_embedded(config)),
        "database": lambda: migrate.check_current(Database(config.database.write)),
    }
    for name, trial in trials.items():
        try:
            trial()
            findings[name] = "good"
        except (PandaError, OSError) as error:
            findings[name] = str(error)
    print(json.dumps(findings) if options.json else "\n".join(f"{n:14} {text}" for n, text in findings.items()))
    return 0 if set(findings.values()) == {"good"} else 1


if __name__ == "__main__":
    sys.exit(main())
