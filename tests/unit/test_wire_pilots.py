"""What pilots say: getJob and updateJob, read field by field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.errors import BadInput
from pandaserver.model.codes import ErrorFamily, JobError
from pandaserver.taskbuffer import schema
from pandaserver.web.pilotwire import (
    for_each_job,
    read_claim,
    read_list_of_updates,
    read_number_of_jobs,
    read_report,
    read_wait,
    write_no_job,
)

DN = "/DC=org/CN=Robot: Pilot"
ASK = {  # as pilot 3 asks
    "siteName": "BNL", "computingElement": "CE", "prodSourceLabel": "user", "diskSpace": 14336, "workingGroup": "",
    "cpu": 2596.136, "mem": 24105.55, "node": "wn1", "allowOtherCountry": False, "requestId": "11-22",
    "schedulerID": "factory", "pilotID": "tag|PR|3.11", "remainingTime": 3600,
}  # fmt: skip
OWNER = "/DC=org/CN=Alice Adams"
WHOSE = {"coreCount": 8, "VO": "atlas", "prodUserID": OWNER, "workingGroup": "higgs"}
SAY = {"jobId": "1001", "state": "running", "attemptNr": 1, "jobToken": "secret"}
OUTPUT = {"guid": "AB", "fsize": 20, "adler32": "3903059b", "surl": "file:///x", "endpoint": "BNL_DISK"}
LAST = {  # as pilot 3 ends
    "jobId": "1001", "state": "finished", "timestamp": "2026-11-22T12:00:00+00:00", "siteName": "BNL", "node": "wn1",
    "attemptNr": 2, "schedulerID": "unknown", "pilotID": "unknown|PR|3.11.5.1", "startTime": 1790000000.5,
    "xml": json.dumps({"out.txt": OUTPUT}), "metaData": '{"exitCode": 0}\n', "coreCount": 2, "meanCoreCount": 2.0,
    "cpuConsumptionUnit": "s+CPU model", "cpuConsumptionTime": "12", "pilotTiming": "0|0|20|0|0|0", "pilotLog": "",
    "endTime": 1790000020.5, "pilotErrorCode": 0, "pilotErrorDiag": "", "transExitCode": 0, "exeErrorCode": 0,
    "exeErrorDiag": "", "jobToken": "secret", "maxRSS": 5000,
}  # fmt: skip
UNSET = (None, "", "NULL", "None")


def refused(read, told) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read(told, DN)
    return caught.value


def report(**told):
    return read_report(SAY | told, DN)


def test_a_claim_as_pilots_ask():
    claim = read_claim(ASK, DN)
    assert (claim.queue, claim.labels, claim.pilot, claim.node) == ("BNL", ("user", "panda"), DN, "wn1")
    assert (claim.memory_mb, claim.disk_mb, claim.remaining_s) == (24105, 14336, 3600)
    assert (claim.computing_element, claim.scheduler_id, claim.pilot_id) == ("CE", "factory", "tag|PR|3.11")
    assert claim.request_id == "11-22"


def test_a_claim_from_a_form_says_the_same():
    told = ASK | WHOSE
    assert read_claim({name: str(value) for name, value in told.items()}, DN) == read_claim(told, DN)


def test_a_claim_for_somebodys_jobs():
    claim = read_claim(ASK | WHOSE, DN)
    assert (claim.cores, claim.vo, claim.owner, claim.working_group) == (8, "atlas", OWNER, "higgs")


@pytest.mark.parametrize("name", ["coreCount", "nCores", "cores"])
@pytest.mark.parametrize(("value", "cores"), [(8, 8), ("8", 8), (8.0, 8), ("8.0", 8), (0, 0), *((u, 0) for u in UNSET)])
def test_cores_as_pilots_of_different_years_say_them(name, value, cores):
    assert read_claim(ASK | {name: value}, DN).cores == cores


def test_the_name_that_is_set_counts():
    assert read_claim(ASK | {"coreCount": "NULL", "nCores": None, "cores": 4}, DN).cores == 4
    assert read_claim(ASK | {"vo": "", "VO": "cms"}, DN).vo == "cms"
    assert read_claim(ASK | {"coreCount": 2, "cores": 4, "vo": "atlas", "VO": "cms"}, DN).cores == 2


@pytest.mark.parametrize("value", [0.5, "7.9", -1, "-8", "many", "nan", [8], True, 1e300])
@pytest.mark.parametrize("name", ["coreCount", "nCores", "cores"])
def test_wrong_cores_are_refused(name, value):
    error = refused(read_claim, ASK | {name: value})
    assert error.field == name and name in error.message


@pytest.mark.parametrize(("name", "most"), [("vo", 64), ("VO", 64), ("prodUserID", 255), ("workingGroup", 255)])
def test_whose_jobs_is_taken_whole_or_not_at_all(name, most):
    claim = read_claim(ASK | {name: "x" * most}, DN)
    assert "x" * most in (claim.vo, claim.owner, claim.working_group)
    assert refused(read_claim, ASK | {name: "x" * (most + 1)}).field == name
    for value in (["a"], {"a": 1}):
        assert refused(read_claim, ASK | {name: value}).field == name


@pytest.mark.parametrize("unset", UNSET)
def test_what_a_pilot_does_not_say_is_no_limit(unset):
    claim = read_claim(dict.fromkeys(ASK | WHOSE, unset) | {"siteName": "BNL"}, DN)
    assert (claim.cores, claim.vo, claim.owner, claim.working_group) == (0, "", "", "")
    assert (claim.memory_mb, claim.disk_mb, claim.remaining_s, claim.labels) == (0, 0, 0, None)
    assert claim == read_claim({"siteName": "BNL"}, DN)


@pytest.mark.parametrize("unset", UNSET)
def test_a_claim_needs_a_queue(unset):
    assert refused(read_claim, ASK | {"siteName": unset}).field == "siteName"


@pytest.mark.parametrize(
    "value", ["much", "nan", "inf", float("nan"), float("inf"), -1, "-0.5", True, [1], {}, 1e300, 10**30]
)
@pytest.mark.parametrize("name", ["mem", "diskSpace", "remainingTime"])
def test_wrong_limits_are_refused(name, value):
    error = refused(read_claim, ASK | {name: value})
    assert error.field == name and name in error.message and error.value


@pytest.mark.parametrize(
    "name", ["siteName", "prodSourceLabel", "node", "computingElement", "schedulerID", "pilotID", "requestId"]
)
@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_texts_have_no_structure(name, value):
    error = refused(read_claim, ASK | {name: value})
    assert error.field == name and f"not {type(value).__name__}" in error.message


def test_a_request_id_is_taken_whole_or_not_at_all():
    assert read_claim(ASK | {"requestId": "x" * 64}, DN).request_id == "x" * 64
    assert refused(read_claim, ASK | {"requestId": "x" * 65}).field == "requestId"


def test_long_and_odd_texts_are_cut_to_what_columns_hold():
    claim = read_claim(ASK | dict.fromkeys(["node", "pilotID", "schedulerID"], "é\x00\ud800" * 500), DN)
    for name in ("node", "pilot_id", "scheduler_id"):
        kept = getattr(claim, name)
        assert len(kept) == schema.attempts.c[name].type.length == 255
        assert "\x00" not in kept and kept.encode()


def test_no_job_is_said_explicitly():
    assert write_no_job() == {"StatusCode": 20, "errorDialog": "no job for this queue now"}
    assert write_no_job(7)["retryAfter"] == 7


def test_the_last_word_of_a_pilot():
    said = read_report(LAST, DN)
    assert (said.job_id, said.attempt, said.token, said.pilot) == (1001, 2, "secret", DN)
    assert (said.state, said.last_word, said.node) == ("finished", True, "wn1")
    assert (said.cpu_time_s, said.max_rss_kb, said.timing, said.exit_code) == (12.0, 5000, "0|0|20|0|0|0", "0")
    assert (said.metadata, said.log_extract, said.errors) == ('{"exitCode": 0}\n', "", ())
    (output,) = said.outputs
    assert (output.lfn, output.guid, output.size_bytes, output.adler32) == ("out.txt", "AB", 20, "3903059b")
    assert output.endpoint == "BNL_DISK"
    assert said.usage == {"cpuConsumptionUnit": "s+CPU model", "coreCount": 2}


def test_the_last_word_from_a_form_says_the_same():
    said = read_report({name: str(value) for name, value in LAST.items()}, DN)
    as_json = read_report(LAST, DN)
    assert said.usage.pop("coreCount") == "2" and as_json.usage.pop("coreCount") == 2
    assert said == as_json


@pytest.mark.parametrize(
    ("told", "means"),
    [
        ("starting", "starting"), ("running", "running"), ("setup", "running"), ("stagein", "running"),
        ("stageout", "running"), ("holding", "running"), ("transferring", "running"), ("finished", "finished"),
        ("failed", "failed"),
    ],
)  # fmt: skip
def test_states_of_pilots(told, means):
    assert report(state=told).state == means


@pytest.mark.parametrize("state", ["", None, "NULL", "Finished", "done", "cancelled", "activated", 5, ["failed"], {}])
def test_other_states_are_refused(state):
    error = refused(read_report, SAY | {"state": state})
    assert error.field == "state"


@pytest.mark.parametrize("job_id", [None, "", "NULL", "x", "1.5", 1.5, True, [1], {}, 2**63, "9" * 40, float("nan")])
def test_a_job_id_is_a_whole_number(job_id):
    error = refused(read_report, SAY | {"jobId": job_id})
    assert error.field == "jobId" and "jobId" in error.message


@pytest.mark.parametrize("name", ["attemptNr", "pilotErrorCode", "exeErrorCode", "supErrorCode", "ddmErrorCode"])
@pytest.mark.parametrize("value", ["x", 1.5, True, [1], {"a": 1}, 2**63, float("inf")])
def test_numbers_are_whole(name, value):
    assert refused(read_report, SAY | {name: value}).field == name


@pytest.mark.parametrize("name", ["maxRSS", "cpuConsumptionTime"])
@pytest.mark.parametrize("value", ["x", -1, True, [1], {"a": 1}, 1e300, float("inf"), "nan"])
def test_measures_are_numbers_not_below_zero(name, value):
    assert refused(read_report, SAY | {name: value}).field == name


@pytest.mark.parametrize(
    ("name", "family"),
    [("pilot", "PILOT"), ("exe", "PAYLOAD"), ("sup", "SUBMISSION"), ("ddm", "DDM")],
)
def test_errors_by_family(name, family):
    said = report(**{f"{name}ErrorCode": "-1152", f"{name}ErrorDiag": "d" * 600})
    assert said.errors == (JobError(ErrorFamily[family], -1152, "d" * 500),)
    assert refused(read_report, SAY | {f"{name}ErrorCode": 2**31}).field == f"{name}ErrorCode"
    assert report(**{f"{name}ErrorCode": 0, f"{name}ErrorDiag": "nothing"}).errors == ()


def test_texts_are_cut_where_they_say_least():
    said = report(pilotLog="a" * 5000 + "b", stdout="a" + "b" * 5000, metaData="m" * 2_000_000, pilotTiming="1|" * 99)
    assert said.log_extract == "a" * 4096 and said.stdout_tail == "b" * 4096
    assert len(said.metadata) == 1_000_000 and len(said.timing or "") == schema.attempts.c.timing.type.length == 64


def test_what_payloads_print_is_cleaned_not_refused():
    said = report(stdout="a\x00\ud800é", pilotLog="b\x00", pilotErrorCode=1, pilotErrorDiag="\udfff")
    assert (said.stdout_tail, said.log_extract, said.errors[0].diagnostic) == ("a?é", "b", "?")


@pytest.mark.parametrize("name", ["node", "pilotTiming", "transExitCode", "metaData", "pilotLog", "stdout", "jobToken"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_texts_of_reports_have_no_structure(name, value):
    assert refused(read_report, SAY | {name: value}).field == name


@pytest.mark.parametrize("value", [["a"], {"a": 1}, float("nan"), float("inf"), 2**63])
@pytest.mark.parametrize("name", ["jobMetrics", "nEvents", "coreCount", "batchID"])
def test_measures_that_are_only_kept_are_single_values(name, value):
    assert refused(read_report, SAY | {name: value}).field == name


def test_measures_that_are_only_kept_have_a_limit():
    assert report(jobMetrics="x" * 5000).usage == {"jobMetrics": "x" * 1000}


@pytest.mark.parametrize("xml", [*UNSET, "{}", {}])
def test_no_outputs(xml):
    assert report(xml=xml).outputs == ()


@pytest.mark.parametrize(
    ("told", "kept"),
    [("ad:3903059B", "3903059b"), ("1", "00000001"), ("3903059b", "3903059b"), (12345678, "12345678")],
)
def test_checksums_are_written_in_one_way(told, kept):
    assert report(xml={"o": OUTPUT | {"adler32": told}}).outputs[0].adler32 == kept


@pytest.mark.parametrize(
    ("xml", "field"),
    [
        ("<POOLFILECATALOG/>", "xml"), ("[]", "xml"), ("5", "xml"), ('"text"', "xml"), ("{", "xml"), (["o"], "xml"),
        (5, "xml"), ({"o": None}, "xml"), ({"o": []}, "xml"), ({"o": "ok"}, "xml"), ({"o": {}}, "xml"),
        ({"o": {"fsize": 5}}, "xml"), ({"o": {"adler32": "1"}}, "xml"), ({"o": OUTPUT | {"fsize": None}}, "xml"),
        ({"o": OUTPUT | {"fsize": -1}}, "fsize"), ({"o": OUTPUT | {"fsize": "big"}}, "fsize"),
        ({"o": OUTPUT | {"fsize": True}}, "fsize"), ({"o": OUTPUT | {"fsize": 2**63}}, "fsize"),
        ({"o": OUTPUT | {"adler32": "xyz"}}, "adler32"), ({"o": OUTPUT | {"adler32": "123456789"}}, "adler32"),
        ({"o": OUTPUT | {"adler32": ["1"]}}, "adler32"), ({"o": OUTPUT | {"guid": ["1"]}}, "guid"),
        ({"o": OUTPUT | {"endpoint": {}}}, "endpoint"), ({"o" * 256: OUTPUT}, "xml"),
        ('{"o": {"fsize": 1, "adler32": "1"}, "o": {"fsize": 2, "adler32": "2"}}', "xml"),
        ("[" * 50_000, "xml"), ('{"o": {"fsize": NaN, "adler32": "1"}}', "xml"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_outputs_that_cannot_be_verified_are_refused(xml, field):
    error = refused(read_report, LAST | {"xml": xml})
    assert error.field == field and len(error.value or "") < 200


def test_the_refusal_names_the_file():
    assert "bad.root" in refused(read_report, LAST | {"xml": {"good": OUTPUT, "bad.root": {}}}).message


@given(st.dictionaries(st.sampled_from(sorted({*ASK, *LAST, "stdout", "jobMetrics"})), st.none() | st.text(max_size=9)
       | st.integers() | st.floats() | st.booleans() | st.lists(st.text(max_size=3), max_size=2)
       | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)))  # fmt: skip
def test_anything_is_read_or_refused_with_its_field(told):
    for read, good in ((read_claim, ASK), (read_report, LAST)):
        try:
            read(good | told, DN)
        except BadInput as error:
            assert error.field


@pytest.mark.parametrize(
    ("told", "number"), [({}, 1), ({"nJobs": None}, 1), ({"nJobs": "7"}, 7), ({"n_jobs": 100}, 100), ({"nJobs": 1}, 1)]
)
def test_how_many_jobs(told, number):
    assert read_number_of_jobs(told) == number


@pytest.mark.parametrize("told", [{"nJobs": 0}, {"nJobs": 101}, {"n_jobs": -1}, {"nJobs": "x"}, {"nJobs": 1.5}])
def test_other_numbers_of_jobs_are_refused(told):
    assert refused(lambda told, _: read_number_of_jobs(told), told).field in told


@pytest.mark.parametrize(("told", "seconds"), [({}, 0), ({"wait": ""}, 0), ({"wait": "30"}, 30), ({"wait": 0.5}, 0.5)])
def test_how_long_to_wait(told, seconds):
    assert read_wait(told) == seconds


@pytest.mark.parametrize("wait", [-1, "soon", "nan", [], True])
def test_other_waits_are_refused(wait):
    assert refused(lambda told, _: read_wait(told), {"wait": wait}).field == "wait"


def test_each_of_several_jobs_has_a_request_id_of_its_own_and_always_the_same():
    request = read_claim({"siteName": "BNL", "requestId": "r" * 64, "mem": 7}, DN)
    ids = [one.request_id for one in for_each_job(request, 100)]
    assert ids[0] == "r" * 64 and len(set(ids)) == 100 and max(map(len, ids)) <= 64
    assert [one.request_id for one in for_each_job(request, 3)] == ids[:3]
    assert {one.memory_mb for one in for_each_job(request, 3)} == {7}
    other = for_each_job(read_claim({"siteName": "BNL", "requestId": "s"}, DN), 100)
    assert not set(ids) & {one.request_id for one in other}


def test_several_jobs_without_request_id_have_none():
    assert {one.request_id for one in for_each_job(read_claim({"siteName": "BNL"}, DN), 5)} == {""}


@pytest.mark.parametrize("name", ["jobList", "job_list"])
def test_a_list_of_updates_comes_as_list_or_as_text(name):
    assert read_list_of_updates({name: [{"jobId": 1}]}) == [{"jobId": 1}]
    assert read_list_of_updates({name: '[{"jobId": 1}]'}) == [{"jobId": 1}]
    assert read_list_of_updates({name: []}) == []


@pytest.mark.parametrize("told", [{}, {"jobList": None}, {"jobList": {}}, {"jobList": "[{"}, {"jobList": [{}] * 1001}])
def test_other_lists_of_updates_are_refused(told):
    assert refused(lambda told, _: read_list_of_updates(told), told).field == "jobList"
