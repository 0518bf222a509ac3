"""Reads jobs as clients send them: dictionaries by attribute name, or positional lists in the contract's order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pandaserver.errors import BadInput
from pandaserver.model.choice import write_site_wishes
from pandaserver.model.file import SUBMITTED, FileType, NewFile, default_scope
from pandaserver.model.job import NewJob
from pandaserver.web import values
from pandaserver.web.attributes import FILE_ATTRIBUTES, FILES, JOB_ATTRIBUTES, UNSET

Reader = Callable[[Any], Any]

_FIELDS: dict[str, tuple[str, Reader]] = {  # wire attribute -> what it is inside
    "jobName": ("name", values.text),
    "prodSourceLabel": ("label", values.text),
    "processingType": ("processing_type", values.text),
    "transformation": ("transformation", values.text),
    "jobParameters": ("parameters", values.text),
    "jobDefinitionID": ("definition_id", values.whole_number),
    "jobsetID": ("jobset_id", values.whole_number),
    "taskID": ("task_id", values.whole_number),
    "parentID": ("parent_id", values.whole_number),
    "VO": ("vo", values.text),
    "workingGroup": ("working_group", values.text),
    "assignedPriority": ("assigned_priority", values.whole_number),
    "maxAttempt": ("max_attempt", values.whole_number),
    "computingSite": ("site", values.text),
    "cloud": ("cloud", values.text),
    "AtlasRelease": ("release", values.text),
    "cmtConfig": ("platform", values.text),
    "prodDBlock": ("input_dataset", values.text),
    "destinationDBlock": ("output_dataset", values.text),
    "destinationSE": ("destination", values.text),
    "coreCount": ("cores", values.whole_number),
    "minRamCount": ("memory_mb", values.whole_number),
    "maxDiskCount": ("disk_mb", values.whole_number),
    "maxCpuCount": ("cpu_time_s", values.whole_number),
    "maxWalltime": ("wall_time_s", values.whole_number),
}

# What only the server says: a client's value is not believed, and no error either, since clients send whole objects.
_SERVER_SAYS = frozenset(
    """
    PandaID schedulerID pilotID creationTime modificationTime modificationHost prodUserID prodUserName currentPriority
    attemptNr jobStatus startTime endTime cpuConsumptionTime cpuConsumptionUnit commandToPilot transExitCode
    pilotErrorCode pilotErrorDiag exeErrorCode exeErrorDiag supErrorCode supErrorDiag ddmErrorCode ddmErrorDiag
    brokerageErrorCode brokerageErrorDiag jobDispatcherErrorCode jobDispatcherErrorDiag taskBufferErrorCode
    taskBufferErrorDiag computingElement metadata dispatchDBlock stateChangeTime prodDBUpdateTime lockedby pilotTiming
    relocationFlag failedAttempt
    """.split()
)

_LIMITS = {
    "jobName": 255,
    "transformation": 1024,
    "jobParameters": 1_000_000,
    "destinationDBlock": 180,
    "prodDBlock": 180,
}
_SHORT = 64
_KEPT = 4000  # characters of an attribute that is kept for the user and not used
_LARGEST = 2**31 - 1
_LARGEST_PRIORITY = 1_000_000  # either way
_LARGE_NUMBERS = frozenset({"jobDefinitionID", "jobsetID", "taskID", "parentID"})
_FILE_TEXTS = ("lfn", "type", "scope", "GUID", "destinationSE", "checksum")
_FORMS = {  # pilots get these in lists with commas between
    "GUID": (re.compile(r"[0-9A-Za-z_-]{1,64}"), "letters, digits, _ and -, at most 64"),
    "checksum": (re.compile(r"(ad:|md5:|md:)?[0-9A-Fa-f]{1,60}"), "hexadecimal digits, after ad: or md5:"),
    "destinationSE": (re.compile(r"[0-9A-Za-z_.:+-]{1,64}"), "the name of an endpoint, queue or site"),
}


def read_jobs(value: Any, default_vo: str = "") -> list[NewJob]:
    """Read the `jobs` parameter of a submission.

    Raises:
        BadInput: naming job, field and value.
    """
    if not isinstance(value, list) or not value:
        raise BadInput("jobs: a list of jobs is expected", field="jobs", value=value)
    return [_read_job(job, f"job {number}", default_vo) for number, job in enumerate(value)]


def _read_job(job: Any, where: str, default_vo: str) -> NewJob:
    told, file_list = _split(job, where)
    fields: dict[str, Any] = {"site_wishes": _site_wishes(told, where)}
    kept: dict[str, Any] = {}
    for name, value in told.items():
        if name in _FIELDS:
            field, reader = _FIELDS[name]
            fields[field] = _bounded(name, _read(reader, name, value, where), where)
        elif name not in _SERVER_SAYS:
            kept[name] = _kept(name, value, where)
    fields.setdefault("transformation", "")
    fields["cores"] = max(1, fields.get("cores", 1))
    fields["vo"] = fields.get("vo") or default_vo
    dataset = {"input": fields.get("input_dataset", ""), "output": fields.get("output_dataset", "")}
    files = tuple(_read_file(f, f"{where} file {n}", dataset) for n, f in enumerate(file_list))
    return NewJob(**fields, files=files, attributes=kept)


_SITE_LISTS = ("includedSite", "excludedSite")  # in dictionaries only: no place in a positional list is theirs
_PLACES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(,[A-Za-z0-9][A-Za-z0-9._-]{0,63})*")
_MOST_PLACES = 255  # characters


def _site_wishes(told: dict[str, Any], where: str) -> str:
    """Take out to which sites a job may go and must not go: lists, or names with commas between."""
    lists = list[list[str]]()
    for name in _SITE_LISTS:
        value = told.pop(name, None) or []
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if text and not _PLACES.fullmatch(text):
            rule = "names of queues or sites with commas between"
            raise BadInput(f"{where}: {name} is not acceptable: {rule}", field=name, value=value)
        lists.append(text.split(",") if text else [])
    wishes = write_site_wishes(*lists)
    if len(wishes) > _MOST_PLACES:
        text = f"{where}: includedSite and excludedSite have {len(wishes)} characters, at most {_MOST_PLACES}"
        raise BadInput(text, field="includedSite", value=wishes)
    return wishes


def _split(job: Any, where: str) -> tuple[dict[str, Any], list[Any]]:
    """Give attributes that are set, and the list of files."""
    if isinstance(job, Mapping):
        told = dict(job)
        file_list = told.pop(FILES, None)
    elif isinstance(job, Sequence) and not isinstance(job, str) and job:
        if len(job) - 1 > len(JOB_ATTRIBUTES):
            raise BadInput(f"{where}: {len(job)} values, at most {len(JOB_ATTRIBUTES) + 1} are known", field="jobs")
        told, file_list = dict(zip(JOB_ATTRIBUTES, job[:-1], strict=False)), job[-1]
    else:
        raise BadInput(f"{where}: a dictionary or list is expected", field="jobs", value=job)
    if not isinstance(file_list, list | None):
        raise BadInput(f"{where}: the files are no list", field=FILES, value=file_list)
    _no_strangers(told, (*JOB_ATTRIBUTES, *_SITE_LISTS), where)
    return _set_only(told), file_list or []


def _no_strangers(told: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    strangers = [name for name in told if name not in known]
    if strangers:
        raise BadInput(f"{where}: unknown field {strangers[0]}", field=strangers[0], value=told[strangers[0]])


def _set_only(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value not in (None, UNSET, "")}


def _read(reader: Reader, name: str, value: Any, where: str) -> Any:
    try:
        return reader(value)
    except ValueError as error:
        raise BadInput(f"{where}: {name}: {error}", field=name, value=value) from error


def _bounded(name: str, value: Any, where: str) -> Any:
    """Keep values to what the tables hold."""
    if isinstance(value, str):
        most = _LIMITS.get(name, 255 if name in ("AtlasRelease", "workingGroup") else _SHORT)
        _not_longer(value, most, name, where)
    elif name == "assignedPriority":
        if abs(value) > _LARGEST_PRIORITY:
            text = f"{where}: {name} is between -{_LARGEST_PRIORITY} and {_LARGEST_PRIORITY}"
            raise BadInput(text, field=name, value=value)
    elif value > _LARGEST and name not in _LARGE_NUMBERS:
        raise BadInput(f"{where}: {name} is too large, at most {_LARGEST}", field=name, value=value)
    elif value < 0:
        raise BadInput(f"{where}: {name} is negative", field=name, value=value)
    return value.rstrip("/") if name.endswith("DBlock") else value


def _kept(name: str, value: Any, where: str) -> Any:
    read = _read(values.scalar, name, value, where)
    if isinstance(read, str):
        _not_longer(read, _KEPT, name, where)
    return read


def _not_longer(value: str, most: int, name: str, where: str) -> None:
    if len(value) > most:
        raise BadInput(f"{where}: {name} has {len(value)} characters, at most {most}", field=name, value=value)


def _read_file(file: Any, where: str, dataset_of_job: Mapping[str, str]) -> NewFile:
    told = _attributes_of_file(file, where)
    texts = {name: _read(values.text, name, told.get(name, ""), where) for name in _FILE_TEXTS}
    for name, (form, rule) in _FORMS.items():
        if texts[name] and not form.fullmatch(texts[name]):
            raise BadInput(f"{where}: {name} is not acceptable: {rule}", field=name, value=texts[name])
    if texts["type"] not in SUBMITTED:
        raise BadInput(f"{where}: type is input, output or log", field="type", value=texts["type"])
    kind = FileType(texts["type"])
    dataset = _dataset(told, kind, where) or dataset_of_job["input" if kind is FileType.INPUT else "output"]
    return NewFile(
        lfn=texts["lfn"],
        type=kind,
        dataset=dataset,
        scope=texts["scope"] or default_scope(dataset),
        guid=texts["GUID"] or None,
        destination=texts["destinationSE"] or None,
        size_bytes=_read(_size, "fsize", told["fsize"], where) if "fsize" in told else None,
        checksum=texts["checksum"] or None,
    )


def _attributes_of_file(file: Any, where: str) -> dict[str, Any]:
    """Give the attributes that are set; a list may have one more value, the owner, which is always null."""
    if isinstance(file, Mapping):
        told = dict(file)
    elif isinstance(file, list) and 0 < len(file) <= len(FILE_ATTRIBUTES) + 1:
        told = dict(zip(FILE_ATTRIBUTES, file, strict=False))
    else:
        text = f"{where}: a dictionary, or a list of at most {len(FILE_ATTRIBUTES) + 1} values, is expected"
        raise BadInput(text, field=FILES, value=file)
    told.pop("rowID", None)
    _no_strangers(told, FILE_ATTRIBUTES, where)
    return _set_only(told)


def _size(value: Any) -> int:
    size = values.whole_number(value)
    if size < 0:
        raise ValueError("a size is not negative")
    return int(size)


def _dataset(told: Mapping[str, Any], kind: FileType, where: str) -> str:
    other = "prodDBlock" if kind is FileType.INPUT else "destinationDBlock"
    name = "dataset" if "dataset" in told else other
    return str(_read(values.text, name, told.get(name, ""), where)).rstrip("/")
