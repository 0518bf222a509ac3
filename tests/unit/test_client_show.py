"""What is printed: aligned text, JSON, and nothing that could steer a terminal."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pandaserver.client.answers import FileInfo, JobInfo, Submitted
from pandaserver.client.failures import Refused
from pandaserver.client.progress import ended, progress, states
from pandaserver.client.show import Output, Table, cell, printable

MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def shown(*parts: Table | str, as_json: bool = False, document: object = None) -> str:
    stream = io.StringIO()
    Output(as_json=as_json, stream=stream).result(document, *parts)
    return stream.getvalue()


def test_aligned_text() -> None:
    table = Table(("job", "state", "memory MB"), [(5, "running", 2000), (1234, "ok", 10)])
    assert shown(table) == " JOB  STATE    MEMORY MB\n   5  running       2000\n1234  ok              10\n"


def test_numbers_stay_right_when_one_is_missing() -> None:
    assert shown(Table(("n", "x"), [(None, None), (1000, None)])) == "   N  X\n   -  -\n1000  -\n"


def test_no_trailing_blanks() -> None:
    table = Table(("a", "b"), [("x", "long text"), ("y", "")])
    assert shown(table) == "A  B\nx  long text\ny  -\n"


def test_empty_table() -> None:
    assert shown(Table(("a",), [], empty="no files"), "and a line") == "no files\nand a line\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    Output(as_json=False, stream=stream).result(None, Table(("state", "name"), [("failed", "[b]x[/b]")]))
    assert "\x1b[1;31mfailed" in stream.getvalue()
    assert "[b]x[/b]" in stream.getvalue()


def test_json_is_one_document() -> None:
    document = {"at": MOMENT, "weight": None, "n": 1}
    text = shown(Table(("a",), [("x",)]), "line", as_json=True, document=document)
    assert json.loads(text) == {"at": "2026-03-04T05:06:07+00:00", "weight": None, "n": 1}


def test_notes_are_for_people() -> None:
    people, program = io.StringIO(), io.StringIO()
    Output(as_json=False, stream=people).note("on the way\x1b")
    Output(as_json=True, stream=program).note("on the way")
    assert (people.getvalue(), program.getvalue()) == ("on the way\\x1b\n", "")


def test_failure(capsys: pytest.CaptureFixture[str]) -> None:
    error = Refused("no\x1b[2J", status=403, field="site", value="A_Q")
    Output(as_json=False).failure(error)
    assert capsys.readouterr() == ("", "panda: no\\x1b[2J\n")
    Output(as_json=True).failure(error)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"message": "no\x1b[2J", "field": "site", "value": "A_Q"}}
    assert err == "panda: no\\x1b[2J\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        (0, "0"),
        (True, "yes"),
        (False, "no"),
        (0.123456, "0.1235"),
        (48.0, "48"),
        (MOMENT, "2026-03-04 05:06:07"),
        ("two\nlines\tand\x00more", "two lines\\x09and\\x00more"),
        ("Käse", "Käse"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_printable_keeps_lines() -> None:
    assert printable("a\nb\r\x9b31m") == "a\nb\\x0d\\x9b31m"


# --- what the server answers ---


def job(state: str, **more: object) -> JobInfo:
    return JobInfo.from_wire({"PandaID": 5, "jobStatus": state} | more)


@pytest.mark.parametrize(
    ("state", "has_ended", "finished"),
    [
        ("finished", True, True), ("failed", True, False), ("cancelled", True, False), ("closed", True, False),
        ("running", False, False), ("transferring", False, False), ("a state of later versions", False, False),
    ],
)  # fmt: skip
def test_ends(state: str, has_ended: bool, finished: bool) -> None:
    assert (job(state).ended, job(state).finished) == (has_ended, finished)


def test_what_is_not_said_is_empty() -> None:
    bare = job("defined", Files=None, jobName=None)
    assert (bare.name, bare.site, bare.since, bare.files, bare.errors) == ("", "", None, [], [])


def test_errors() -> None:
    told = {"pilotErrorCode": 1150, "pilotErrorDiag": "looping", "taskBufferErrorCode": 100, "ddmErrorCode": 0}
    assert job("failed", **told).errors == ["pilot 1150: looping", "taskBuffer 100: no text"]


@pytest.mark.parametrize(("code", "said"), [("3", 1), (3, 1), ("0", 0), (0, 0), (None, 0), ("NULL", 0), ("", 0)])
def test_exit_code_of_the_payload(code: object, said: int) -> None:
    assert len(job("failed", transExitCode=code).errors) == said
    assert job("finished", transExitCode=code).errors == []


def test_submitted_goes_back_to_the_wire() -> None:
    assert Submitted.from_wire([5, 6, {"jobsetID": 7}]).to_wire() == {"PandaID": 5, "jobDefinitionID": 6, "jobsetID": 7}


@pytest.mark.parametrize("checksum", ["ad:0A1B2C3D", "0a1b2c3d"])
def test_files(checksum: str) -> None:
    told = {"scope": "s", "lfn": "f", "guid": None, "fsize": "12", "checksum": checksum, "replicas": []}
    assert FileInfo.from_wire(told) == FileInfo("s", "f", "", 12, "0a1b2c3d", ())


# --- progress ---


def test_counts() -> None:
    jobs = [job("running"), job("finished"), job("running"), job("failed")]
    assert (ended(jobs), states(jobs)) == (2, "1 failed, 1 finished, 2 running")


def test_lines_only_when_something_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2) as report:
        for now in (["running"], ["running"], ["running", "finished"]):
            report([job(state) for state in now])
    lines = ["0/2 ended: 1 running", "1/2 ended: 1 finished, 1 running"]
    assert capsys.readouterr().err.splitlines() == lines


def test_time_zone_of_others() -> None:
    assert cell(MOMENT.astimezone(timezone(timedelta(0)))) == "2026-03-04 05:06:07"
