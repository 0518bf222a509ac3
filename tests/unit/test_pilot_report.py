"""What the server is told: fields, sizes, and which files count."""

from __future__ import annotations

import json
import logging

import pytest

from pandapilot import report
from pandapilot.codes import ErrorCode
from pandapilot.failures import JobFailure
from pandapilot.jobs import job_from_wire
from pandapilot.logs import MASK, PilotLog
from pandapilot.payload import Ended, Measure, environment_for, find_program
from pandapilot.record import JobRecord
from pandapilot.states import Phase
from pandapilot.storage import FileFacts
from pandapilot.transfers import Transferred

SENDER = report.Sender(site="Q", node="node", pilot_id="P", scheduler_id="S")
OUT = Transferred("out", "g1", "D", "file://localhost/out", FileFacts(10, "0000000a"))
LOG = Transferred("log", "g2", "D", "file://localhost/log", FileFacts(20, "0000000b"))


@pytest.fixture
def record():
    job = job_from_wire({"PandaID": 9, "attemptNr": 3, "jobToken": "tok", "coreCount": 4, "taskID": 55})
    return JobRecord(job=job, started=1.8e9)


def test_heartbeat_tells_who_what_and_how_much(record):
    record.phase = Phase.RUN
    record.measured = Measure(cpu_s=12.25, memory_bytes=2048 * 1024)
    update = report.heartbeat(record, SENDER, now=1.8e9)
    assert update["timestamp"] == "2027-01-15T08:00:00+00:00"
    assert (update["jobId"], update["attemptNr"], update["jobToken"], update["state"]) == ("9", 3, "tok", "running")
    assert (update["siteName"], update["node"], update["pilotID"], update["schedulerID"]) == ("Q", "node", "P", "S")
    assert (update["cpuConsumptionTime"], update["maxRSS"], update["coreCount"]) == (12.25, 2048, 4)
    assert update["jobSubStatus"] == "payload"
    assert "xml" not in update


@pytest.mark.parametrize(
    ("phase", "state"), [(Phase.STAGE_IN, "starting"), (Phase.SET_UP, "starting"), (Phase.LOG, "running")]
)
def test_heartbeat_state_follows_the_phase(record, phase, state):
    record.phase = phase
    assert report.heartbeat(record, SENDER, now=0)["state"] == state


def test_finished_job_reports_all_files(record):
    record.transferred, record.log = [OUT], LOG
    record.payload = Ended(exit_code=0, cpu_s=5.0, max_memory_bytes=4096)
    final = report.final(record, SENDER, now=1.8e9 + 60)
    assert (final["state"], final["pilotErrorCode"]) == ("finished", 0)
    assert final["pilotErrorDiag"] == final["pilotLog"] == ""
    assert json.loads(final["xml"])["out"] == {
        "guid": "g1", "fsize": 10, "adler32": "0000000a", "surl": "file://localhost/out", "endpoint": "D"
    }  # fmt: skip
    assert set(json.loads(final["xml"])) == {"out", "log"}
    assert (final["cpuConsumptionTime"], final["maxRSS"]) == (5.0, 4)


def test_failed_job_reports_only_its_log(record):
    record.transferred, record.log, record.extract = [OUT], LOG, "last words"
    record.fail(ErrorCode.STAGE_OUT_FAILED, "no\x1b space" + "x" * 1000)
    record.fail(ErrorCode.SIGTERM, "later")
    final = report.final(record, SENDER, now=0)
    assert set(json.loads(final["xml"])) == {"log"}
    assert (final["state"], final["pilotErrorCode"], final["pilotLog"]) == ("failed", 1137, "last words")
    assert final["pilotErrorDiag"].startswith("no? space")
    assert len(final["pilotErrorDiag"]) <= 500


