"""The log of a job: a tarball of what helps people to understand how it went."""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pandapilot.clock import Tick
from pandapilot.files import create, open_regular
from pandapilot.jobs import JOB_REPORT, STDERR, STDOUT, Job

logger = logging.getLogger(__name__)

ALWAYS = (STDOUT, STDERR, JOB_REPORT)
OTHERS_FILE_BYTES = 10 * 1024 * 1024
OTHERS_TOTAL_BYTES = 100 * 1024 * 1024


class _Ticking(io.RawIOBase):
    """A file that gives heartbeats a chance whenever a piece of it is read."""

    def __init__(self, source: BinaryIO, tick: Tick) -> None:
        self._source = source
        self._tick = tick

    def read(self, size: int = -1) -> bytes:
        self._tick()
        return self._source.read(size)


def write_tarball(target: Path, job: Job, *, directory: Path, pilot_log: bytes, tick: Tick) -> None:
    """Pack the payload's output, the pilot's log and the job's definition; inputs, outputs and core files stay out."""
    with create(target) as stream, tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as tarball:
        top = f"job-{job.job_id}-{job.attempt_nr}"
        for path in files_for_log(job, directory):
            _add_file(tarball, path, f"{top}/{path.name}", tick)
        definition = json.dumps(dict(job.definition), indent=1, sort_keys=True).encode()
        _add_bytes(tarball, definition, f"{top}/job.json")
        _add_bytes(tarball, pilot_log, f"{top}/pilot.log")


def files_for_log(job: Job, directory: Path) -> Iterator[Path]:
    """Choose from the top of the job's directory: the known files of any size, others while they are small."""
    skipped = ({file.lfn for file in job.inputs} | {file.lfn for file in job.outputs}) - {JOB_REPORT}
    left = OTHERS_TOTAL_BYTES
    for path, size in _regular_files(directory):
        if path.name in ALWAYS:
            yield path
        elif path.name not in skipped and not _is_core(path.name) and size <= min(left, OTHERS_FILE_BYTES):
            left -= size
            yield path


def _regular_files(directory: Path) -> Iterable[tuple[Path, int]]:
    with os.scandir(directory) as entries:
        found = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    reserved = {"job.json", "pilot.log"}
    return sorted(
        (Path(entry.path), entry.stat(follow_symlinks=False).st_size) for entry in found if entry.name not in reserved
    )


def _is_core(name: str) -> bool:
    return name == "core" or name.startswith("core.")


def _add_file(tarball: tarfile.TarFile, path: Path, name: str, tick: Tick) -> None:
    try:
        with open_regular(path) as source:
            facts = os.fstat(source.fileno())
            info = _info(name, size=facts.st_size, modified=facts.st_mtime)
            tarball.addfile(info, _Ticking(source, tick))
    except PermissionError:
        logger.warning("%s is left out of the log: not readable", path.name)


def _add_bytes(tarball: tarfile.TarFile, content: bytes, name: str) -> None:
    tarball.addfile(_info(name, size=len(content), modified=time.time()), io.BytesIO(content))


def _info(name: str, *, size: int, modified: float) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(modified), 0o644
    return info
