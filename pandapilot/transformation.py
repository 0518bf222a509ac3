"""Making the transformation, the program that a job runs, ready in the job's directory."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pandapilot.clock import Clock, Tick, pause
from pandapilot.codes import ErrorCode
from pandapilot.failures import JobFailure, ServerRefused, ServerUnreachable
from pandapilot.files import create, is_regular
from pandapilot.jobs import Job, name_problem
from pandapilot.payload import find_program
from pandapilot.server import Server
from pandapilot.text import printable

logger = logging.getLogger(__name__)

TRIES = 3


@dataclass(frozen=True)
class Fetcher:
    """Brings transformations to a directory."""

    server: Server
    clock: Clock
    tick: Tick
    pause_s: float

    def command(self, job: Job, directory: Path, environment: Mapping[str, str]) -> list[str]:
        """Return the words by which the payload is started; no shell ever sees them."""
        if not job.transformation:
            raise JobFailure(ErrorCode.GENERAL, "the job has no transformation")
        return [self._program(job, directory, environment), *_arguments(job.parameters)]

    def _program(self, job: Job, directory: Path, environment: Mapping[str, str]) -> str:
        transformation = job.transformation
        is_url = transformation.startswith(("https://", "http://"))
        name = unquote(urlsplit(transformation).path).rsplit("/", 1)[-1] if is_url else transformation
        if is_url and (problem := name_problem(name)):
            raise JobFailure(problem.code, f"transformation {printable(transformation)}: {problem.text}")
        path = directory / name
        if "/" not in name and is_regular(path):
            logger.info("transformation %s is already in the job's directory", name)
        elif is_url:
            self._download(job, path)
        else:
            return find_program(name, environment)
        _make_executable(path)
        return f"./{name}"

    def _download(self, job: Job, path: Path) -> None:
        url = job.transformation
        for left in reversed(range(TRIES)):
            try:
                with create(path) as target:
                    self.server.download(url, target, self.tick, job=job)
                logger.info("downloaded transformation %s", url)
                return
            except (ServerUnreachable, ServerRefused, OSError) as error:
                path.unlink(missing_ok=True)
                message = f"transformation {url} could not be downloaded: {error}"
                if not left or isinstance(error, ServerRefused):
                    raise JobFailure(ErrorCode.TRANSFORMATION_DOWNLOAD_FAILED, message) from error
                logger.warning("%s; trying again", message)
                pause(self.clock, self.pause_s, self.tick)


def _arguments(parameters: str) -> list[str]:
    try:
        return shlex.split(parameters)
    except ValueError as error:
        raise JobFailure(ErrorCode.GENERAL, f"jobPars {printable(parameters[:200])!r}: {error}") from None


def _make_executable(path: Path) -> None:
    try:
        path.chmod(0o755)
    except OSError as error:
        message = f"transformation {path.name} could not be made executable: {error}"
        raise JobFailure(ErrorCode.TRANSFORMATION_NOT_EXECUTABLE, message) from error
