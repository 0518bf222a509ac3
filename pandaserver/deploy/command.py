"""`panda-server install`: puts the configuration in place, and says what is still wrong."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pandaserver import config as configuration
from pandaserver.deploy.checks import Finding, Verdict, check_all
from pandaserver.deploy.layout import LAYOUTS, detect
from pandaserver.deploy.place import Step, place
from pandaserver.deploy.plan import Choices, make_plan

_ABOUT = """Puts in place: Apache's configuration (HTTPS on 25443, plain reading on 25080), PanDA's own below
/etc/panda (only where there is none yet), systemd units, log rotation. Then looks at all that the server
will need and says in words what is wrong. It can be run again at any time, for example after an upgrade."""
_EXAMPLE = """examples:
  panda-server install --dry-run                       what would be done, and what is wrong now
  panda-server install --server-name panda.example.org --monitor-port 443
  panda-server install --check                         only look
  panda-server install --prefix ~/panda --user $USER   an Apache of its own in a folder; needs no root
"""
_DEFAULTS = Choices(layout=LAYOUTS["debian"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description, parser.epilog = _ABOUT, _EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--prefix", type=Path, default=Path("/"), help="put everything below this folder (/)")
    parser.add_argument("--layout", choices=sorted(LAYOUTS), help="family of the distribution; else found out")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    action.add_argument("--check", action="store_true", help="put nothing in place, only look")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--server-name", default=_DEFAULTS.server_name, help="as clients call this host (localhost)")
    parser.add_argument("--address", default="", help="listen on this address only")
    parser.add_argument("--user", default=_DEFAULTS.user, help="as whom the server runs, not as Apache (panda)")
    parser.add_argument("--group", default=_DEFAULTS.group, help="group of that user (panda)")
    parser.add_argument("--scheduler-user", default=_DEFAULTS.scheduler_user, help="who sends pilots (panda-pilot)")
    parser.add_argument("--apache-user", default="", help="as whom Apache runs (that of the distribution)")
    parser.add_argument("--processes", type=int, default=_DEFAULTS.processes, help="processes of the server (2)")
    for name, help_text in (("tls", "HTTPS (25443)"), ("plain", "plain HTTP, only for reading (25080)")):
        default = getattr(_DEFAULTS, f"{name}_port")
        parser.add_argument(f"--{name}-port", type=int, default=default, help=f"port of {help_text}")
    parser.add_argument("--monitor-port", type=int, help="port of the monitor with HTTPS; no monitor where not said")
    for name in ("host_cert", "host_key", "ca_dir"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=Path, default=getattr(_DEFAULTS, name), help=str(getattr(_DEFAULTS, name)))


def run(options: argparse.Namespace) -> int:
    """Do it; 0 when all is good, 1 when something is bad."""
    choices = _choices(options)
    config = configuration.load(choices.config_file) if choices.config_file.exists() else None
    steps = [] if options.check else place(make_plan(choices, config), group=choices.group, dry_run=options.dry_run)
    findings = check_all(choices)
    if options.json:
        sys.stdout.write(json.dumps(_as_json(steps, findings)) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(steps, findings, dry_run=options.dry_run)))
    return 1 if any(finding.verdict is Verdict.BAD for finding in findings) else 0


def _choices(options: argparse.Namespace) -> Choices:
    names = (
        "server_name",
        "address",
        "user",
        "group",
        "scheduler_user",
        "apache_user",
        "processes",
        "tls_port",
        "plain_port",
        "monitor_port",
    )
    return Choices(
        layout=LAYOUTS[options.layout] if options.layout else detect(),
        prefix=options.prefix.absolute(),
        **{name: getattr(options, name) for name in names},
        **{name: getattr(options, name).absolute() for name in ("host_cert", "host_key", "ca_dir")},
    )


def _as_json(steps: list[Step], findings: list[Finding]) -> dict[str, object]:
    return {
        "steps": [{"path": str(step.path), "act": step.act} for step in steps],
        "findings": [vars(finding) for finding in findings],
        "good": all(finding.verdict is not Verdict.BAD for finding in findings),
    }


def _lines(steps: list[Step], findings: list[Finding], *, dry_run: bool) -> list[str]:
    acts = [step for step in steps if step.act != "unchanged"]
    done = [f"{'would be ' if dry_run else ''}{step.act:8} {step.path}" for step in acts]
    return [*done, *(f"{finding.verdict.upper():8} {finding.subject}: {finding.words}" for finding in findings)]
