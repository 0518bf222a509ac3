"""Commands about the grid and what is on it: timeouts, whoami, files, download."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pandaserver.client.answers import Timeout
from pandaserver.client.api import PandaClient
from pandaserver.client.download import Download
from pandaserver.client.failures import ExitCode, NotAuthenticated
from pandaserver.client.proxy import RENEW
from pandaserver.client.show import Output, Table


def whoami(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show whom the server sees."""
    seen = client.whoami()
    if not seen:
        raise NotAuthenticated(f"{client.url} sees no certificate: {RENEW}", field="proxy", value=client.proxy)
    lines = {
        "name": seen.get("name"),
        "dn": seen.get("dn"),
        "proxy": f"{client.proxy}{', limited: cannot submit' if seen.get('limited') else ''}",
        "valid until": f"{_moment(seen.get('notAfter'))} UTC",
        "groups": ", ".join(map(str, seen.get("fqans") or [])) or "none",
        "server": client.url,
    }
    output.result(seen, *(f"{what + ':':12} {value}" for what, value in lines.items()))
    return ExitCode.OK


def _moment(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


_ROLES = ("anyone", "user", "production", "pilot", "operator", "ddm")
_REACH = "all: everything; own: what belongs to the caller; vo: jobs of the VO or group whose attribute gives the role"


def roles(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show who may make which call."""
    found = client.roles()
    rows = [
        (c.call, c.legacy, *(c.allows.get(role, "-") for role in _ROLES), c.you or "no")
        for c in sorted(found.calls, key=lambda c: c.call)
    ]
    have = ", ".join(
        role if scopes == ("all",) else f"{role} for {' and '.join(scopes)}" for role, scopes in found.roles.items()
    )
    table = Table(("call", "/server/panda/", *_ROLES, "you"), rows, empty="no calls")
    output.result(asdict(found), table, _REACH, f"you are {found.dn or 'nobody known'}: {have}")
    return ExitCode.OK


def timeouts(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show how long jobs may stay in each state."""
    rules = client.timeouts()
    columns = ("state", "jobs", "after", "since", "then", "error")
    rows = [(r.state, r.subject, duration(r.after_s), _since(r), r.action, f"{r.family} {r.code}") for r in rules]
    output.result([asdict(rule) for rule in rules], Table(columns, rows, empty="no timeouts"))
    return ExitCode.OK


def _since(rule: Timeout) -> str:
    return "last word of the pilot" if rule.heartbeat else "change of state"


def duration(seconds: int) -> str:
    """Write a time as people say it: 2 d, 12 h, 1 h 30 min."""
    parts, left = [], seconds
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length_s)
        parts += [f"{number} {unit}"] if number else []
    return " ".join(parts) or "0 s"


def files(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show the files of a dataset."""
    found = client.files(options.dataset)
    rows = [(f.lfn, f.size_bytes, f.adler32, ", ".join(r.endpoint for r in f.replicas), f.guid) for f in found]
    table = Table(("file", "bytes", "adler32", "at", "guid"), rows, empty=f"{options.dataset} has no files")
    output.result([asdict(file) for file in found], table)
    return ExitCode.OK


def download(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Fetch the files of a dataset; fails when one of them could not be had."""
    got = client.download(options.dataset, options.to)
    rows = [(each.lfn, each.size_bytes, each.path or each.error) for each in got]
    table = Table(("file", "bytes", "where"), rows, empty=f"{options.dataset} has no files")
    missing = sum(not each.path for each in got)
    parts = [f"{missing} of {len(got)} files could not be had"] if missing else []
    output.result([*map(_document, got)], table, *parts)
    return ExitCode.FAILED if missing else ExitCode.OK


def _document(one: Download) -> dict[str, Any]:
    return asdict(one) | {"path": str(one.path) if one.path else None}


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Declare the commands of this module."""
    parser = commands.add_parser("files", parents=[common], help="list the files of a dataset")
    parser.add_argument("dataset", metavar="DATASET")
    parser.set_defaults(run=files)
    parser = commands.add_parser("download", parents=[common], help="copy the files of a dataset, verified")
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--to", type=Path, default=Path(), metavar="DIR", help="directory (default: here)")
    parser.set_defaults(run=download)
    parser = commands.add_parser("roles", parents=[common], help="show who may make which call, and what you may")
    parser.set_defaults(run=roles)
    parser = commands.add_parser("timeouts", parents=[common], help="show how long jobs may stay in each state")
    parser.set_defaults(run=timeouts)
    parser = commands.add_parser("whoami", parents=[common], help="show whom the server sees")
    parser.set_defaults(run=whoami)
