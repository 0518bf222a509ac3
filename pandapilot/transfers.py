"""Stage-in and stage-out: which file goes from where to where, tried twice and verified."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pandapilot.clock import Clock, Tick, pause
from pandapilot.codes import ErrorCode
from pandapilot.failures import JobFailure
from pandapilot.files import is_regular
from pandapilot.jobs import InputFile, OutputFile
from pandapilot.queues import Endpoint, Queue
from pandapilot.storage import FileFacts, deterministic_path, staged_path, storage_for

logger = logging.getLogger(__name__)

TRIES = 2
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Transferred:
    """A file that is now on storage, as the server wants to hear of it."""

    lfn: str
    guid: str
    endpoint: str
    surl: str
    facts: FileFacts
    staged: bool = False  # beside its place, for the server to put it there


@dataclass(frozen=True)
class Mover:
    """Moves the files of a job between its directory and the storage around its queue."""

    queue: Queue
    endpoints: Mapping[str, Endpoint]
    clock: Clock
    tick: Tick
    pause_s: float

    def stage_in(self, files: tuple[InputFile, ...], directory: Path) -> None:
        """Bring all input files into the job's directory, under their own names."""
        needed = sum(file.size_bytes or 0 for file in files)
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise JobFailure(ErrorCode.NO_LOCAL_SPACE, f"inputs need {needed} bytes, {free} are free in {directory}")
        for file in files:
            self._twice(lambda file=file: self._get(file, directory / file.lfn))  # type: ignore[misc]

    def stage_out(self, file: OutputFile, source: Path) -> Transferred:
        """Bring one file to storage."""
        return self._twice(lambda: self._put(file, source))

    def _get(self, file: InputFile, target: Path) -> None:
        url = self._input_url(file)
        try:
            storage = storage_for(url)
            if not storage.exists(url):
                raise JobFailure(ErrorCode.INPUT_NOT_FOUND, f"input {file.lfn} does not exist at {url}")
            facts = storage.get(url, target, self.tick)
        except OSError as error:
            code = ErrorCode.NO_LOCAL_SPACE if error.errno in _NO_SPACE else ErrorCode.STAGE_IN_FAILED
            raise JobFailure(code, f"input {file.lfn} could not be copied from {url}: {error}") from error
        try:
            _compare(file, facts, url)
        except JobFailure:
            target.unlink()
            raise
        logger.info("staged in %s from %s, %d bytes", file.lfn, url, facts.size_bytes)

    def _put(self, file: OutputFile, source: Path) -> Transferred:
        name, url = self._output_url(file)
        try:
            facts = storage_for(url).put(source, url, self.tick)
        except OSError as error:
            message = f"{file.lfn} could not be copied to {url}: {error}"
            raise JobFailure(ErrorCode.STAGE_OUT_FAILED, message) from error
        logger.info("staged out %s to %s, %d bytes", file.lfn, url, facts.size_bytes)
        return Transferred(file.lfn, file.guid, name, surl=url, facts=facts, staged=bool(file.suffix))

    def _input_url(self, file: InputFile) -> str:
        name = file.endpoint or next(iter(self.queue.read_endpoints), "")
        endpoint = self.endpoints.get(name)
        if not endpoint or not endpoint.read_url:
            raise JobFailure(ErrorCode.NO_REPLICA, f"input {file.lfn}: endpoint {name!r} is unknown or not readable")
        return _file_url(endpoint.read_url, file.scope, file.lfn)

    def _output_url(self, file: OutputFile) -> tuple[str, str]:
        name = file.endpoint or next(iter(self.queue.write_endpoints), "")
        endpoint = self.endpoints.get(name)
        if not endpoint or not endpoint.write_url:
            raise JobFailure(ErrorCode.NO_OUTPUT_STORAGE, f"{file.lfn}: endpoint {name!r} is unknown or not writable")
        if file.suffix:
            return name, endpoint.write_url + "/" + quote(staged_path(file.scope, file.lfn, file.suffix))
        return name, _file_url(endpoint.write_url, file.scope, file.lfn)

    def _twice(self, work: Callable[[], Result]) -> Result:
        for left in reversed(range(TRIES)):
            try:
                return work()
            except JobFailure as failure:
                if not left:
                    raise
                logger.warning("%s; trying again", failure)
                pause(self.clock, self.pause_s, self.tick)
        raise AssertionError("unreachable: the last try returns or raises")


def check_outputs(files: tuple[OutputFile, ...], directory: Path) -> None:
    """Look at all outputs before any of them is copied; each must be a regular file with content."""
    for file in files:
        path = directory / file.lfn
        if not is_regular(path):
            what = "is no regular file" if os.path.lexists(path) else "was not written"
            raise JobFailure(ErrorCode.OUTPUT_MISSING, f"output {file.lfn} {what}")
        if path.stat().st_size == 0:
            raise JobFailure(ErrorCode.OUTPUT_EMPTY, f"output {file.lfn} has no content")


def _compare(file: InputFile, facts: FileFacts, url: str) -> None:
    if file.size_bytes is not None and facts.size_bytes != file.size_bytes:
        message = f"input {file.lfn} has {facts.size_bytes} bytes at {url}, {file.size_bytes} expected"
        raise JobFailure(ErrorCode.INPUT_SIZE, message)
    if file.adler32 is not None and facts.adler32 != file.adler32:
        message = f"input {file.lfn} has adler32 {facts.adler32} at {url}, {file.adler32} expected"
        raise JobFailure(ErrorCode.INPUT_CHECKSUM, message)


def _file_url(root: str, scope: str, lfn: str) -> str:
    return root + "/" + quote(deterministic_path(scope, lfn))