def test_trouble_with_the_log_is_told_after_however_long_a_diagnosis(record):
    record.fail(ErrorCode.PAYLOAD_FAILED, "x" * 5000)
    record.log_problem = "log not stored: disk full"
    diagnosis = report.final(record, SENDER, now=0)["pilotErrorDiag"]
    assert diagnosis.endswith("; log not stored: disk full")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"exitCode": 65, "exitMsg": "bad"}', (65, "bad")),
        ('{"exitCode": "3"}', (3, "")),
        ('{"exitCode": null}', (0, "")),
        ("{}", (0, "")),
        ("[]", (0, "")),
        ("not json", (0, "")),
        ("", (0, "")),
        ('{"exitCode": 1e999}', (0, "")),
        ("[" * 100_000, (0, "")),
    ],
)
def test_payloads_own_error_is_read_if_it_makes_sense(record, text, expected):
    record.job_report = text
    assert record.executable_error() == expected


def test_timing_has_its_five_parts_in_order(record):
    for seconds, phase in enumerate((Phase.GET_JOB, Phase.STAGE_IN, Phase.RUN, Phase.STAGE_OUT, Phase.SET_UP), 1):
        record.spend(phase, seconds)
    record.spend(Phase.RUN, 10)
    record.spend(Phase.LOG, 99)
    assert report.final(record, SENDER, now=0)["pilotTiming"] == "1|2|13|4|5"


def test_reduced_report_keeps_all_that_the_server_needs(record):
    record.transferred, record.job_report, record.stdout_tail = [OUT], "{}", "text"
    full = report.final(record, SENDER, now=0)
    assert set(full) - set(report.reduced(full)) == {"metaData", "stdout", "pilotLog"}


def test_extract_is_the_end_of_warnings_and_stderr():
    text = report.extract(["first" * 300, "warn\x07"], "trace\nback")
    assert text.endswith("warn?\ntrace\nback")
    assert len(text.encode()) <= 1024


def test_environment_is_made_from_nothing(record, tmp_path, monkeypatch):
    monkeypatch.setenv("X509_USER_PROXY", "/tmp/x509up")
    environment = environment_for(record.job, tmp_path, {"PATH": "/sw", "HOME": "/root", "PANDAID": "0"})
    assert environment == {
        "PATH": "/sw", "LANG": "C.UTF-8", "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"),
        "PANDAID": "9", "PanDA_TaskID": "55",
    }  # fmt: skip


def test_programs_are_found_in_the_payloads_path_only(tmp_path):
    program = tmp_path / "simulate"
    program.touch(mode=0o755)
    assert find_program("simulate", {"PATH": str(tmp_path)}) == str(program)
    for name in ("sh", str(program), "../simulate", ""):
        with pytest.raises(JobFailure) as caught:
            find_program(name, {"PATH": str(tmp_path)})
        assert caught.value.code == 1146


@pytest.fixture
def log(tmp_path):
    opened = PilotLog(tmp_path / "pilot.log")
    yield opened
    opened.close()


def test_log_masks_the_token_of_the_job_everywhere(log):
    logger = logging.getLogger("pandapilot.test")
    log.begin_job("s3cret")
    logger.warning("token %s", "s3cret")
    try:
        raise ValueError("s3cret")
    except ValueError:
        logger.exception("with a traceback")
    assert b"s3cret" not in log.of_job()
    assert log.of_job().count(MASK.encode()) == 3
    assert not any("s3cret" in line for line in log.warnings())


def test_log_of_a_job_begins_with_the_job(log):
    logger = logging.getLogger("pandapilot.test")
    logger.warning("before")
    log.begin_job("a-token")
    logger.info("during")
    logger.error("trouble")
    assert b"before" not in log.of_job() and b"during" in log.of_job()
    assert [line.split(": ", 1)[1] for line in log.warnings()] == ["trouble"]


def test_empty_secret_masks_nothing(log):
    log.begin_job("")
    logging.getLogger("pandapilot.test").info("plain")
    assert MASK.encode() not in log.of_job()
