"""How much work is taken at a time: one piece at once after a silence, many together in a flood."""

from __future__ import annotations

from pandaserver.background.pace import Measure, Pace

BULK = Measure(at_once=100, pause_s=0.5)


def quick(pace: Pace, pieces: int = 100) -> Pace:
    """Let a pace have seen that a piece takes a millisecond."""
    pace.begun(pieces, -100.0)
    pace.ended(pieces, 0.001 * pieces)
    return pace


def test_the_first_piece_after_a_silence_is_begun_at_once() -> None:
    pace = quick(Pace(BULK, threads=4))
    assert pace.room(0.0) == 100
    assert pace.pause_left_s(0.0) == 0


def test_what_comes_one_by_one_collects_during_the_pause() -> None:
    pace = quick(Pace(BULK, threads=4))
    assert not pace.begun(1, 10.0)
    pace.ended(1, 0.001)
    assert pace.room(10.0) == pace.room(10.4) == 0
    assert abs(pace.pause_left_s(10.4) - 0.1) < 1e-9
    assert pace.room(10.5) == 100


def test_there_is_no_pause_while_there_is_more_than_a_bunch_takes() -> None:
    pace = quick(Pace(BULK, threads=4))
    assert pace.begun(100, 10.0), "more may follow at once"
    assert pace.room(10.0) == 100


def test_full_bunches_that_are_done_quickly_take_half_of_the_threads() -> None:
    pace = quick(Pace(BULK, threads=4))
    assert pace.begun(100, 0.0)
    assert not pace.begun(100, 0.0)
    assert pace.room(0.0) == 0
    pace.ended(100, 0.1)
    assert pace.room(0.0) == 100


def test_one_thread_is_enough_for_a_bunch() -> None:
    pace = quick(Pace(BULK, threads=1))
    assert pace.room(0.0) == 100
    assert not pace.begun(100, 0.0)
    assert pace.room(0.0) == 0


def test_bunches_are_small_where_each_piece_takes_long_and_take_all_threads() -> None:
    pace = quick(Pace(BULK, threads=4))
    pace.begun(100, 0.0)
    pace.ended(100, 50.0)
    assert pace.largest == pace.room(1.0) == 4
    for _ in range(3):
        assert pace.begun(4, 1.0)
    assert not pace.begun(4, 1.0)
    assert pace.room(1.0) == 0


def test_a_piece_that_takes_very_long_is_a_bunch_of_its_own() -> None:
    pace = Pace(BULK, threads=2)
    pace.begun(1, 0.0)
    pace.ended(1, 3600.0)
    assert pace.largest == 1
    pace.begun(1, 5000.0)
    pace.ended(1, 0.0)
    assert pace.largest == 100, "the last bunch counts, not what was long ago"


def test_nobody_knows_at_first_how_long_pieces_take() -> None:
    assert Pace(BULK, threads=2).largest == 20


def test_single_pieces_take_a_thread_each() -> None:
    pace = Pace(Measure(), threads=3)
    assert pace.room(0.0) == 3
    assert pace.begun(1, 0.0)
    assert pace.room(0.0) == 2
    assert pace.begun(1, 0.0)
    assert not pace.begun(1, 0.0)
    assert pace.room(0.0) == 0
    pace.ended(1, 1.0)
    assert pace.room(0.0) == 1
