"""Commands that bring something to the server: submit, upload."""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from pandaserver.client.answers import Submitted
from pandaserver.client.api import PandaClient, new_client_key
from pandaserver.client.failures import ExitCode, FileTrouble, Unreachable, WrongUse
from pandaserver.client.following import add_pace, follow, table_of, verdict
from pandaserver.client.jobs import InputFile, JobRequest, build_jobs
from pandaserver.client.show import Output
from pandaserver.client.why import check

_JOB_OPTIONS = (
    "parameters", "inputs", "input_dataset", "files_per_job", "outputs", "output_dataset", "name", "label", "site",
    "include_sites", "exclude_sites", "memory_mb", "cores", "repeat",
)  # fmt: skip
_UNFIT = re.compile(r"[^A-Za-z0-9_+-]+")
_EXAMPLES = """\
examples:
  panda submit jobs.json --wait
  panda submit jobs.json --check
  panda submit --transformation ./run.sh --parameters 'seed=$SERIAL' --outputs 'hist.$PANDAID.root' \\
      --output-dataset user.alice.test1 --repeat 10

A file holds a job, or a JSON list of jobs, each an object by attribute names: transformation, jobParameters,
computingSite, destinationDBlock, Files, ... In parameters, name and outputs $SERIAL becomes 1, 2, ... and $PANDAID the
id of the job; $INPUTS in the parameters becomes the names of its input files (quote them: the shell knows $ too).
"""


