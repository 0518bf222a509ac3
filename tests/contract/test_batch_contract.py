"""What every batch back end has to do, whatever is behind it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from schedulers.batch.fork import open_batch
from schedulers.batch.inmemory import InMemoryBatch
from schedulers.batch.protocol import (
    BATCH_ID_MARK,
    BatchSettings,
    BatchState,
    BatchSystem,
    PilotCounts,
    PilotRequest,
)
from schedulers.errors import BatchUnknown, PilotNotKnown

SLOTS = {"A": 2, "B": 1}
PATIENCE_S = 10.0


class Bench(Protocol):
    """A back end with all that a test needs to work with it."""

    batch: BatchSystem

    def pilot(self, queue: str, *, seconds: float, exit_code: int) -> PilotRequest: ...
    def pause(self) -> None: ...
    def reopen(self) -> None: ...
    def break_down(self) -> None: ...
    def told(self, batch_id: str) -> str: ...


class ForkBench:
    def __init__(self, state_dir: Path) -> None:
        self._settings = BatchSettings(state_dir, "test", slots=SLOTS, stop_grace_s=1)
        self.batch = open_batch(self._settings)

    def pilot(self, queue: str, *, seconds: float, exit_code: int) -> PilotRequest:
        script = f"echo {BATCH_ID_MARK} > told; sleep {seconds} & wait $!; exit {exit_code}"
        return PilotRequest(queue, ("sh", "-c", script))

    def pause(self) -> None:
        time.sleep(0.02)

    def reopen(self) -> None:
        self.batch = open_batch(self._settings)

    def break_down(self) -> None:
        folder = self._settings.state_dir / "fork" / "live"
        folder.rename(folder.with_name("away"))

    def told(self, batch_id: str) -> str:
        path = self.batch.logs(batch_id).stdout.with_name("told")
        return path.read_text() if path.exists() else ""


class InMemoryBench:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.batch: InMemoryBatch = InMemoryBatch(SLOTS, lambda: self.time, life=self._life)

    @staticmethod
    def _life(request: PilotRequest) -> tuple[float, int]:
        seconds, exit_code, _ = shlex.split(" ".join(request.argv))
        return float(seconds), int(exit_code)

    def pilot(self, queue: str, *, seconds: float, exit_code: int) -> PilotRequest:
        return PilotRequest(queue, (str(seconds), str(exit_code), BATCH_ID_MARK))

    def pause(self) -> None:
        self.time += timedelta(seconds=0.5)

    def reopen(self) -> None:
        """It lives in the memory of the batch system, so to speak."""

    def break_down(self) -> None:
        self.batch.answers = False

    def told(self, batch_id: str) -> str:
        return self.batch.pilots[batch_id].request.argv[-1]


@pytest.fixture(params=[pytest.param("fork", marks=pytest.mark.integration), "in memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench: Bench = ForkBench(tmp_path) if request.param == "fork" else InMemoryBench()
    yield bench
    with suppress(BatchUnknown):  # the test that breaks the back end has sent nothing
        bench.batch.cancel(tuple(bench.batch.live()))
        wait_for(bench, lambda: not bench.batch.live())


def wait_for(bench: Bench, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        bench.pause()


def state(bench: Bench, batch_id: str) -> BatchState:
    return bench.batch.poll([batch_id])[batch_id].state


def wait_for_state(bench: Bench, batch_id: str, wanted: BatchState) -> None:
    wait_for(bench, lambda: state(bench, batch_id) is wanted)


def test_each_pilot_gets_an_id_of_its_own(bench):
    request = bench.pilot("A", seconds=100, exit_code=0)
    ids = [*bench.batch.submit(3, request), *bench.batch.submit(2, request)]
    assert len(set(ids)) == 5
    assert all(isinstance(batch_id, str) for batch_id in ids)
    assert bench.batch.submit(0, request) == ()


def test_the_pilot_is_told_its_id(bench):
    (batch_id,) = bench.batch.submit(1, bench.pilot("A", seconds=100, exit_code=0))
    wait_for(bench, lambda: bench.told(batch_id).strip() == batch_id)


@pytest.mark.parametrize(("exit_code", "wanted"), [(0, BatchState.DONE), (3, BatchState.FAILED)])
def test_the_end_of_a_pilot_is_seen_with_its_exit_code_and_times(bench, exit_code, wanted):
    (batch_id,) = bench.batch.submit(1, bench.pilot("A", seconds=0.1, exit_code=exit_code))
    wait_for_state(bench, batch_id, wanted)
    status = bench.batch.poll([batch_id])[batch_id]
    assert status.exit_code == exit_code
    assert status.native
    assert status.started_at is not None
    assert status.ended_at is not None
    assert 0.05 < status.lived_s(datetime.now(UTC)) < PATIENCE_S
    assert bench.batch.live() == {}
    assert bench.batch.counts().get("A", PilotCounts()) == PilotCounts()


def test_pilots_beyond_the_slots_wait_and_follow(bench):
    first = bench.batch.submit(2, bench.pilot("A", seconds=0.1, exit_code=0))
    second = bench.batch.submit(1, bench.pilot("A", seconds=100, exit_code=0))
    assert state(bench, second[0]) is BatchState.PENDING
    for batch_id in first:
        wait_for_state(bench, batch_id, BatchState.DONE)
    wait_for_state(bench, second[0], BatchState.RUNNING)


def test_counts_are_by_queue(bench):
    bench.batch.submit(3, bench.pilot("A", seconds=100, exit_code=0))
    bench.batch.submit(3, bench.pilot("B", seconds=100, exit_code=0))
    wanted = {"A": PilotCounts(pending=1, running=2), "B": PilotCounts(pending=2, running=1)}
    wait_for(bench, lambda: bench.batch.counts() == wanted)
    assert bench.batch.counts() == wanted


def test_a_queue_without_slots_waits_for_ever(bench):
    (batch_id,) = bench.batch.submit(1, bench.pilot("NONE", seconds=0, exit_code=0))
    bench.pause()
    assert state(bench, batch_id) is BatchState.PENDING
    assert bench.batch.counts()["NONE"] == PilotCounts(pending=1)


def test_live_pilots_are_found_again_with_their_queue(bench):
    ids = bench.batch.submit(3, bench.pilot("A", seconds=100, exit_code=0))
    assert bench.batch.live() == dict.fromkeys(ids, "A")
    bench.reopen()
    assert bench.batch.live() == dict.fromkeys(ids, "A")


def test_asking_twice_changes_nothing(bench):
    ids = bench.batch.submit(3, bench.pilot("A", seconds=100, exit_code=0))
    wait_for(bench, lambda: bench.batch.counts()["A"].running == 2)
    assert bench.batch.poll(ids) == bench.batch.poll(ids)
    assert bench.batch.live() == bench.batch.live()


def test_an_id_that_nobody_remembers_is_unknown_and_not_failed(bench):
    (batch_id,) = bench.batch.submit(1, bench.pilot("A", seconds=100, exit_code=0))
    answer = bench.batch.poll([batch_id, "1234-nobody", "../../etc"])
    assert set(answer) == {batch_id, "1234-nobody", "../../etc"}
    assert answer["1234-nobody"].state is BatchState.UNKNOWN
    assert answer["../../etc"].state is BatchState.UNKNOWN
    assert bench.batch.poll([]) == {}


def test_cancelled_pilots_are_removed_whether_they_wait_or_run(bench):
    ids = bench.batch.submit(4, bench.pilot("A", seconds=100, exit_code=0))
    wait_for(bench, lambda: bench.batch.counts()["A"].running == 2)
    bench.batch.cancel(ids[1:])
    for batch_id in ids[1:]:
        wait_for_state(bench, batch_id, BatchState.REMOVED)
    assert state(bench, ids[0]) is BatchState.RUNNING
    assert bench.batch.live() == {ids[0]: "A"}


def test_cancelling_twice_or_what_is_gone_is_harmless(bench):
    (batch_id,) = bench.batch.submit(1, bench.pilot("A", seconds=0.1, exit_code=0))
    wait_for_state(bench, batch_id, BatchState.DONE)
    bench.batch.cancel([batch_id, "1234-nobody", "../../etc"])
    assert state(bench, batch_id) is BatchState.DONE
    (other,) = bench.batch.submit(1, bench.pilot("A", seconds=100, exit_code=0))
    bench.batch.cancel([other])
    bench.batch.cancel([other])
    wait_for_state(bench, other, BatchState.REMOVED)
    bench.batch.cancel([other])
    assert state(bench, other) is BatchState.REMOVED


def test_logs_are_known_for_known_pilots_only(bench):
    (batch_id,) = bench.batch.submit(1, bench.pilot("A", seconds=100, exit_code=0))
    logs = bench.batch.logs(batch_id)
    assert logs.stdout != logs.stderr
    for nobody in ("1234-nobody", "../../etc"):
        with pytest.raises(PilotNotKnown, match="no pilot"):
            bench.batch.logs(nobody)


def test_no_answer_is_an_error_and_never_an_empty_one(bench):
    request = bench.pilot("A", seconds=0, exit_code=0)
    bench.break_down()
    calls: list[Callable[[], object]] = [
        lambda: bench.batch.submit(1, request),
        lambda: bench.batch.poll(["1234-nobody"]),
        bench.batch.counts,
        bench.batch.live,
        lambda: bench.batch.cancel([]),
    ]
    for call in calls:
        with pytest.raises(BatchUnknown):
            call()
