"""Commands about jobs that are there: status, wait, kill."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from pandaserver.client.answers import JobInfo
from pandaserver.client.api import PandaClient
from pandaserver.client.failures import ExitCode
from pandaserver.client.progress import progress
from pandaserver.client.show import Output, Table
from pandaserver.client.waiting import Pace, wait_for

_MOST_IN_RANGE = 100_000


def ids(text: str) -> list[int]:
    """Read ids as people write them: 101, 101,105 or 101-109."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = (first, last if dash else first)
        if not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
            raise argparse.ArgumentTypeError(f"{text!r} is no job id; 101, 101,105 and 101-109 are understood")
        start, end = map(int, numbers)
        if not 0 <= end - start < _MOST_IN_RANGE:
            raise argparse.ArgumentTypeError(f"{part} is no range of job ids, from the smaller to the larger")
        found.extend(range(start, end + 1))
    return found


def wanted(options: argparse.Namespace) -> list[int]:
    """Give the ids of a command, each once."""
    return list(dict.fromkeys(job_id for some in options.ids for job_id in some))


def status(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Show jobs; fails when one of them is unknown."""
    asked = wanted(options)
    found = client.status(asked)
    known = [job for job in found if job is not None]
    strangers = [str(job_id) for job_id, job in zip(asked, found, strict=True) if job is None]
    parts: list[Table | str] = [*table_of(known)]
    parts += [files_of(known)] if options.files and known else []
    parts += [f"no such job: {', '.join(strangers)}"] if strangers else []
    output.result([None if job is None else job.attributes for job in found], *parts)
    return ExitCode.FAILED if strangers else ExitCode.OK


def table_of(jobs: Sequence[JobInfo]) -> Iterable[Table | str]:
    """Give the table of jobs, and under it what went wrong with them."""
    if not jobs:
        return
    rows = [(j.job_id, j.state, j.name, j.site, j.attributes.get("attemptNr"), j.since) for j in jobs]
    yield Table(("job", "state", "name", "site", "attempt", "since (UTC)"), rows)
    yield from (f"job {job.job_id}: {error}" for job in jobs for error in job.errors)


def files_of(jobs: Sequence[JobInfo]) -> Table:
    """Give the table of the files of jobs."""
    names = ("type", "lfn", "dataset", "status", "fsize")
    rows = [(job.job_id, *(file.get(name) for name in names)) for job in jobs for file in job.files]
    return Table(("job", "type", "file", "dataset", "status", "bytes"), rows, empty="no files")


def wait(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Wait for jobs to end; fails when one of them did not finish."""
    jobs = follow(client, wanted(options), options)
    output.result([job.attributes for job in jobs], *table_of(jobs))
    return verdict(jobs)


def follow(client: PandaClient, job_ids: Sequence[int], options: argparse.Namespace) -> list[JobInfo]:
    """Wait for jobs while showing how far they are."""
    pace = Pace(interval_s=options.interval, limit_s=options.timeout)
    with progress(len(job_ids)) as report:
        return wait_for(client, job_ids, pace=pace, report=report)


def verdict(jobs: Sequence[JobInfo]) -> ExitCode:
    """Say whether all went well."""
    return ExitCode.OK if all(job.finished for job in jobs) else ExitCode.FAILED


def kill(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Kill jobs; fails when there was nothing to kill in one of them."""
    asked = wanted(options)
    killed = client.kill(asked)
    told = list(zip(asked, killed, strict=True))
    spared = [str(job_id) for job_id, is_dying in told if not is_dying]
    later = "; those with a pilot end when it asks next" if any(killed) else ""
    parts = [f"killed {sum(killed)} of {len(asked)} jobs{later}"]
    parts += [f"ended before, or unknown: {', '.join(spared)}"] if spared else []
    output.result([{"PandaID": job_id, "killed": is_dying} for job_id, is_dying in told], *parts)
    return ExitCode.FAILED if spared else ExitCode.OK


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Declare the commands of this module."""
    parser = commands.add_parser("status", parents=[common], help="show jobs")
    _add_ids(parser)
    parser.add_argument("--files", action="store_true", help="show their files too")
    parser.set_defaults(run=status)
    parser = commands.add_parser("wait", parents=[common], help="wait until jobs have ended; 0 if all finished")
    _add_ids(parser)
    add_pace(parser)
    parser.set_defaults(run=wait)
    parser = commands.add_parser("kill", parents=[common], help="kill jobs; 0 if all are dying")
    _add_ids(parser)
    parser.set_defaults(run=kill)


def add_pace(parser: argparse.ArgumentParser) -> None:
    """Declare how to wait."""
    parser.add_argument("--interval", type=seconds, default=5.0, metavar="S", help="seconds between looks (5)")
    parser.add_argument("--timeout", type=seconds, default=0.0, metavar="S", help="give up after so long (0: never)")


def seconds(text: str) -> float:
    """Read a number of seconds."""
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0 on")
    return value


def one_id(text: str) -> int:
    """Read the id of one job."""
    found = ids(text)
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"one job id is expected, not {text!r}")
    return found[0]


def _add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", type=ids, nargs="+", help="101 or 101,105 or 101-109")