def submit(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Submit jobs, and follow them if that is asked for."""
    jobs = _jobs(client, options)
    if options.dry_run:
        output.result(jobs, json.dumps(jobs, indent=1))
        return ExitCode.OK
    if options.check:
        return check(client, jobs, output)
    key = options.client_key or new_client_key()
    submitted = _send(client, jobs, key)
    warnings = [text for each in submitted for text in each.warnings]
    if not options.wait:
        told: dict[str, Any] = {"client_key": key, "jobs": [s.to_wire() for s in submitted]}
        told |= {"warnings": warnings} if warnings else {}
        output.result(told, _receipt(submitted), *(f"warning: {text}" for text in warnings))
        return ExitCode.OK
    for line in (_receipt(submitted), *(f"warning: {text}" for text in warnings)):
        output.note(line)
    ended = follow(client, [s.job_id for s in submitted], options)
    output.result({"client_key": key, "jobs": [job.attributes for job in ended]}, *table_of(ended))
    return verdict(ended)


def _send(client: PandaClient, jobs: list[dict[str, Any]], key: str) -> list[Submitted]:
    try:
        return client.submit(jobs, client_key=key)
    except Unreachable as error:
        hint = f"it may have the jobs or not; submit again with --client-key {key}, then they are there once"
        raise Unreachable(f"{error.message}; {hint}", field=error.field, value=error.value) from error


def _receipt(submitted: list[Submitted]) -> str:
    return f"submitted {len(submitted)} job{'s' * (len(submitted) != 1)}: {spans([s.job_id for s in submitted])}"


def spans(numbers: list[int]) -> str:
    """Write numbers so that other commands read them: 101-103,107."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def _jobs(client: PandaClient, options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.file is None:
        return _built(client, options)
    given = [name for name in _JOB_OPTIONS if getattr(options, name) is not None]
    if given:
        option = given[0].replace("_", "-")
        raise WrongUse(f"--{option} goes with --transformation; in a file the jobs say it themselves", field=given[0])
    return read_jobs(options.file)


def read_jobs(name: str) -> list[dict[str, Any]]:
    """Read jobs from a file, - being standard input."""
    try:
        jobs = json.loads(sys.stdin.read() if name == "-" else Path(name).read_bytes())
    except OSError as error:
        raise FileTrouble(f"cannot read {name}: {error.strerror}", field="file", value=name) from error
    except (ValueError, RecursionError) as error:
        raise WrongUse(f"{name} is no JSON: {error}", field="file", value=name) from error
    jobs = jobs if isinstance(jobs, list) else [jobs]
    if not jobs or not all(isinstance(job, dict) for job in jobs):
        raise WrongUse(f"{name} holds no jobs: an object, or a list of objects, is expected", field="file", value=name)
    return jobs


def _built(client: PandaClient, options: argparse.Namespace) -> list[dict[str, Any]]:
    script = _script(options.transformation)
    unique = unique_name(script) if script else ""
    request = JobRequest(
        transformation=f"{client.url}/cache/{unique}" if script else options.transformation,
        parameters=options.parameters or "",
        inputs=_inputs(client, options),
        outputs=tuple(_names(options.outputs)),
        output_dataset=options.output_dataset or "",
        name=options.name or Path(options.transformation).name,
        label=options.label or "user",
        site=options.site or "",
        include_sites=options.include_sites or "",
        exclude_sites=options.exclude_sites or "",
        memory_mb=options.memory_mb or 0,
        cores=options.cores or 0,
    )
    jobs = build_jobs(request, repeat=options.repeat or 1, files_per_job=options.files_per_job or 0)
    if script and not (options.dry_run or options.check):
        url = client.upload(script, unique)  # last of all: what was wrong before is not worth an upload
        jobs = [job | {"transformation": url} for job in jobs]
    return jobs


def _script(transformation: str) -> Path | None:
    """Give the local script that is meant; None when it is a URL or a program that the site has."""
    path = Path(transformation)
    if transformation.startswith(("https://", "http://")) or (path.name == transformation and not path.is_file()):
        return None
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FileTrouble(f"cannot read {path}: {error.strerror}", field="transformation", value=str(path)) from error
    if not start.startswith((b"#!", b"\x7fELF")):
        text = f"{path} can not be run: a script begins with a line such as #!/bin/sh"
        raise FileTrouble(text, field="transformation", value=str(path))
    return path


def unique_name(path: Path) -> str:
    """Give a name at the server that nobody else has, the kind of file still to be seen."""
    stem, suffix = (_UNFIT.sub("_", part) for part in (path.stem, path.suffix.removeprefix(".")))
    name = f"{stem.lstrip('+-')[:80] or 'script'}.{uuid.uuid4().hex}"
    return f"{name}.{suffix[:20]}" if suffix else name


def _inputs(client: PandaClient, options: argparse.Namespace) -> tuple[InputFile, ...]:
    dataset, named = options.input_dataset, _names(options.inputs)
    if named and not dataset:
        raise WrongUse("--inputs needs --input-dataset: which dataset are the files in?", field="input_dataset")
    if named:
        return tuple(InputFile(lfn, dataset) for lfn in named)
    if not dataset:
        return ()
    found = tuple(InputFile(file.lfn, dataset, file.scope) for file in client.files(dataset))
    if not found:
        raise WrongUse(f"dataset {dataset} has no files", field="input_dataset", value=dataset)
    return found


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def upload(client: PandaClient, options: argparse.Namespace, output: Output) -> ExitCode:
    """Leave a file at the server."""
    url = client.upload(options.path, options.name)
    output.result({"url": url}, url)
    return ExitCode.OK


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Declare the commands of this module."""
    parser = commands.add_parser(
        "submit",
        parents=[common],
        help="submit jobs from a file or from options",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", metavar="FILE", nargs="?", help="JSON file with jobs, - for standard input")
    what.add_argument("--transformation", metavar="WHAT", help="script here (is uploaded), URL, or program of the site")
    _add_job_options(parser)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="print the jobs as JSON and submit nothing")
    instead.add_argument(
        "--check",
        action="store_true",
        help="submit nothing: ask the server what would become of them; 0 if all can run",
    )
    parser.add_argument("--client-key", metavar="KEY", help="key of an earlier try: its jobs are not submitted twice")
    parser.add_argument("--wait", action="store_true", help="wait until they have ended; 0 if all finished")
    add_pace(parser)
    parser.set_defaults(run=submit)
    parser = commands.add_parser("upload", parents=[common], help="leave a file at the server for jobs to fetch")
    parser.add_argument("path", metavar="FILE", type=Path)
    parser.add_argument("--name", default="", help="name at the server (default: that of the file)")
    parser.set_defaults(run=upload)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("jobs without a file")
    job.add_argument("--parameters", metavar="TEXT", help="arguments of the transformation, quoted as for a shell")
    job.add_argument("--input-dataset", metavar="D", help="dataset to read, all of it or the files of --inputs")
    job.add_argument("--inputs", metavar="A,B", help="input files")
    job.add_argument("--files-per-job", type=_positive, metavar="N", help="split the inputs over jobs")
    job.add_argument("--outputs", metavar="A,B", help="files that the job makes")
    job.add_argument("--output-dataset", metavar="D", help="dataset that they go to, such as user.alice.test1")
    job.add_argument("--name", help="name of the job (default: that of the transformation)")
    job.add_argument("--label", help="prodSourceLabel (user)")
    job.add_argument("--site", metavar="QUEUE", help="queue to run at (default: the server chooses)")
    job.add_argument("--include-sites", metavar="A,B", help="queues or sites of which it has to be one")
    job.add_argument("--exclude-sites", metavar="A,B", help="queues or sites that it must not go to")
    job.add_argument("--memory-mb", type=_positive, metavar="N", help="memory that the job needs")
    job.add_argument("--cores", type=_positive, metavar="N", help="cores that the job needs")
    job.add_argument("--repeat", type=_positive, metavar="N", help="submit so many of them")


def _positive(text: str) -> int:
    number = int(text)
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return number
