"""Puts requests that wait at the same moment into one transaction.

Nobody waits on purpose: the first caller works at once, and what comes in the meantime is worked off together by the
next. So a lonely caller pays nothing, and a crowd shares the cost of statements and of the commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pandaserver.errors import UncertainCommit

Q = TypeVar("Q")
A = TypeVar("A")

MOST_AT_ONCE = 64


@dataclass(eq=False)
class _Caller(Generic[Q, A]):
    """One thread with its questions; woken when they are answered, or when it is its turn to work for others."""

    questions: Sequence[Q]
    bell: threading.Event = field(default_factory=threading.Event)
    answers: Sequence[A] = ()
    error: Exception | None = None
    done: bool = False


class Combiner(Generic[Q, A]):
    """Answers lists of questions by `answer_all`, which gives as many answers in the same order."""

    def __init__(self, answer_all: Callable[[Sequence[Q]], Sequence[A]], most: int = MOST_AT_ONCE) -> None:
        self._answer_all, self._most = answer_all, most
        self._lock = threading.Lock()
        self._waiting: list[_Caller[Q, A]] = []
        self._working = False

    def ask(self, questions: Sequence[Q]) -> Sequence[A]:
        """Have questions answered, all in one transaction; an error of theirs is raised here, and harms nobody else."""
        mine = _Caller[Q, A](questions)
        with self._lock:
            self._waiting.append(mine)
            first, self._working = not self._working, True
        if not first:
            mine.bell.wait()
        if not mine.done:
            self._work()
        if mine.error is not None:
            raise mine.error
        return mine.answers

    def _work(self) -> None:
        """Answer those who wait, the caller of this first; then it is the turn of the next who came meanwhile."""
        with self._lock:
            batch = self._next_batch()
        try:
            self._answer(batch)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._working = following is not None
            if following is not None:
                following.bell.set()
            for caller in batch:
                caller.done = True
                caller.bell.set()

    def _next_batch(self) -> list[_Caller[Q, A]]:
        count, number = 0, 0
        for caller in self._waiting:
            number += len(caller.questions)
            if count and number > self._most:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _answer(self, batch: Sequence[_Caller[Q, A]]) -> None:
        try:
            answers = iter(self._answer_all([question for caller in batch for question in caller.questions]))
        except UncertainCommit as error:  # perhaps done: not to be done again
            for caller in batch:
                caller.error = error
        except Exception as error:  # noqa: BLE001 - whose fault it is shows when each is alone
            self._answer_each(batch, error)
        else:
            for caller in batch:
                caller.answers = [next(answers) for _ in caller.questions]

    def _answer_each(self, batch: Sequence[_Caller[Q, A]], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].error = error
            return
        for caller in batch:
            self._answer([caller])
