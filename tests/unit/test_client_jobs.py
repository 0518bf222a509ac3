"""Jobs made of simple arguments, and what people may write for job ids, servers and names."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from pandaserver.client.connection import base_url
from pandaserver.client.failures import WrongUse
from pandaserver.client.following import ids, seconds
from pandaserver.client.jobs import InputFile, JobRequest, build_jobs
from pandaserver.client.submitting import spans, unique_name

RUN = "https://x.example.org/run.sh"


def test_the_smallest_job() -> None:
    request = JobRequest(transformation=RUN)
    assert build_jobs(request) == [{"transformation": RUN, "prodSourceLabel": "user", "Files": []}]


def test_everything_has_its_attribute() -> None:
    request = JobRequest(
        transformation=RUN,
        parameters="-n 5",
        inputs=(InputFile("a.root", "mc.in", "mc"), InputFile("b.root", "mc.in")),
        outputs=("h.root",),
        output_dataset="user.alice.out",
        name="test",
        label="managed",
        site="A_Q",
        memory_mb=2000,
        cores=4,
    )
    (job,) = build_jobs(request)
    assert job == {
        "transformation": RUN,
        "jobParameters": "-n 5",
        "jobName": "test",
        "prodSourceLabel": "managed",
        "computingSite": "A_Q",
        "minRamCount": 2000,
        "coreCount": 4,
        "prodDBlock": "mc.in",
        "destinationDBlock": "user.alice.out",
        "Files": [
            {"lfn": "a.root", "type": "input", "dataset": "mc.in", "scope": "mc"},
            {"lfn": "b.root", "type": "input", "dataset": "mc.in"},
            {"lfn": "h.root", "type": "output", "dataset": "user.alice.out"},
        ],
    }


def test_repeated_jobs_have_serial_numbers() -> None:
    request = JobRequest(
        transformation=RUN,
        parameters="--seed $SERIAL --id $PANDAID",
        outputs=("h.$SERIAL.root", "n.$PANDAID.txt"),
        output_dataset="user.alice.out",
        name="test-$SERIAL",
    )
    jobs = build_jobs(request, repeat=3)
    assert [job["jobParameters"] for job in jobs] == [f"--seed {n} --id $PANDAID" for n in (1, 2, 3)]
    assert [job["jobName"] for job in jobs] == ["test-1", "test-2", "test-3"]
    assert [file["lfn"] for file in jobs[1]["Files"]] == ["h.2.root", "n.$PANDAID.txt"]


@pytest.mark.parametrize(("size", "sizes"), [(0, [5]), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_inputs_are_split(size: int, sizes: list[int]) -> None:
    inputs = tuple(InputFile(f"f{n}", "mc.in") for n in range(5))
    jobs = build_jobs(JobRequest(transformation=RUN, inputs=inputs, parameters="$INPUTS"), files_per_job=size)
    assert [len(job["Files"]) for job in jobs] == sizes
    assert " ".join(job["jobParameters"] for job in jobs) == "f0 f1 f2 f3 f4"


def test_split_and_repeated() -> None:
    inputs = (InputFile("a", "mc.in"), InputFile("b", "mc.in"))
    request = JobRequest(transformation=RUN, inputs=inputs, parameters="$SERIAL $INPUTS")
    jobs = build_jobs(request, repeat=2, files_per_job=1)
    assert [job["jobParameters"] for job in jobs] == ["1 a", "2 a", "3 b", "4 b"]


def test_names_of_inputs_stay_one_word_each() -> None:
    (job,) = build_jobs(JobRequest(transformation=RUN, inputs=(InputFile("a b;c", "d"),), parameters="cat $INPUTS"))
    assert job["jobParameters"] == "cat 'a b;c'"


@pytest.mark.parametrize(
    ("request_", "repeat", "field"),
    [
        (JobRequest(transformation=RUN, outputs=("a",)), 1, "output_dataset"),
        (JobRequest(transformation=RUN, outputs=("$SERIAL", "a"), output_dataset="d"), 2, "outputs"),
        (JobRequest(transformation=RUN, parameters="don't"), 1, "parameters"),
    ],
)
def test_jobs_that_would_not_work(request_: JobRequest, repeat: int, field: str) -> None:
    with pytest.raises(WrongUse) as caught:
        build_jobs(request_, repeat=repeat)
    assert (caught.value.field, caught.value.exit_code) == (field, 2)


def test_one_job_needs_no_number_in_its_outputs() -> None:
    assert build_jobs(JobRequest(transformation=RUN, outputs=("a",), output_dataset="d"))


# --- what people write ---


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", [7]), ("7,9", [7, 9]), ("7-9", [7, 8, 9]), ("1-2,5-5", [1, 2, 5]), ("0", [0])],
)
def test_job_ids(text: str, found: list[int]) -> None:
    assert ids(text) == found


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "5-", "9-7", "1-2-3", "1 2", "²", "1-999999", "9" * 19, "0x5"])
def test_no_job_ids(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="job id"):
        ids(text)


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3], [1, 3, 4, 9], [5, 4, 6]])
def test_spans_are_read_back(numbers: list[int]) -> None:
    assert ids(spans(numbers)) == numbers


def test_spans() -> None:
    assert spans([101, 102, 103, 107, 109, 110]) == "101-103,107,109-110"
    assert spans([]) == ""


@pytest.mark.parametrize("path", ["", "/", "/server/panda", "/server/panda/", "/api/v1"])
def test_addresses_of_servers(path: str) -> None:
    assert base_url(f"https://panda.example.org:25443{path}") == "https://panda.example.org:25443"


@pytest.mark.parametrize(
    "address",
    [
        "", "panda.example.org", "http://panda.example.org:25080", "https://", "https://:25443", "ftp://x",
        "https://x:port", "https://x:99999", "https://x/elsewhere", "https://x?y=1", "https://me:secret@x", "https://[x",
    ],
)  # fmt: skip
def test_no_addresses_of_servers(address: str) -> None:
    with pytest.raises(WrongUse, match="no address of a PanDA server"):
        base_url(address)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("run.sh", r"run\.\w{32}\.sh"),
        ("my run.tar.gz", r"my_run_tar\.\w{32}\.gz"),
        ("run", r"run\.\w{32}"),
        ("-rf.sh", r"rf\.\w{32}\.sh"),
        (".hidden", r"_hidden\.\w{32}"),
        ("é" * 300, r"_\.\w{32}"),
        ("x" * 300 + ".sh", r"x{80}\.\w{32}\.sh"),
        ("---", r"script\.\w{32}"),
    ],
)
def test_unique_names_suit_the_server(name: str, pattern: str) -> None:
    first, second = unique_name(Path(name)), unique_name(Path(name))
    assert re.fullmatch(pattern, first)
    assert first != second


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e9"])
def test_no_times(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)
