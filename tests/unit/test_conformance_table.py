"""The table at the end of a conformance run."""

from __future__ import annotations

import conformance_table

HERE = "tests/contract/test_ddm_conformance.py"


def test_a_behaviour_is_there_when_all_its_tests_pass() -> None:
    outcomes = [
        (f"{HERE}::test_what_is_asked[folders]", "passed"),
        (f"{HERE}::test_what_is_asked[root_gsi]", "passed"),
        (f"{HERE}::test_more[folders-a-b]", "passed"),
        (f"{HERE}::test_more[folders-c]", "failed"),
        ("tests/contract/test_other.py::test_more[rucio]", "failed"),
        (f"{HERE}::test_without_a_back_end", "passed"),
    ]
    assert list(conformance_table.lines(outcomes)) == [
        "behaviour      folders  root_gsi",
        "more           NO       -",
        "what is asked  yes      yes",
    ]


def test_without_such_tests_there_is_no_table() -> None:
    assert list(conformance_table.lines([("tests/unit/test_x.py::test_y[a]", "passed")])) == []
