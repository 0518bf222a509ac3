from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schedulers import memory
from schedulers.breaker import Breaker
from schedulers.errors import SchedulerError
from schedulers.memory import Memory


def test_what_was_saved_is_remembered(tmp_path):
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    before = Memory({"id-1": "Q"}, {"Q": Breaker(3, 2, time, time), "R": Breaker()})
    memory.save(before, tmp_path)
    assert memory.load(tmp_path) == before


def test_a_first_start_remembers_nothing(tmp_path):
    assert memory.load(tmp_path) == Memory()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"watched": 3, "breakers": {}}', '{"watched": {}, "breakers": {"Q": {"a": 1}}}']
)
def test_a_spoilt_file_is_named_and_may_be_deleted(tmp_path, content):
    (tmp_path / memory.FILE).write_text(content)
    with pytest.raises(SchedulerError, match=r"memory\.json: cannot be understood .* may be deleted"):
        memory.load(tmp_path)


def test_two_schedulers_cannot_use_one_directory(tmp_path):
    state = tmp_path / "state"
    refused = pytest.raises(SchedulerError, match="another scheduler is using")
    with memory.only_scheduler(state), refused, memory.only_scheduler(state):
        pytest.fail("the lock did not hold")
    with memory.only_scheduler(tmp_path / "state"):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SchedulerError, match=r"state_dir .*file/state"), memory.only_scheduler(tmp_path / "file/state"):
        pytest.fail("there is no directory")
