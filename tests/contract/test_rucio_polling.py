"""Polling as the truth, over a DDM that says what a test wants."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from factories import accept, move, new_job

from pandaserver.dataservice.ddm import polling
from pandaserver.dataservice.ddm.polling import Poller
from pandaserver.dataservice.ddm.protocol import Progress, ProgressState, Wanted
from pandaserver.dataservice.service import DataService
from pandaserver.errors import DDMError
from pandaserver.model.dataset import Dataset, DatasetStatus, DatasetType
from pandaserver.model.file import FileStatus, FileType, NewFile
from pandaserver.model.states import JobState
from pandaserver.taskbuffer import datasets, files, open_requests, schema
from pandaserver.taskbuffer.buffer import TaskBuffer

OK, REPLICATING, STUCK, GONE = ProgressState.OK, ProgressState.REPLICATING, ProgressState.STUCK, ProgressState.GONE


class Saying:
    """A DDM that says how far it is, and notes what it is asked."""

    def __init__(self) -> None:
        self.says: dict[str, Progress] = {}
        self.asked: list[list[Wanted]] = []
        self.requested: list[tuple[list[str], str]] = []
        self.trouble = False

    def progress(self, wanted: Iterable[Wanted]) -> dict[Wanted, Progress]:
        if self.trouble:
            raise DDMError("not now")
        pairs = list(wanted)
        self.asked.append(pairs)
        return {pair: self.says.get(pair[0], Progress(REPLICATING, 0, 2)) for pair in pairs}

    def request(self, names: Iterable[str], endpoint: str) -> None:
        self.requested.append((list(names), endpoint))


@pytest.fixture
def ddm() -> Saying:
    return Saying()


@pytest.fixture
def poller(buffer: TaskBuffer, ddm: Saying) -> Poller:
    return Poller(DataService(buffer, ddm, lambda *_, **__: None))  # type: ignore[arg-type,return-value]


def on_the_way(buffer: TaskBuffer, job_id: int, name: str, kind: DatasetType) -> None:
    """A job that waits for a dispatch dataset, or whose output is in a _sub dataset under way."""
    now, output = buffer.now(), kind is DatasetType.SUB
    file = NewFile(lfn=f"f{job_id}", type=FileType.OUTPUT if output else FileType.INPUT, dataset="d", scope="s")
    accept(buffer, new_job(file), first_id=job_id)
    one = Dataset(
        name=name, type=kind, status=DatasetStatus.DEFINED, vo="", endpoint="UTA_DISK", created_at=now, modified_at=now
    )
    buffer.run(lambda c: datasets.add(c, [one]))
    (found,) = buffer.read(lambda c: files.load_jobs(c, [job_id]))
    status = FileStatus.TRANSFERRING if output else FileStatus.PENDING
    buffer.run(lambda c: files.set_status(c, [f.file_id for f in found.files], status, block=name))
    if not output:
        move(buffer, job_id, JobState.ASSIGNED, dispatch_dataset=name, site="UTA")


def asked_for(buffer: TaskBuffer) -> list[tuple[str, str]]:
    table = schema.work
    rows = buffer.read(lambda c: c.execute(table.select()).all())
    found = sorted((row.kind, row.payload["dataset"]) for row in rows)
    buffer.run(lambda c: c.execute(table.delete()))
    return found


def find(buffer: TaskBuffer, **told: Any) -> list[str]:
    return [d.name for d in buffer.read(lambda c: open_requests.find(c, **({"after": "", "limit": 10} | told)))]


def test_what_is_open_is_found_page_by_page_and_nothing_else(buffer: TaskBuffer) -> None:
    on_the_way(buffer, 1, "c", DatasetType.DISPATCH)
    on_the_way(buffer, 2, "a", DatasetType.SUB)
    on_the_way(buffer, 3, "b", DatasetType.SUB)
    on_the_way(buffer, 4, "out", DatasetType.OUTPUT)
    assert find(buffer) == ["a", "b", "c"]
    assert (find(buffer, limit=2), find(buffer, after="b")) == (["a", "b"], ["c"])
    move(buffer, 1, JobState.ACTIVATED)
    assert find(buffer) == ["a", "b"], "nobody waits for it any more"
    (found,) = buffer.read(lambda c: files.load_jobs(c, [2]))
    buffer.run(lambda c: files.set_status(c, [f.file_id for f in found.files], FileStatus.READY))
    assert find(buffer) == ["b"]
    done = {"expected": [DatasetStatus.DEFINED], "now": buffer.now()}
    buffer.run(lambda c: datasets.set_status(c, ["b"], DatasetStatus.COMPLETED, **done))  # type: ignore[arg-type]
    assert find(buffer) == []


def test_what_has_arrived_is_worked_on_as_after_a_callback(buffer: TaskBuffer, ddm: Saying, poller: Poller) -> None:
    on_the_way(buffer, 1, "dis", DatasetType.DISPATCH)
    on_the_way(buffer, 2, "sub", DatasetType.SUB)
    on_the_way(buffer, 3, "other", DatasetType.SUB)
    assert poller.run_once() == 0 and asked_for(buffer) == []
    ddm.says = {"dis": Progress(OK, 2, 2), "sub": Progress(OK, 1, 1)}
    assert poller.run_once() == 2
    assert asked_for(buffer) == [("activate", "dis"), ("finish", "sub")]
    assert poller.run_once() == 2, "as long as somebody waits for it"
    assert ddm.asked[0] == [("dis", "UTA_DISK"), ("other", "UTA_DISK"), ("sub", "UTA_DISK")], "all in one question"


def test_outputs_are_looked_at_whenever_more_are_there(buffer: TaskBuffer, ddm: Saying, poller: Poller) -> None:
    on_the_way(buffer, 1, "dis", DatasetType.DISPATCH)
    on_the_way(buffer, 2, "sub", DatasetType.SUB)
    seen = []
    for there in (1, 1, 2, 2):
        ddm.says = dict.fromkeys(("dis", "sub"), Progress(REPLICATING, there, 5))
        poller.run_once()
        seen.append(asked_for(buffer))
    assert seen == [[("finish", "sub")], [], [("finish", "sub")], []]


def test_what_is_stuck_is_said_once_for_each_reason(
    buffer: TaskBuffer, ddm: Saying, poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pandaserver")
    on_the_way(buffer, 1, "dis", DatasetType.DISPATCH)
    for error in ("no disk", "no disk", "no source"):
        ddm.says = {"dis": Progress(STUCK, 1, 2, error)}
        assert poller.run_once() == 0
    assert [r.getMessage() for r in caplog.records] == [
        "dis is stuck on its way to UTA_DISK, 1 of 2 files are there: no disk",
        "dis is stuck on its way to UTA_DISK, 1 of 2 files are there: no source",
    ]
    ddm.says = {"dis": Progress(OK, 2, 2)}
    assert poller.run_once() == 1, "it was not final"


def test_what_the_ddm_forgot_is_requested_again_after_a_while(buffer: TaskBuffer, ddm: Saying, poller: Poller) -> None:
    on_the_way(buffer, 1, "dis", DatasetType.DISPATCH)
    on_the_way(buffer, 2, "empty", DatasetType.SUB)
    ddm.says = {"dis": Progress(GONE, 0, 2), "empty": Progress(GONE, 0, 0)}
    assert poller.run_once() == 0 and ddm.requested == [], "perhaps nobody has come to ask for it yet"
    buffer.clock.forward(timedelta(hours=1).total_seconds())  # type: ignore[attr-defined]
    assert poller.run_once() == 1
    assert ddm.requested == [(["dis"], "UTA_DISK")]


def test_a_ddm_that_does_not_answer_is_asked_again(
    buffer: TaskBuffer, ddm: Saying, poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    on_the_way(buffer, 1, "dis", DatasetType.DISPATCH)
    ddm.trouble, ddm.says = True, {"dis": Progress(OK, 2, 2)}
    assert poller.run_once() == 0
    assert "asking again later: not now" in caplog.text and "Traceback" not in caplog.text
    ddm.trouble = False
    assert poller.run_once() == 1


def test_a_long_list_is_gone_through_in_turns(
    buffer: TaskBuffer, ddm: Saying, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_AT_ONCE", 2)
    monkeypatch.setattr(polling, "_PAGES", 2)
    for number in range(1, 8):
        on_the_way(buffer, number, f"sub{number}", DatasetType.SUB)
    for _ in range(3):
        poller.run_once()
    seen = [[name for name, _ in page] for page in ddm.asked]
    assert seen == [["sub1", "sub2"], ["sub3", "sub4"], ["sub5", "sub6"], ["sub7"], ["sub1", "sub2"], ["sub3", "sub4"]]
