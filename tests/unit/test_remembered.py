"""What a process remembers of the database: for a while, by database, and never what `forget` came in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from pandaserver.taskbuffer.remembered import Remembered


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    """Two databases."""
    made = [sa.create_engine("sqlite://") for _ in range(2)]
    yield made
    for engine in made:
        engine.dispose()


def counting() -> Callable[[], int]:
    numbers = iter(range(1, 100))
    return lambda: next(numbers)


def test_a_value_is_read_once_in_a_while(engines: list[Engine]) -> None:
    clock, read = Clock(), counting()
    remembered = Remembered[int](for_s=5, clock=clock)
    assert [remembered.get(engines[0], "a", read) for _ in range(3)] == [1, 1, 1]
    clock.now_s = 4.9
    assert remembered.get(engines[0], "a", read) == 1
    clock.now_s = 5.1
    assert remembered.get(engines[0], "a", read) == 2


def test_names_and_databases_are_kept_apart(engines: list[Engine]) -> None:
    remembered, read = Remembered[int](for_s=5, clock=Clock()), counting()
    assert remembered.get(engines[0], "a", read) == 1
    assert remembered.get(engines[0], "b", read) == 2
    assert remembered.get(engines[1], "a", read) == 3
    assert remembered.get(engines[0], "a", read) == 1


def test_nothing_is_not_remembered(engines: list[Engine]) -> None:
    remembered = Remembered[int | None](for_s=5, clock=Clock())
    assert remembered.get(engines[0], "a", lambda: None) is None
    assert remembered.get(engines[0], "a", lambda: 7) == 7


def test_forgotten_is_forgotten_also_for_one_who_reads_meanwhile(engines: list[Engine]) -> None:
    remembered = Remembered[str](for_s=5, clock=Clock())

    def read_slowly() -> str:
        remembered.forget()  # somebody else changes it now
        return "old"

    assert remembered.get(engines[0], "a", read_slowly) == "old"
    assert remembered.get(engines[0], "a", lambda: "new") == "new"
