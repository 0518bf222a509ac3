"""`panda sites`: how queues stand, who switched them and why; and the switches, for operators."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from pandaserver.client.api import PandaClient
from pandaserver.client.failures import ExitCode, WrongUse
from pandaserver.client.show import Output, Table, printable
from pandaserver.model.grid import QueueStatus
from pandaserver.model.states import WITH_PILOT, JobState

_ABOUT = """Without an action: all queues, who is behind their status and why, jobs that are ready and that pilots have,
requests of pilots in the last 3 hours, limits.

online       takes jobs
test         takes test jobs only; runs what it has
brokeroff    gets no new jobs; runs what it has
offline      gets no new jobs, and its pilots none of those that wait there; what runs goes on"""
_EXAMPLE = """examples:
  panda sites
  panda sites set EXAMPLE_Q offline --reason "storage is being moved" --until 2027-01-31T18:00
  panda sites set EXAMPLE_Q brokeroff --reason "half of the nodes are down" --until 6h
  panda sites clear EXAMPLE_Q --reason "all is well again"
  panda sites history EXAMPLE_Q
"""
_COLUMNS = (
    "queue", "site", "status", "ready", "running", "pilots 3 h", "cores", "memory MB", "hours", "set by", "why",
)  # fmt: skip
_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_PERIOD = re.compile(r"\+?([0-9]{1,6}) ?(min|h|d)")


def sites(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show queues: their status and what is behind it, and how busy they are."""
    counts = client.counts()
    queues = {name: queue | {"jobs": counts.get(name, {})} for name, queue in sorted(client.queues().items())}
    rows = [_row(name, queue) for name, queue in queues.items()]
    output.result(queues, Table(_COLUMNS, rows, empty="no queues"))
    return ExitCode.OK


def _row(name: str, queue: dict[str, Any]) -> tuple[object, ...]:
    standing, pilots = queue.get("standing") or {}, queue.get("pilots") or {}
    limit_s = queue.get("maxtime")
    hours = limit_s / 3600 if isinstance(limit_s, int | float) else None
    return (
        name,
        queue.get("atlas_site"),
        queue.get("status"),
        queue["jobs"].get(JobState.ACTIVATED.value, 0),
        sum(queue["jobs"].get(state.value, 0) for state in WITH_PILOT),
        pilots.get("requests"),
        queue.get("corecount"),
        queue.get("maxrss"),
        hours,
        standing.get("by"),
        _why(standing),
    )


def _why(standing: dict[str, Any]) -> str:
    """Say the reason, and until when; of what a source says the reason is that it says so."""
    reason = str(standing.get("reason") or "") if standing.get("switched") else ""
    until = standing.get("until")
    return f"{reason} (until {_moment(until)})" if until else reason


def _moment(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC" if isinstance(value, datetime) else str(value)


def set_status(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Switch a queue."""
    until = read_until(options.until, datetime.now(UTC)) if options.until else None
    told = client.set_queue(options.queue, options.status, options.reason, until=until)
    output.result(told, _standing(told))
    return ExitCode.OK


def clear(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Let a queue's source decide again."""
    told = client.clear_queue(options.queue, options.reason)
    output.result(told, _standing(told))
    return ExitCode.OK


def _standing(told: dict[str, Any]) -> str:
    standing = told.get("standing") or {}
    why = f": {_why(standing)}" if _why(standing) else ""
    return printable(f"{told.get('queue')} is {told.get('status')} by {standing.get('by')}{why}")


def history(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show who switched a queue, newest first."""
    found = client.queue_history(options.queue)
    columns = ("time", "what", "from", "to", "by", "until", "why")
    rows = [tuple(one.get(key) for key in ("time", "action", "from", "to", "by", "until", "reason")) for one in found]
    output.result(found, Table(columns, rows, empty=f"nothing has happened to {options.queue}"))
    return ExitCode.OK


def read_until(text: str, now: datetime) -> datetime:
    """Read a moment (ISO 8601, UTC where it names no zone), or how long from now: 90min, 6h, 2d.

    Raises:
        WrongUse: it is neither, or in the past.
    """
    period = _PERIOD.fullmatch(text.strip())
    try:
        if period:
            moment = now + int(period[1]) * _UNITS[period[2]]
        else:
            read = datetime.fromisoformat(text.strip())
            moment = read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        said = (
            f"--until {text!r}: a moment such as 2027-01-31T18:00 (UTC), or a time such as 90min, 6h or 2d, is expected"
        )
        raise WrongUse(said, field="until", value=text) from None
    if moment <= now:
        raise WrongUse(f"--until {text!r}: that was at {_moment(moment)}, in the past", field="until", value=text)
    return moment


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Declare the commands of this module."""
    parser = commands.add_parser(
        "sites", parents=[common], help="show queues, how busy they are, who switched them; switch them",
        description=_ABOUT, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=sites)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")
    switch = actions.add_parser("set", parents=[common], help="switch a queue (operators)")
    switch.add_argument("queue", metavar="QUEUE")
    switch.add_argument("status", choices=[status.value for status in QueueStatus])
    switch.add_argument("--reason", required=True, help="why, for those who look later")
    switch.add_argument("--until", metavar="TIME", help="then its source decides again: 2027-01-31T18:00 (UTC), 6h, 2d")
    switch.set_defaults(run=set_status)
    back = actions.add_parser("clear", parents=[common], help="let the sites file or CRIC decide again (operators)")
    back.add_argument("queue", metavar="QUEUE")
    back.add_argument("--reason", default="", help="why, for those who look later")
    back.set_defaults(run=clear)
    told = actions.add_parser("history", parents=[common], help="show who switched a queue, when and why")
    told.add_argument("queue", metavar="QUEUE")
    told.set_defaults(run=history)
