"""Jobs, queues and storages as they come over the wire: well-formed, odd and hostile."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandapilot.jobs import InvalidJob, job_from_wire, name_problem
from pandapilot.queues import endpoints_from_wire, parse_environment, queue_from_wire

BARE = {"PandaID": 1001, "attemptNr": 2, "jobToken": "secret"}
FULL = {
    **BARE,
    "taskID": "55",
    "transformation": "https://host/run.sh",
    "jobPars": "-x 'a b'",
    "inFiles": "a.txt,b.txt",
    "scopeIn": "user.alice,mc23",
    "ddmEndPointIn": "IN1,IN2",
    "fsize": "10,20",
    "checksum": "ad:0000abcd,NULL",
    "outFiles": "o1,job.log.tgz,o2",
    "scopeOut": "s1,s2",
    "ddmEndPointOut": "E1,EL,E2",
    "logFile": "job.log.tgz",
    "logGUID": "guid-of-log",
    "scopeLog": "sl",
    "coreCount": 8,
    "maxCpuCount": "3600",
    "maxWalltime": 7200,
    "heartbeatInterval": 30,
    "leaseTime": 900,
}


def test_full_job_is_read_position_by_position():
    job = job_from_wire(FULL)
    assert (job.job_id, job.attempt_nr, job.token, job.task_id) == (1001, 2, "secret", "55")
    assert [(f.lfn, f.scope, f.endpoint, f.size_bytes, f.adler32) for f in job.inputs] == [
        ("a.txt", "user.alice", "IN1", 10, "0000abcd"),
        ("b.txt", "mc23", "IN2", 20, None),
    ]
    assert [(f.lfn, f.scope, f.endpoint) for f in job.outputs] == [("o1", "s1", "E1"), ("o2", "s2", "E2")]
    assert (job.log.lfn, job.log.scope, job.log.endpoint, job.log.guid) == ("job.log.tgz", "sl", "EL", "guid-of-log")
    assert (job.core_count, job.max_cpu_s, job.max_wall_s) == (8, 3600, 7200)
    assert (job.heartbeat_s, job.lease_s) == (30, 900)
    assert job.problems == ()


def test_smallest_job_has_defaults():
    job = job_from_wire(BARE)
    assert job.inputs == job.outputs == ()
    assert job.log is None
    assert (job.core_count, job.max_cpu_s, job.max_wall_s) == (1, 0, 0)
    assert job.heartbeat_s > 0 and job.lease_s > job.heartbeat_s


def test_token_is_in_neither_representation_nor_definition():
    job = job_from_wire({**FULL, "pilotSecrets": {"k": "secret"}})
    assert "secret" not in repr(job)
    assert "secret" not in str(job.definition)
    assert job.definition["jobPars"] == FULL["jobPars"]


@pytest.mark.parametrize("name", ["PandaID", "attemptNr", "jobToken"])
@pytest.mark.parametrize("value", [None, "NULL", "x"])
def test_job_without_identity_is_refused(name, value):
    if (name, value) != ("jobToken", "x"):
        with pytest.raises(InvalidJob, match=name):
            job_from_wire({**FULL, name: value})


def test_numbers_may_come_as_text_and_nonsense_is_no_limit():
    job = job_from_wire({**BARE, "PandaID": "7", "maxWalltime": "60.0", "maxCpuCount": "many", "coreCount": "-4"})
    assert (job.job_id, job.max_wall_s, job.max_cpu_s, job.core_count) == (7, 60, 0, 1)
    assert job_from_wire({**BARE, "maxWalltime": float("inf")}).max_wall_s == 0


def test_null_and_double_names_are_skipped():
    job = job_from_wire({**FULL, "inFiles": "a.txt,NULL,,a.txt", "outFiles": "o1,NULL,o1", "logFile": "NULL"})
    assert [file.lfn for file in job.inputs] == ["a.txt"]
    assert [file.lfn for file in job.outputs] == ["o1"]
    assert job.log is None


def test_lists_may_be_json_lists_and_short_ones_are_filled():
    job = job_from_wire({**FULL, "inFiles": ["a", "b"], "scopeIn": ["s", "s"], "ddmEndPointIn": "IN1", "fsize": ""})
    assert [(file.endpoint, file.size_bytes) for file in job.inputs] == [("IN1", None), ("", None)]


def test_log_that_is_not_among_the_outputs_is_still_the_log():
    job = job_from_wire({**FULL, "outFiles": "o1", "scopeOut": "s1", "ddmEndPointOut": "E1"})
    assert job.log.lfn == "job.log.tgz"
    assert [file.lfn for file in job.outputs] == ["o1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ad:ABCD", "0000abcd"),
        ("3903059b", "3903059b"),
        ("md:d41d8cd98f00b204e9800998ecf8427e", None),
        ("ad:xyz", None),
    ],
)
def test_checksums_in_all_forms(text, expected):
    assert job_from_wire({**FULL, "inFiles": "a", "checksum": text}).inputs[0].adler32 == expected


@pytest.mark.parametrize(
    "lfn",
    ["", ".", "..", "../x", "..x", "-rf", "a/b", "/etc/passwd", "a\\b", "a\nb", "a\0b", "a\x1b[2J", "tmp", "\ud800"],
)
def test_hostile_names_are_refused(lfn):
    assert name_problem(lfn).code == 1008


@pytest.mark.parametrize("lfn", ["a", "a.b-c_d+e=f@g", ".hidden", "ä" * 127, "x" * 255, "with space"])
def test_plain_names_are_accepted(lfn):
    assert name_problem(lfn) is None


@pytest.mark.parametrize("lfn", ["x" * 256, "ä" * 128])
def test_names_are_measured_in_bytes(lfn):
    assert name_problem(lfn).code == 1190


@given(st.text(max_size=300))
def test_accepted_names_stay_in_their_directory(tmp_path_factory, lfn):
    if name_problem(lfn) is None:
        directory = tmp_path_factory.getbasetemp()
        path = directory / lfn
        assert path.parent == directory and path.name == lfn


@pytest.mark.parametrize("name", ["inFiles", "outFiles", "logFile"])
def test_hostile_file_is_left_out_and_named(name):
    job = job_from_wire({**FULL, name: "../evil"})
    assert all(file.lfn != "../evil" for file in (*job.inputs, *job.outputs, *filter(None, [job.log])))
    assert any("../evil" in problem.text for problem in job.problems)


@pytest.mark.parametrize("scope", ["", "../../etc", "a/b", ".hidden", "a b", "x;y"])
def test_hostile_scope_is_refused(scope):
    job = job_from_wire({**FULL, "scopeLog": scope})
    assert job.log is None
    assert "scope" in job.problems[0].text


@given(st.dictionaries(st.sampled_from(sorted(FULL)), st.none() | st.text(max_size=20) | st.integers() | st.floats()))
def test_no_definition_makes_the_reader_fail_otherwise_than_by_invalid_job(change):
    try:
        job = job_from_wire({**FULL, **change})
    except InvalidJob:
        return
    assert all(name_problem(file.lfn) is None for file in (*job.inputs, *job.outputs))


QUEUE = {
    "atlas_site": "SITE",
    "status": "Online",
    "maxrss": "2000",
    "maxtime": 3600,
    "maxwdir": 14336,
    "astorages": {"read_lan": ["D1"], "write_lan": ["D2", "D3"]},
    "environ": "PATH=/sw/bin:/bin; A=b=c ;",
}


def test_queue_is_read():
    queue = queue_from_wire("Q", QUEUE)
    assert (queue.name, queue.site, queue.status, queue.offline) == ("Q", "SITE", "online", False)
    assert (queue.max_memory_mb, queue.max_wall_s, queue.max_directory_mb) == (2000, 3600, 14336)
    assert (queue.read_endpoints, queue.write_endpoints) == (("D1",), ("D2", "D3"))
    assert queue.environment == {"PATH": "/sw/bin:/bin", "A": "b=c"}


def test_empty_queue_has_no_limits():
    queue = queue_from_wire("Q", {"maxrss": None, "astorages": None, "maxtime": "soon"})
    assert (queue.site, queue.max_memory_mb, queue.max_wall_s, queue.read_endpoints) == ("Q", 0, 0, ())
    assert queue_from_wire("Q", {"status": "offline"}).offline


@pytest.mark.parametrize(
    "text", ["X509_USER_PROXY=/x", "BEARER_TOKEN=x", "my_api_key=x", "DbPassword=x", "1A=x", "A B=x", "novalue", "=x"]
)
def test_environment_that_is_malformed_or_a_credential_is_left_out(text, caplog):
    with caplog.at_level(logging.WARNING):
        assert parse_environment(f"{text};GOOD=1") == {"GOOD": "1"}
    assert "left out" in caplog.text


def storage(**more):
    protocol = {"endpoint": "file://localhost/", "path": "/data/disk/"}
    return {"D": {"arprotocols": {"read_lan": [protocol], "write_wan": [protocol]}, **more}}


def test_endpoints_have_a_url_for_reading_and_one_for_writing():
    endpoint = endpoints_from_wire(storage())["D"]
    assert (endpoint.read_url, endpoint.write_url) == ("file://localhost/data/disk", "file://localhost/data/disk")


def test_endpoints_without_protocols_or_with_unknown_paths():
    assert endpoints_from_wire({"D": {}})["D"].read_url == ""
    assert endpoints_from_wire(storage(is_deterministic=False)) == {}
    assert endpoints_from_wire({"D": None})["D"].write_url == ""
