"""Filters in addresses: checked, normal, and the same after the way through a URL."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandamonitor.query import PARAMETERS, Query, read_query
from pandamonitor.views.jobs import FILTERS, job_filter
from pandaserver.errors import BadInput
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.states import JobState

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALL = tuple(PARAMETERS)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
many_names = st.lists(names, max_size=4)
number = st.integers(0, 2**63 - 1).map(str)
filters = st.fixed_dictionaries(
    {},
    optional={
        "state": st.lists(st.sampled_from([s.value for s in JobState]), max_size=5),
        "site": many_names,
        "owner": many_names,
        "label": many_names,
        "task": number.map(lambda n: [n]),
        "definition": number.map(lambda n: [n]),
        "dataset": names.map(lambda n: [n]),
        "name": names.map(lambda n: [n]),
        "error": st.tuples(st.sampled_from(ErrorFamily), st.integers(0, 99999)).map(lambda e: [f"{e[0].value}:{e[1]}"]),
        "hours": st.integers(1, 8784).map(lambda n: [str(n)]),
        "page": st.integers(1, 10**6).map(lambda n: [str(n)]),
    },
)


def through_a_url(query: Query) -> Query:
    parts = urlsplit(query.href())
    return read_query("", unquote(parts.path), parse_qs(parts.query), allowed=ALL)


@given(filters)
def test_filters_survive_the_way_through_a_url(values: dict[str, list[str]]) -> None:
    query = read_query("", "/jobs", values, allowed=ALL)
    again = through_a_url(query)
    assert again == query
    assert job_filter(again, NOW) == job_filter(query, NOW)


@given(filters)
def test_nothing_asked_for_is_lost(values: dict[str, list[str]]) -> None:
    chosen = job_filter(read_query("", "/jobs", values, allowed=ALL), NOW)
    assert {s.value for s in chosen.states} == set(values.get("state", []))
    assert set(chosen.owners) == set(values.get("owner", []))
    assert chosen.name == "".join(values.get("name", []))
    assert (chosen.task_id is None) == ("task" not in values)


def test_order_and_repetition_make_no_other_page() -> None:
    one = read_query("", "/jobs", {"site": ["B", "A", "B"], "hours": ["024"], "name": [""]}, allowed=ALL)
    other = read_query("", "/jobs", {"hours": ["24"], "site": ["A", "B"]}, allowed=ALL)
    assert one.key == other.key == "/jobs?hours=24&site=A&site=B"


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", "walking"), ("task", "-1"), ("task", "1e9"), ("task", "9" * 30), ("task", "٣"), ("hours", "0"),
     ("page", "0"), ("size", "7"), ("sort", "password"), ("sort", "--id"), ("error", "pilot"), ("error", "x:1"),
     ("error", "pilot:-1"), ("format", "xml"), ("name", "x" * 256), ("transfer", "lost"), ("type", "dir")],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"parameter {name}") as caught:
        read_query("", "/jobs", {name: [value]}, allowed=ALL)
    assert caught.value.field == name


def test_unknown_and_doubled_parameters_are_refused() -> None:
    with pytest.raises(BadInput, match="no parameter colour") as caught:
        read_query("", "/jobs", {"colour": ["red"]}, allowed=("state",))
    assert caught.value.field == "colour"
    with pytest.raises(BadInput, match="name is given 2 times"):
        read_query("", "/jobs", {"name": ["a", "b"]}, allowed=ALL)


def test_another_filter_starts_at_page_one_and_another_format_does_not() -> None:
    query = read_query("/monitor", "/jobs", {"page": ["3"], "site": ["A"]}, allowed=ALL)
    assert query.href(sort="-name") == "/monitor/jobs?site=A&sort=-name"
    assert query.href(page=4) == "/monitor/jobs?page=4&site=A"
    assert query.href(format="csv") == "/monitor/jobs?format=csv&page=3&site=A"
    assert query.without("site", "A") == "/monitor/jobs"


def test_names_are_quoted_in_links() -> None:
    query = read_query("", "/", {}, allowed=())
    assert query.link("/datasets/a b/<c>?&#", state=("x",)) == "/datasets/a%20b/%3Cc%3E%3F%26%23?state=x"


def test_every_filter_is_a_known_parameter() -> None:
    assert set(FILTERS) <= set(PARAMETERS)
