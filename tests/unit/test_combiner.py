"""The combiner: who waits at the same moment shares a transaction, and nobody suffers for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandaserver.errors import UncertainCommit
from pandaserver.jobdispatcher.combiner import Combiner

PATIENCE_S = 10


class Office:
    """Answers questions with ten times their value; the first batch can be held up, and -1 cannot be answered."""

    def __init__(self, *, error: type[Exception] = ValueError) -> None:
        self.batches: list[list[int]] = []
        self.open, self.begun = threading.Event(), threading.Event()
        self.open.set()
        self.error = error

    def answer_all(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        self.begun.set()
        assert self.open.wait(PATIENCE_S)
        if -1 in questions:
            raise self.error("cannot answer -1")
        return [10 * question for question in questions]


def crowd(office: Office, *lists: Sequence[int], most: int = 64) -> list[Future[Any]]:
    """Ask with one list; while that is being answered, with all others, in their order."""
    combiner = Combiner(office.answer_all, most)
    office.open.clear()
    with ThreadPoolExecutor(len(lists)) as pool:
        asked = [pool.submit(combiner.ask, lists[0])]
        assert office.begun.wait(PATIENCE_S)
        for count, questions in enumerate(lists[1:], 1):
            asked.append(pool.submit(combiner.ask, questions))
            eventually(lambda count=count: len(combiner._waiting) == count)
        office.open.set()
    return asked


def eventually(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(PATIENCE_S * 500):
        if condition():
            return
        waiting.wait(0.002)
    raise AssertionError("it did not happen")


def test_a_lonely_caller_is_answered_by_its_own_thread() -> None:
    threads = []

    def answer_all(questions: Sequence[int]) -> Sequence[int]:
        threads.append(threading.current_thread())
        return questions

    assert Combiner(answer_all).ask([1, 2]) == [1, 2]
    assert threads == [threading.current_thread()]


def test_who_comes_meanwhile_shares_the_next_batch() -> None:
    office = Office()
    asked = crowd(office, [1], [2], [3, 4], [5])
    assert [future.result() for future in asked] == [[10], [20], [30, 40], [50]]
    assert office.batches == [[1], [2, 3, 4, 5]]


def test_a_batch_has_an_end_and_no_callers_questions_are_torn_apart() -> None:
    office = Office()
    asked = crowd(office, [0], [1, 2], [3, 4], [5, 6, 7, 8, 9], [10], most=4)
    assert [future.result() for future in asked] == [[0], [10, 20], [30, 40], [50, 60, 70, 80, 90], [100]]
    assert office.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8, 9], [10]]


def test_a_bad_question_harms_nobody_else() -> None:
    office = Office()
    asked = crowd(office, [1], [2], [-1], [3])
    assert [future.exception() is None for future in asked] == [True, True, False, True]
    assert str(asked[2].exception()) == "cannot answer -1"
    assert asked[3].result() == [30]
    assert office.batches == [[1], [2, -1, 3], [2], [-1], [3]]


def test_what_was_perhaps_done_is_not_done_again() -> None:
    office = Office(error=UncertainCommit)
    asked = crowd(office, [1], [2], [-1])
    assert [type(future.exception()) for future in asked] == [type(None), UncertainCommit, UncertainCommit]
    assert office.batches == [[1], [2, -1]]


def test_work_goes_on_after_an_error() -> None:
    office = Office()
    combiner = Combiner(office.answer_all)
    with pytest.raises(ValueError, match="-1"):
        combiner.ask([-1])
    assert combiner.ask([7]) == [70]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=40), st.integers(1, 10))
@settings(deadline=None, max_examples=30)
def test_everybody_gets_their_own_answers(lists: list[list[int]], most: int) -> None:
    office = Office()
    combiner = Combiner(office.answer_all, most)
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(combiner.ask, lists))
    assert given == [[10 * question for question in questions] for questions in lists]
    assert sorted(q for batch in office.batches for q in batch) == sorted(q for questions in lists for q in questions)
    longest = max(map(len, lists))
    assert all(len(batch) <= max(most, longest) for batch in office.batches)
