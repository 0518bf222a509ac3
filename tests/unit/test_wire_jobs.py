"""Jobs as clients send them: dictionaries and positional lists, good and bad."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.errors import BadInput
from pandaserver.model.file import FileType
from pandaserver.taskbuffer import schema
from pandaserver.web.attributes import FILE_ATTRIBUTES, JOB_ATTRIBUTES
from pandaserver.web.jobwire import _FIELDS, _SERVER_SAYS, read_jobs

OF_2008, OF_TODAY = 73, 126
INSIDE = {  # what each attribute that the server works with becomes, with a value that shows it
    "jobName": ("name", "a name"),
    "prodSourceLabel": ("label", "managed"),
    "processingType": ("processing_type", "simul"),
    "transformation": ("transformation", "https://host/t.py"),
    "jobParameters": ("parameters", "--seed 5"),
    "jobDefinitionID": ("definition_id", 41),
    "jobsetID": ("jobset_id", 42),
    "taskID": ("task_id", 43),
    "parentID": ("parent_id", 44),
    "VO": ("vo", "testvo"),
    "workingGroup": ("working_group", "higgs"),
    "assignedPriority": ("assigned_priority", -7),
    "maxAttempt": ("max_attempt", 3),
    "computingSite": ("site", "BNL"),
    "cloud": ("cloud", "US"),
    "AtlasRelease": ("release", "13.0.40"),
    "cmtConfig": ("platform", "x86_64"),
    "prodDBlock": ("input_dataset", "mc.in"),
    "destinationDBlock": ("output_dataset", "mc.out"),
    "destinationSE": ("destination", "BNL_DISK"),
    "coreCount": ("cores", 8),
    "minRamCount": ("memory_mb", 2001),
    "maxDiskCount": ("disk_mb", 2002),
    "maxCpuCount": ("cpu_time_s", 2003),
    "maxWalltime": ("wall_time_s", 2004),
}
TEXTS = [name for name, (_, value) in INSIDE.items() if isinstance(value, str)]
NUMBERS = [name for name, (_, value) in INSIDE.items() if isinstance(value, int)]
KEPT = [name for name in JOB_ATTRIBUTES if name not in INSIDE and name not in _SERVER_SAYS]
SMALLEST = {"transformation": "t"}
OUTPUT = {"type": "output", "lfn": "o", "dataset": "d"}


def read_one(job):
    (read,) = read_jobs([job])
    return read


def refusal(job) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_jobs([SMALLEST, job])
    assert caught.value.message.startswith("job 1"), "the message says which job"
    return caught.value


def positional(length: int, files: list | None = None, **told) -> list:
    """A job as clients serialise it: values in the order of the contract, unset ones as NULL, the files last."""
    return [told.get(name, "NULL") for name in JOB_ATTRIBUTES[:length]] + [files or []]


def file_list(length: int = 18, **told) -> list:
    """A file as clients serialise it: with the owner, which is null, at the end."""
    return [told.get(name, "NULL") for name in FILE_ATTRIBUTES[:length]] + [None]


def test_the_order_of_the_attributes_is_that_of_the_contract():
    assert len(JOB_ATTRIBUTES) == len(set(JOB_ATTRIBUTES)) == OF_TODAY
    places = {1: "PandaID", 10: "transformation", 13: "prodSourceLabel", 26: "minRamCount", 48: "computingSite"}
    places |= {50: "jobParameters", 54: "destinationDBlock", 70: "VO", 73: "processingType", 74: "prodUserName"}
    places |= {78: "parentID", 81: "coreCount", 102: "maxWalltime", 121: "container_name", 126: "outputFileType"}
    assert {place: JOB_ATTRIBUTES[place - 1] for place in places} == places
    assert (FILE_ATTRIBUTES[0], FILE_ATTRIBUTES[3:5], FILE_ATTRIBUTES[17]) == ("row_ID", ("lfn", "type"), "scope")
    assert len(FILE_ATTRIBUTES) == 22


def test_every_attribute_is_used_kept_or_the_servers_own():
    assert set(INSIDE) == set(_FIELDS)
    assert not set(INSIDE) & _SERVER_SAYS
    assert set(JOB_ATTRIBUTES) >= _SERVER_SAYS


@pytest.mark.parametrize("name", INSIDE)
def test_an_attribute_reaches_its_place_by_name_and_by_position(name):
    field, value = INSIDE[name]
    assert getattr(read_one({"transformation": "t"} | {name: value}), field) == value
    assert getattr(read_one(by_position(name, value)), field) == value


def by_position(name, value) -> list:
    return positional(OF_TODAY, **({"transformation": "t"} | {name: value}))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_may_come_as_digits(name):
    field, value = INSIDE[name]
    assert getattr(read_one(SMALLEST | {name: str(value)}), field) == value


@pytest.mark.parametrize("name", KEPT)
def test_an_attribute_that_is_not_used_is_kept_for_the_user(name):
    for value in ("text", 5, 1.5, True):
        assert read_one(SMALLEST | {name: value}).attributes == {name: value}
    assert read_one(by_position(name, "kept")).attributes == {name: "kept"}


@pytest.mark.parametrize("name", sorted(_SERVER_SAYS))
def test_what_the_server_says_is_not_believed(name):
    honest = read_one(SMALLEST)
    for value in ("finished", 99, {"_datetime_object": "2026-01-01 00:00:00.000000"}, [1]):
        assert read_one(SMALLEST | {name: value}) == honest


@pytest.mark.parametrize("length", [OF_2008, OF_TODAY])
def test_a_job_of_a_real_client(length):
    files = [
        file_list(lfn="in.root", type="input", dataset="mc.in/", GUID="AB-12", fsize="77", checksum="ad:0123abcd"),
        file_list(17, lfn="out.root", type="output", destinationDBlock="user.alice.x/", destinationSE="BNL"),
        file_list(22, lfn="a.log.tgz", type="log", dataset="user.alice.x.log", scope="user.alice"),
    ]
    told = {name: value for name, (_, value) in INSIDE.items()}
    job = read_one(positional(length, files, **told))
    for name in JOB_ATTRIBUTES[:length]:
        if name in INSIDE:
            assert getattr(job, INSIDE[name][0]) == INSIDE[name][1], name
    first, second, third = job.files
    assert (first.type, first.lfn, first.dataset, first.scope) == (FileType.INPUT, "in.root", "mc.in", "mc")
    assert (first.guid, first.size_bytes, first.checksum) == ("AB-12", 77, "ad:0123abcd")
    assert (second.type, second.dataset, second.scope) == (FileType.OUTPUT, "user.alice.x", "user.alice")
    assert (second.destination, second.guid, second.size_bytes) == ("BNL", None, None)
    assert (third.type, third.scope) == (FileType.LOG, "user.alice")


@pytest.mark.parametrize("length", range(OF_TODAY + 1))
def test_a_list_of_any_length_is_the_beginning_of_the_contract(length):
    told = {name: value for name, (_, value) in INSIDE.items()}
    job = read_one(positional(length, [file_list(lfn="o", type="output", dataset="d")], **told))
    default = read_one(positional(0))
    for name, (field, value) in INSIDE.items():
        known = JOB_ATTRIBUTES.index(name) < length
        assert getattr(job, field) == (value if known else getattr(default, field)), name
    assert [f.lfn for f in job.files] == ["o"]


@pytest.mark.parametrize("length", range(5, len(FILE_ATTRIBUTES) + 1))
def test_a_file_of_any_length_is_the_beginning_of_the_contract(length):
    told = {"lfn": "o", "type": "output", "dataset": "d.x", "destinationSE": "BNL", "fsize": 5, "scope": "s"}
    job = read_one(SMALLEST | {"destinationDBlock": "e.x", "Files": [file_list(length, **told)]})
    (file,) = job.files
    assert (file.lfn, file.type) == ("o", FileType.OUTPUT)
    assert file.dataset == ("d.x" if length > 5 else "e.x")
    assert file.scope == ("s" if length > 17 else file.dataset[0])
    assert file.size_bytes == (5 if length > 14 else None)


def test_longer_lists_than_the_contract_are_refused():
    assert refusal([*positional(OF_TODAY)[:-1], "more", []]).field == "jobs"
    long_file = [*file_list(22, lfn="o", type="output", dataset="d"), None]
    assert refusal(SMALLEST | {"Files": [long_file]}).field == "Files"


@pytest.mark.parametrize("unset", ["NULL", "", None])
@pytest.mark.parametrize("name", [*INSIDE, *KEPT])
def test_unset_values_are_as_if_they_had_not_been_said(name, unset):
    assert read_one({"transformation": "t"} | {name: unset}) == read_one(
        {} if name == "transformation" else {"transformation": "t"}
    )


@pytest.mark.parametrize("value", [1, 1.5, True, ["a"], {"a": 1}])
@pytest.mark.parametrize("name", TEXTS)
def test_text_of_a_wrong_type_is_refused(name, value):
    error = refusal(SMALLEST | {name: value})
    assert error.field == name and f"text is expected, not {type(value).__name__}" in error.message


@pytest.mark.parametrize("value", ["many", "1.5", 1.5, True, [1], {"a": 1}, 2**63, -(2**63), "9" * 30])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_a_wrong_type_is_refused(name, value):
    error = refusal(SMALLEST | {name: value})
    assert error.field == name and name in error.message and error.value


@pytest.mark.parametrize(
    "value", [["a"], {"a": 1}, {}, [], float("inf"), float("nan"), 2**63, "\x00", "\ud834", "x" * 4001]
)
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_one_value_of_sensible_size(name, value):
    assert refusal(SMALLEST | {name: value}).field == name


@pytest.mark.parametrize("name", TEXTS)
def test_texts_fit_their_columns(name):
    field, _ = INSIDE[name]
    column = schema.jobs.c.get(field)
    room = getattr(column.type, "length", None) if column is not None else 1_000_000
    derived = 80 if name.endswith("DBlock") and name != "destinationSE" else 0  # the server appends to dataset names
    longest = max(n for n in (64, 176, 180, 255, 1024, 1_000_000) if accepted(name, "x" * n))
    assert longest + (derived and 75) <= room
    error = refusal(SMALLEST | {name: "x" * (longest + 1)})
    assert error.field == name and f"at most {longest}" in error.message
    assert str(longest + 1) in error.message and len(error.value) < 200, "values in messages are shortened"


def accepted(name: str, value) -> bool:
    try:
        read_one(SMALLEST | {name: value})
    except BadInput:
        return False
    return True


@pytest.mark.parametrize("name", [n for n in NUMBERS if n != "assignedPriority"])
def test_numbers_fit_their_columns(name):
    big = name in ("jobDefinitionID", "jobsetID", "taskID", "parentID")
    largest = 2**62 if big else 2**31 - 1
    assert accepted(name, largest) and not accepted(name, largest + 1) and not accepted(name, -1)


def test_priorities_stay_far_from_the_ends_of_their_column():
    assert accepted("assignedPriority", 1_000_000) and accepted("assignedPriority", -1_000_000)
    for value in (1_000_001, -1_000_001):
        assert "between" in refusal(SMALLEST | {"assignedPriority": value}).message


def test_unknown_attributes_are_named():
    error = refusal(SMALLEST | {"jobStatsu": "x"})
    assert (error.field, error.value) == ("jobStatsu", "x")
    error = refusal(SMALLEST | {"Files": [OUTPUT | {"LFN": "o"}]})
    assert error.field == "LFN" and "job 1 file 0" in error.message


@pytest.mark.parametrize("jobs", [None, {}, "text", 5, [], '[{"transformation": "t"}]', True])
def test_jobs_are_a_list(jobs):
    with pytest.raises(BadInput, match="a list of jobs is expected") as caught:
        read_jobs(jobs)
    assert caught.value.field == "jobs"


@pytest.mark.parametrize("job", [None, 5, "text", [], True, 1.5])
def test_a_job_is_a_dictionary_or_list(job):
    assert refusal(job).field == "jobs"


@pytest.mark.parametrize("files", [{}, 0, "", "o", 5, True, {"lfn": "o"}])
def test_files_are_a_list(files):
    error = refusal(SMALLEST | {"Files": files})
    assert error.field == "Files" and "no list" in error.message
    assert refusal([*positional(5)[:-1], files]).field == "Files"


@pytest.mark.parametrize("file", [None, 5, "o", [], True])
def test_a_file_is_a_dictionary_or_list(file):
    assert refusal(SMALLEST | {"Files": [file]}).field == "Files"


@pytest.mark.parametrize("kind", ["", "NULL", "inputs", "INPUT", "pseudo_input", "lib"])
def test_the_type_of_a_file_is_one_of_three(kind):
    error = refusal(SMALLEST | {"Files": [OUTPUT, OUTPUT | {"type": kind}]})
    assert error.field == "type" and "job 1 file 1" in error.message and "input, output or log" in error.message


@pytest.mark.parametrize("name", ["lfn", "type", "scope", "GUID", "destinationSE", "checksum", "dataset"])
@pytest.mark.parametrize("value", [1, True, ["a"], {"a": 1}, "\x00", "\udc00"])
def test_texts_of_files_of_a_wrong_type_are_refused(name, value):
    error = refusal(SMALLEST | {"Files": [OUTPUT | {name: value}]})
    assert error.field == name and "file 0" in error.message


@pytest.mark.parametrize("value", ["ten", -1, "-5", 1.5, True, [1], {}, 2**63])
def test_sizes_of_a_wrong_type_are_refused(value):
    assert refusal(SMALLEST | {"Files": [OUTPUT | {"fsize": value}]}).field == "fsize"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GUID", "a,b"), ("GUID", "a b"), ("GUID", "a" * 65), ("GUID", "../x"), ("GUID", "a\n"),
        ("checksum", "ad:x"), ("checksum", "1,2"), ("checksum", "crc:12"), ("checksum", "a" * 70),
        ("destinationSE", "BNL,UTA"), ("destinationSE", "x" * 65), ("destinationSE", "a/b"),
    ],
)  # fmt: skip
def test_nothing_may_shift_the_lists_that_pilots_get(name, value):
    error = refusal(SMALLEST | {"Files": [OUTPUT | {name: value}]})
    assert error.field == name and "not acceptable" in error.message


def test_the_dataset_of_a_file_is_the_jobs_where_it_says_none():
    told = {"prodDBlock": "in.x/", "destinationDBlock": "out.x/"}
    files = [{"type": kind, "lfn": kind} for kind in ("input", "output", "log")]
    job = read_one(SMALLEST | told | {"Files": files})
    assert [f.dataset for f in job.files] == ["in.x", "out.x", "out.x"]
    assert (job.input_dataset, job.output_dataset) == ("in.x", "out.x")


def test_the_vo_is_the_servers_where_none_is_named():
    (job,) = read_jobs([SMALLEST], "testvo")
    assert job.vo == "testvo"
    (job,) = read_jobs([SMALLEST | {"VO": "other"}], "testvo")
    assert job.vo == "other"


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*JOB_ATTRIBUTES, "Files", "bogus"]), st.text(max_size=5) | st.integers()),
        max_size=3,
    )
    | st.lists(
        st.lists(st.none() | st.text(max_size=5) | st.integers() | st.lists(st.integers()), max_size=130), max_size=2
    )
)
def test_anything_is_read_or_refused(jobs):
    try:
        read = read_jobs(jobs)
    except BadInput as error:
        assert error.field
    else:
        assert len(read) == len(jobs)
