"""Values as they come over the wire: text from forms, or JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.web import values

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PICKLE_OF_JOBS = "(lp0\nccopy_reg\n_reconstructor\np1\n(cpandaserver.taskbuffer.JobSpec\nJobSpec\n."
PICKLE_OF_IDS = "(lp0\nI1\naI2\na."


@pytest.mark.parametrize(("told", "read"), [("5", 5), (" 7 ", 7), ("-3", -3), (0, 0), (2**62, 2**62), ("0009", 9)])
def test_whole_numbers(told, read):
    assert values.whole_number(told) == read


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (True, "not bool"), (None, "not NoneType"), (1.5, "not float"), ([1], "not list"), ({}, "not dict"),
        ("", "whole number"), ("1.5", "whole number"), ("1e3", "whole number"), ("0x1f", "whole number"),
        ("NULL", "whole number"), ("None", "whole number"), (2**62 + 1, "too large"), (-(2**62) - 1, "too large"),
        ("9" * 5000, "too large"), (10**4000, "too large"), ("१२ 3", "whole number"),
    ],
)  # fmt: skip
def test_what_is_no_whole_number(told, why):
    with pytest.raises(ValueError, match=why):
        values.whole_number(told)


@pytest.mark.parametrize("told", ["nan", "NaN", "inf", "-Infinity", float("nan"), float("inf"), "1e999", 10**400])
def test_numbers_are_finite(told):
    with pytest.raises(ValueError, match="number is expected"):
        values.number(told)


@pytest.mark.parametrize(("told", "read"), [("24105.55", 24105.55), (1, 1.0), ("-1e-3", -0.001)])
def test_numbers(told, read):
    assert values.number(told) == read


@pytest.mark.parametrize("told", [True, None, [], {}, "", "one"])
def test_what_is_no_number(told):
    with pytest.raises(ValueError, match="a number is expected"):
        values.number(told)


@pytest.mark.parametrize("told", ["", "plain", "λ → 𝄞", "line\nline\ttab", "NULL"])
def test_text(told):
    assert values.text(told) == told


@pytest.mark.parametrize(
    ("told", "why"),
    [(1, "not int"), (None, "not NoneType"), (["a"], "not list"), ("a\x00b", "zero byte"), ("\ud800", "half a char")],
)
def test_what_is_no_text(told, why):
    with pytest.raises(ValueError, match=why):
        values.text(told)


@given(st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False))
def test_scalars_keep_their_kind(told):
    read = values.scalar(told)
    assert read == told and type(read) is type(told)


@pytest.mark.parametrize("told", [[], {}, None, float("nan"), float("inf"), 2**63, "\x00", "\udfff"])
def test_what_is_no_scalar(told):
    with pytest.raises(ValueError):
        values.scalar(told)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1,}', "."),
        ("[NaN]", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        ('{"x": [{"jobs": 1, "jobs": 2}]}', "'jobs' is there twice"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        (b"\xff\xfe\xfd", "."),
        (b'{"a": "\xe9"}', "codec can't decode"),
        ("1" * 5000, "."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_is_strict(document, why):
    with pytest.raises(ValueError, match=why):
        values.strict_json(document)


@given(ANYTHING)
def test_standard_json_is_read_as_the_standard_library_reads_it(value):
    text = json.dumps(value)
    if "NaN" in text or "Infinity" in text:
        return
    assert values.strict_json(text) == json.loads(text) == values.from_json(text)


@given(ANYTHING.filter(lambda value: not isinstance(value, str)))
def test_what_came_as_json_is_taken_as_it_is(value):
    assert values.from_json(value) is value


@given(st.text(max_size=30))
def test_json_in_a_field_is_read_or_refused(text):
    try:
        values.from_json(text)
    except ValueError as error:
        assert str(error).startswith("it is no JSON")


@pytest.mark.parametrize("pickle", [PICKLE_OF_JOBS, PICKLE_OF_IDS, "\x80\x02]q\x00.", "(dp0\n.", "]q\x00."])
def test_pickles_are_called_by_their_name(pickle):
    with pytest.raises(ValueError, match="no JSON but a pickle, as clients of before 2020 send, and is not read"):
        values.from_json(pickle)


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ([1, 2], [1, 2]),
        (["3", 4], [3, 4]),
        ("[5, 6]", [5, 6]),
        (" [7]", [7]),
        ("8,9", [8, 9]),
        ("10 11", [10, 11]),
        ("12, 13 ,14", [12, 13, 14]),
        ("15", [15]),
        (16, [16]),
        ([], []),
        ("", []),
    ],
)
def test_job_ids_in_all_their_forms(told, read):
    assert values.job_ids(told) == read


@pytest.mark.parametrize(
    "told", ["a,b", "1;2", {"a": 1}, [None], [True], [[1]], None, "[1,", 1.5, PICKLE_OF_IDS, [2**63]]
)
def test_what_is_no_list_of_job_ids(told):
    with pytest.raises(ValueError):
        values.job_ids(told)


def test_a_pickle_of_job_ids_is_called_by_its_name():
    with pytest.raises(ValueError, match="pickle"):
        values.job_ids(PICKLE_OF_IDS)


def test_moments_are_written_in_both_ways():
    moment = datetime(2026, 11, 22, 12, 30, 1, 250_000, tzinfo=UTC)
    nested = {"a": [moment, (1, moment)], "b": None}
    assert values.plain(nested, marked_times=False) == {
        "a": ["2026-11-22 12:30:01", [1, "2026-11-22 12:30:01"]],
        "b": None,
    }
    marked = {"__datetime__": "2026-11-22T12:30:01.250000"}
    assert values.plain(nested, marked_times=True) == {"a": [marked, [1, marked]], "b": None}


@given(st.datetimes(timezones=st.just(UTC)))
def test_marked_moments_can_be_read_back(moment):
    marked = values.plain(moment, marked_times=True)["__datetime__"]
    assert datetime.fromisoformat(marked).replace(tzinfo=UTC) == moment
