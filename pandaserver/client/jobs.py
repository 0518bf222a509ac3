"""Builds jobs, dictionaries by attribute name, from what a person can say in one line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pandaserver.client.failures import WrongUse
from pandaserver.model.file import FileType

SERIAL = "$SERIAL"  # 1, 2, ... within a submission
JOB_ID = "$PANDAID"  # replaced by the server
INPUTS = "$INPUTS"  # names of the job's input files


@dataclass(frozen=True)
class InputFile:
    """A file that a job reads; an empty scope means: that of the dataset."""

    lfn: str
    dataset: str
    scope: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A kind of job. Zero and empty mean: not said, the server decides."""

    transformation: str
    parameters: str = ""
    inputs: tuple[InputFile, ...] = ()
    outputs: tuple[str, ...] = ()
    output_dataset: str = ""
    name: str = ""
    label: str = "user"
    site: str = ""
    include_sites: str = ""
    exclude_sites: str = ""
    memory_mb: int = 0
    cores: int = 0


def build_jobs(request: JobRequest, *, repeat: int = 1, files_per_job: int = 0) -> list[dict[str, Any]]:
    """Build jobs: `repeat` equal ones for each portion of the inputs.

    $SERIAL in parameters, name and outputs becomes 1, 2, ...; $PANDAID there becomes the job's id at the server;
    $INPUTS in the parameters becomes the names of the input files, with blanks between.

    Raises:
        WrongUse: such jobs would not work.
    """
    portions = [portion for portion in _portions(request.inputs, files_per_job) for _ in range(repeat)]
    _check(request, number=len(portions))
    return [_job(request, portion, serial) for serial, portion in enumerate(portions, start=1)]


def _portions(inputs: Sequence[InputFile], size: int) -> list[Sequence[InputFile]]:
    if not inputs or not size:
        return [inputs]
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


def _check(request: JobRequest, *, number: int) -> None:
    if request.outputs and not request.output_dataset:
        raise WrongUse("outputs need an output dataset, such as user.alice.test1", field="output_dataset")
    same = [name for name in request.outputs if SERIAL not in name and JOB_ID not in name]
    if number > 1 and same:
        text = f"{number} jobs would all make the file {same[0]}: put {JOB_ID} or {SERIAL} into its name"
        raise WrongUse(text, field="outputs", value=same[0])
    try:
        shlex.split(request.parameters)
    except ValueError as error:
        raise WrongUse(f"the parameters cannot be split into words: {error}", field="parameters") from error


def _job(request: JobRequest, inputs: Sequence[InputFile], serial: int) -> dict[str, Any]:
    def numbered(text: str) -> str:
        return text.replace(SERIAL, str(serial))

    parameters = numbered(request.parameters).replace(INPUTS, shlex.join(file.lfn for file in inputs))
    outputs = [numbered(lfn) for lfn in request.outputs]
    told = {
        "transformation": request.transformation,
        "jobParameters": parameters,
        "jobName": numbered(request.name),
        "prodSourceLabel": request.label,
        "computingSite": request.site,
        "includedSite": request.include_sites,
        "excludedSite": request.exclude_sites,
        "minRamCount": request.memory_mb,
        "coreCount": request.cores,
        "prodDBlock": inputs[0].dataset if inputs else "",
        "destinationDBlock": request.output_dataset,
    }
    job = {name: value for name, value in told.items() if value}
    return job | {"Files": [*map(_input, inputs), *(_output(lfn, request.output_dataset) for lfn in outputs)]}


def _input(file: InputFile) -> dict[str, str]:
    told = {"lfn": file.lfn, "type": FileType.INPUT.value, "dataset": file.dataset}
    return told | {"scope": file.scope} if file.scope else told


def _output(lfn: str, dataset: str) -> dict[str, str]:
    return {"lfn": lfn, "type": FileType.OUTPUT.value, "dataset": dataset}
