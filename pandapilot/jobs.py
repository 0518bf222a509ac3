"""A job as the server describes it on the wire, turned into plain names and checked."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from pandapilot.codes import ErrorCode

Wire = Mapping[str, Any]

MAX_NAME_BYTES = 255
STDOUT = "payload.stdout"
STDERR = "payload.stderr"
TEMPORARY = "tmp"
JOB_REPORT = "jobReport.json"
RESERVED_NAMES = frozenset({STDOUT, STDERR, TEMPORARY})
SECRET_FIELDS = frozenset({"jobToken", "pilotSecrets", "secrets"})
_SCOPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIX = re.compile(r"\.[A-Za-z0-9-]{1,60}")
_NOTHING = ("", "NULL", "None")


@dataclass(frozen=True)
class InputFile:
    """A file that the payload reads."""

    lfn: str
    scope: str
    endpoint: str
    size_bytes: int | None
    adler32: str | None


@dataclass(frozen=True)
class OutputFile:
    """A file that the payload, or for the log the pilot, writes."""

    lfn: str
    scope: str
    endpoint: str
    guid: str
    suffix: str = ""  # of the name under which it is stored beside its place, for the server to put it there


@dataclass(frozen=True)
class Problem:
    """Something in a job definition that this pilot will not act upon."""

    code: ErrorCode
    text: str


@dataclass(frozen=True)
class Job:
    """One attempt at one job; files with unusable names are left out and named in problems."""

    job_id: int
    attempt_nr: int
    token: str = field(repr=False)
    task_id: str
    transformation: str
    parameters: str
    inputs: tuple[InputFile, ...]
    outputs: tuple[OutputFile, ...]
    log: OutputFile | None
    core_count: int
    max_cpu_s: int
    max_wall_s: int
    heartbeat_s: float
    lease_s: float
    definition: Wire = field(repr=False)
    problems: tuple[Problem, ...] = ()


class InvalidJob(ValueError):
    """What the server sent is no job, or cannot even be reported about."""


def job_from_wire(wire: Wire) -> Job:
    """Read the answer of getJob; raises InvalidJob where the identity of the attempt is not in it."""
    outputs, log = _outputs(wire)
    inputs = _inputs(wire)
    problems = (
        *_file_problems(inputs),
        *_file_problems(outputs + ((log,) if log else ())),
        *_suffix_problems(_text(wire, "outSuffix")),
    )
    bad = {problem_name for problem_name, _ in problems}
    return Job(
        job_id=_identity(wire, "PandaID"),
        attempt_nr=_identity(wire, "attemptNr"),
        token=_token(wire),
        task_id=_text(wire, "taskID"),
        transformation=_text(wire, "transformation"),
        parameters=_text(wire, "jobPars"),
        inputs=tuple(file for file in inputs if file.lfn not in bad),
        outputs=tuple(file for file in outputs if file.lfn not in bad),
        log=log if log and log.lfn not in bad else None,
        core_count=max(1, _number(wire, "coreCount")),
        max_cpu_s=_number(wire, "maxCpuCount"),
        max_wall_s=_number(wire, "maxWalltime"),
        heartbeat_s=_number(wire, "heartbeatInterval") or 300,
        lease_s=_number(wire, "leaseTime") or 7200,
        definition={name: value for name, value in wire.items() if name not in SECRET_FIELDS},
        problems=tuple(problem for _, problem in problems),
    )


def name_problem(lfn: str) -> Problem | None:
    """Tell what makes a file name unfit to be used in the job's directory and on storage."""
    if len(lfn.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return Problem(ErrorCode.LFN_TOO_LONG, f"file name {lfn[:40]!r}... is longer than {MAX_NAME_BYTES} bytes")
    if not lfn or lfn == "." or lfn.startswith(("-", "..")):
        return Problem(ErrorCode.GENERAL, f"file name {lfn!r} must not be empty, '.' or start with '-' or '..'")
    if "/" in lfn or "\\" in lfn or not lfn.isprintable():
        return Problem(ErrorCode.GENERAL, f"file name {lfn!r} has a path separator or an unprintable character")
    if lfn in RESERVED_NAMES:
        return Problem(ErrorCode.GENERAL, f"file name {lfn!r} is used by the pilot itself")
    return None


def _scope_problem(scope: str) -> Problem | None:
    if _SCOPE.fullmatch(scope):
        return None
    return Problem(ErrorCode.GENERAL, f"scope {scope[:80]!r} must be letters, digits, '_', '.' and '-' only")


def _file_problems(files: tuple[InputFile, ...] | tuple[OutputFile, ...]) -> list[tuple[str, Problem]]:
    found = ((file.lfn, name_problem(file.lfn) or _scope_problem(file.scope)) for file in files)
    return [(lfn, problem) for lfn, problem in found if problem]


def _suffix(wire: Wire) -> str:
    """Return what is added to the names of outputs; nothing where it could lead elsewhere."""
    suffix = _text(wire, "outSuffix")
    return "" if _suffix_problems(suffix) else suffix


def _suffix_problems(suffix: str) -> list[tuple[str, Problem]]:
    if not suffix or _SUFFIX.fullmatch(suffix):
        return []
    return [("", Problem(ErrorCode.GENERAL, f"outSuffix {suffix[:80]!r} must be a dot, letters, digits and '-' only"))]


def _inputs(wire: Wire) -> tuple[InputFile, ...]:
    columns = [_items(wire, name) for name in ("inFiles", "scopeIn", "ddmEndPointIn", "fsize", "checksum")]
    files: dict[str, InputFile] = {}
    for lfn, scope, endpoint, size, checksum in zip_longest(*columns, fillvalue=""):
        if lfn:
            files.setdefault(lfn, InputFile(lfn, scope, endpoint, _size(size), _adler32(checksum)))
    return tuple(files.values())


def _outputs(wire: Wire) -> tuple[tuple[OutputFile, ...], OutputFile | None]:
    """Split outFiles into outputs and log: endpoints are counted over both, scopes over the outputs alone."""
    log_lfn = _text(wire, "logFile")
    scopes, suffix = iter(_items(wire, "scopeOut")), _suffix(wire)
    files: dict[str, OutputFile] = {}
    log = _log(wire, "") if log_lfn else None
    for lfn, endpoint in zip_longest(_items(wire, "outFiles"), _items(wire, "ddmEndPointOut"), fillvalue=""):
        if lfn and lfn == log_lfn:
            log = _log(wire, endpoint)
        elif lfn:
            files.setdefault(lfn, OutputFile(lfn, next(scopes, ""), endpoint, str(uuid.uuid4()), suffix))
    return tuple(files.values()), log


def _log(wire: Wire, endpoint: str) -> OutputFile:
    guid = _text(wire, "logGUID") or str(uuid.uuid4())
    return OutputFile(_text(wire, "logFile"), _text(wire, "scopeLog"), endpoint, guid, _suffix(wire))


def _items(wire: Wire, name: str) -> list[str]:
    """Split a comma-joined string (a JSON list is taken as it is); NULL items become empty."""
    value = wire.get(name)
    items = value if isinstance(value, list) else str(value or "").split(",")
    return ["" if str(item) in _NOTHING else str(item) for item in items]


def _text(wire: Wire, name: str) -> str:
    value = wire.get(name)
    return "" if value is None or str(value) in _NOTHING else str(value)


def _number(wire: Wire, name: str) -> int:
    """Return a count of something; what is absent or makes no sense is 0, which means no limit."""
    try:
        return max(0, int(float(_text(wire, name) or 0)))
    except (ValueError, OverflowError):
        return 0


def _identity(wire: Wire, name: str) -> int:
    try:
        return int(str(wire[name]))
    except (KeyError, ValueError):
        raise InvalidJob(f"the server sent a job with {name} = {wire.get(name)!r}; a number is needed") from None


def _token(wire: Wire) -> str:
    token = _text(wire, "jobToken")
    if not token:
        raise InvalidJob(f"the server sent job {wire.get('PandaID')!r} without a jobToken; it cannot be reported about")
    return token


def _size(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _adler32(text: str) -> str | None:
    """Return eight hexadecimal digits, or None for another kind of checksum."""
    digits = (text[3:] if text.startswith("ad:") else text).lower()
    return digits.rjust(8, "0") if re.fullmatch(r"[0-9a-f]{1,8}", digits) else None
