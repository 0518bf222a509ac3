"""Jobs, files, datasets, queues and priorities: small rules that everything else leans on."""

from __future__ import annotations

import dataclasses

import pytest
from factories import JOB, queue

from pandaserver.model import codes
from pandaserver.model.attempt import PilotReport
from pandaserver.model.dataset import dispatch_name, sub_name
from pandaserver.model.file import File, FileStatus, FileType, default_scope
from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Topology
from pandaserver.model.job import KILL_COMMAND, Job, JobWithFiles, NewJob


@pytest.mark.parametrize(
    ("limit", "failed", "may"),
    [(0, 0, True), (0, 1, False), (1, 0, False), (3, 0, True), (3, 1, True), (3, 2, False), (3, 9, False)],
)
def test_retries_of_lost_attempts(limit: int, failed: int, may: bool) -> None:
    assert dataclasses.replace(JOB, max_attempt=limit, failed_attempts=failed).may_retry() is may


def test_a_job_that_somebody_wants_dead_is_not_tried_again() -> None:
    doomed = dataclasses.replace(JOB, command=KILL_COMMAND)
    assert doomed.kill_requested
    assert not doomed.may_retry()


@pytest.mark.parametrize("kind", [Job, NewJob, File, Queue, Endpoint, Topology, PilotReport, codes.JobError])
def test_what_is_passed_around_cannot_be_changed(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("label", ["managed", "test", "user", "panda", ""])
def test_new_and_accepted_jobs_agree_on_what_is_production(label: str) -> None:
    new = NewJob(transformation="run.py", label=label)
    assert new.production is dataclasses.replace(JOB, label=label).production is (label in ("managed", "test"))


def file_of(lfn: str, kind: FileType, status: FileStatus) -> File:
    return File(lfn=lfn, type=kind, dataset="d", scope="s", file_id=1, job_id=1, status=status)


def test_files_are_picked_by_type_and_status() -> None:
    ready, missing = (file_of(s, FileType.INPUT, s) for s in (FileStatus.READY, FileStatus.MISSING))
    output, log = (file_of(t, t, FileStatus.MISSING) for t in (FileType.OUTPUT, FileType.LOG))
    one = JobWithFiles(job=JOB, files=(ready, output, missing, log))
    assert one.inputs_in(FileStatus.MISSING) == [missing]
    assert one.of_type(FileType.OUTPUT, FileType.LOG) == [output, log]


@pytest.mark.parametrize(
    ("dataset", "scope"),
    [
        ("user.alice.hist", "user.alice"),
        ("user.alice.hist/", "user.alice"),
        ("group.top.x.y", "group.top"),
        ("user.alice", "user"),
        ("mc.test.evnt", "mc"),
        ("single", "single"),
    ],
)
def test_scope_of_a_dataset(dataset: str, scope: str) -> None:
    assert default_scope(dataset) == scope


def test_names_of_datasets_the_server_makes() -> None:
    assert dispatch_name("u-1", 7) == "panda.u-1_dis7"
    assert sub_name("mc.test.evnt/", 12) == "mc.test.evnt_sub012"
    assert len({sub_name("d", n) for n in range(200)}) == 200


@pytest.mark.parametrize(
    ("status", "taken"),
    [("online", {"user", "test", "managed"}), ("test", {"test"}), ("brokeroff", set()), ("offline", set())],
)
def test_what_queues_take(status: str, taken: set[str]) -> None:
    one = queue("A", status=QueueStatus(status))
    assert {label for label in ("user", "test", "managed") if one.takes_label(label)} == taken


def test_places_are_found_by_endpoint_queue_or_site() -> None:
    queues = {q.name: q for q in (queue("T2", site="S2"), queue("T1", tier=1), queue("OTHER", cloud="DE", tier=1))}
    endpoints = {f"{n}_DISK": Endpoint(name=f"{n}_DISK", site=q.site, url="file:///x") for n, q in queues.items()}
    grid = Topology(queues=queues, endpoints=endpoints)
    assert [grid.endpoint_of(place) for place in ("T2_DISK", "T2", "S2", "nowhere", "")] == ["T2_DISK"] * 3 + [None] * 2
    assert (t1 := grid.tier1("US")) is not None
    assert t1.name == "T1"
    assert grid.tier1("FR") is None


def test_every_family_of_errors_has_a_length_that_the_table_can_keep() -> None:
    assert set(codes.DIAGNOSTIC_LENGTH) == set(codes.ErrorFamily)
    assert max(codes.DIAGNOSTIC_LENGTH.values()) <= 500


def test_only_finished_and_failed_are_last_words() -> None:
    def last(state: str) -> bool:
        return PilotReport(job_id=1, attempt=1, token="", pilot="", state=state).last_word

    assert [last(s) for s in ("starting", "running", "finished", "failed")] == [False, False, True, True]
