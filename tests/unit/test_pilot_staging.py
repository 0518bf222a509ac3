"""Outputs that the pilot stores beside their place, because the server said so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandapilot.jobs import OutputFile, job_from_wire
from pandapilot.queues import Endpoint, queue_from_wire
from pandapilot.report import catalogue
from pandapilot.storage import LONGEST_STAGED_NAME, deterministic_path, staged_path
from pandapilot.transfers import Mover
from pandaserver.model.file import staged_name

SUFFIX = ".a3-0123abcd"
WIRE = {
    "PandaID": 7, "attemptNr": 3, "jobToken": "t", "transformation": "run", "outFiles": "out.root,log.tgz",
    "scopeOut": "mc", "ddmEndPointOut": "DISK,DISK", "logFile": "log.tgz", "scopeLog": "mc", "outSuffix": SUFFIX,
}  # fmt: skip


def mover(root: Path) -> Mover:
    told = {"nickname": "Q", "panda_resource": "Q", "status": "online", "astorages": {"write_lan": ["DISK"]}}
    place = Endpoint(name="DISK", read_url=f"file://localhost{root}", write_url=f"file://localhost{root}")
    return Mover(queue_from_wire("Q", told), {"DISK": place}, None, tick=lambda: None, pause_s=0)  # type: ignore[arg-type]


def test_the_suffix_goes_to_outputs_and_log() -> None:
    job = job_from_wire(WIRE)
    assert job.log is not None
    assert [file.suffix for file in (*job.outputs, job.log)] == [SUFFIX, SUFFIX]
    assert job.problems == ()


def test_without_a_suffix_all_is_as_it_was() -> None:
    job = job_from_wire({name: value for name, value in WIRE.items() if name != "outSuffix"})
    assert [file.suffix for file in job.outputs] == [""]


@pytest.mark.parametrize("suffix", ["/../../etc/passwd", "a", ".", ".a/b", ".a b", ".a\n", "." + 61 * "a", ".\u00e4"])
def test_a_suffix_that_could_lead_elsewhere_is_not_used(suffix: str) -> None:
    job = job_from_wire(WIRE | {"outSuffix": suffix})
    assert job.log is not None
    assert [file.suffix for file in (*job.outputs, job.log)] == ["", ""]
    assert "outSuffix" in job.problems[0].text


def test_a_file_is_stored_beside_its_place_and_said_to_be(tmp_path: Path) -> None:
    source = tmp_path / "out.root"
    source.write_bytes(b"events")
    stored = mover(tmp_path / "disk").stage_out(OutputFile("out.root", "mc", "DISK", "guid", SUFFIX), source)
    place = tmp_path / "disk" / deterministic_path("mc", "out.root")
    assert not place.exists()
    assert place.with_name(f"out.root{SUFFIX}").read_bytes() == b"events"
    assert [path.name for path in place.parent.iterdir()] == [f"out.root{SUFFIX}"]
    told = json.loads(catalogue([stored]))["out.root"]
    assert (told["staged"], told["fsize"], told["surl"].endswith(SUFFIX)) == (True, 6, True)


def test_what_is_stored_in_its_place_is_not_said_to_be_staged(tmp_path: Path) -> None:
    source = tmp_path / "out.root"
    source.write_bytes(b"events")
    stored = mover(tmp_path / "disk").stage_out(OutputFile("out.root", "mc", "DISK", "guid"), source)
    assert (tmp_path / "disk" / deterministic_path("mc", "out.root")).read_bytes() == b"events"
    assert "staged" not in json.loads(catalogue([stored]))["out.root"]


NAMES = st.text(st.characters(min_codepoint=48, max_codepoint=122, categories=["L", "N"]), min_size=1, max_size=255)


@given(NAMES, st.integers(1, 10**6))
def test_pilot_and_server_mean_the_same_name_and_it_fits(lfn: str, attempt: int) -> None:
    suffix = f".a{attempt}-0123abcd"
    folder, _, name = staged_path("mc.test", lfn, suffix).rpartition("/")
    assert name == staged_name(lfn, suffix)
    assert name.endswith(suffix)
    assert len(name) <= LONGEST_STAGED_NAME
    assert folder == deterministic_path("mc.test", lfn).rpartition("/")[0]


def test_the_longest_name_can_be_stored(tmp_path: Path) -> None:
    source = tmp_path / "out"
    source.write_bytes(b"events")
    mover(tmp_path / "disk").stage_out(OutputFile(255 * "x", "mc", "DISK", "guid", SUFFIX), source)
    (stored,) = (path for path in (tmp_path / "disk").rglob("*") if path.is_file())
    assert len(stored.name) == LONGEST_STAGED_NAME
