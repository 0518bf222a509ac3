"""Commands and words about where jobs may run: why one is where it is, and what would become of new ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from pandaserver.client.answers import Preview, Reason, Round
from pandaserver.client.api import PandaClient
from pandaserver.client.failures import ExitCode
from pandaserver.client.following import one_id, table_of
from pandaserver.client.show import Output, Table
from pandaserver.client.waiting import known_jobs

_COLUMNS = ("site", "verdict", "criterion", "asked", "there", "weight", "reason")


def why(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Tell why a job is where it is, and what would help."""
    job = known_jobs(client, [options.id])[options.id]
    found = client.why(options.id)
    shown = found.rounds if options.all else found.rounds[-1:]
    parts: list[Table | str] = [*table_of([job])]
    parts += [f"since then: {found.text}"] if found.text else []
    parts += [part for told in shown for part in _shown(told)] or ["no place was looked for yet"]
    parts += [f"what would help: {found.advice}"] if found.advice else []
    earlier = len(found.rounds) - len(shown)
    parts += [f"{earlier} earlier rounds are shown with --all"] if earlier > 0 else []
    output.result({**found.document, "errors": job.errors}, *parts)
    return ExitCode.OK


def _shown(told: Round) -> Iterable[Table | str]:
    head = f"{told.site} was chosen" if told.site else "no place was found"
    yield f"{told.time:%Y-%m-%d %H:%M:%S}: {head}" if told.time else head
    yield Table(_COLUMNS, [_row(reason) for reason in told.reasons], empty="there is no queue at all")
    if told.more:
        yield f"and {told.more} more queues that were possible"


def _row(reason: Reason) -> tuple[object, ...]:
    asked, there = _short(reason.value), _short(reason.limit)
    return reason.site, reason.verdict, reason.criterion, asked, there, reason.weight, reason.reason


_WIDTH = 20


def _short(value: object) -> object:
    """Keep columns narrow; the reason has all of it."""
    text = str(value) if value is not None else ""
    return value if isinstance(value, int | float) or len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def check(client: PandaClient, jobs: Sequence[dict[str, Any]], output: Output) -> ExitCode:
    """Tell what would become of jobs if they were submitted; fails when one of them could not run now."""
    found = client.check(jobs)
    rows = [
        (number, jobs[number].get("jobName"), one.runnable, one.site, 1 + one.others if one.site else 0, _wait(one))
        for number, one in enumerate(found)
    ]
    table = Table(("job", "name", "can run", "would go to", "possible", "expected wait"), rows)
    output.result([one.document for one in found], table, *told_once(found), "nothing was submitted")
    return ExitCode.OK if all(one.runnable for one in found) else ExitCode.FAILED


def _wait(one: Preview) -> str:
    return "unknown" if one.expected_wait_s is None else in_words(one.expected_wait_s)


def in_words(seconds: float) -> str:
    """Say a time as people do."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"


def told_once(found: Sequence[Preview]) -> list[str]:
    """Give each warning once, with the jobs that it is about."""
    places: dict[str, list[int]] = {}
    for number, one in enumerate(found):
        for text in one.warnings:
            places.setdefault(text, []).append(number)
    return [f"{_jobs(numbers)}: {text}" for text, numbers in places.items()]


_MOST = 5


def _jobs(numbers: Sequence[int]) -> str:
    some = ", ".join(map(str, numbers[:_MOST]))
    more = f" and {len(numbers) - _MOST} more" if len(numbers) > _MOST else ""
    return f"job{'s' * (len(numbers) > 1)} {some}{more}"


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Declare the commands of this module."""
    parser = commands.add_parser(
        "why",
        parents=[common],
        help="tell why a job is where it is, and what would help",
        epilog="examples:\n  panda why 101\n  panda why 101 --all --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", type=one_id)
    parser.add_argument("--all", action="store_true", help="show all looks for a place, not the last one only")
    parser.set_defaults(run=why)
