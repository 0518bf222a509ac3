"""Groups and roles as text."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.model.fqan import Fqan, read_fqan


@pytest.mark.parametrize(
    ("text", "fqan", "working_group"),
    [
        ("/atlas", Fqan(("atlas",)), ""),
        ("/atlas/Role=NULL/Capability=NULL", Fqan(("atlas",)), ""),
        ("/atlas/Role=production", Fqan(("atlas",), "production"), ""),
        ("/atlas/phys-higgs/Role=NULL", Fqan(("atlas", "phys-higgs")), "phys-higgs"),
        ("/vo.example.org/a/b_c/Role=pilot", Fqan(("vo.example.org", "a", "b_c"), "pilot"), "a/b_c"),
    ],
)
def test_read(text: str, fqan: Fqan, working_group: str) -> None:
    found = read_fqan(text)
    assert (found, found.vo, found.working_group) == (fqan, fqan.group[0], working_group)


@pytest.mark.parametrize(
    "text",
    ["", "/", "atlas", "/atlas/", "//atlas", "/atlas/Role=", "/atlas/Role=a/b", "/CN=Alice", "/a\n", "/a b",
     "/" + "a" * 255, "/..", "/a/../b", "/.a", "/é"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        read_fqan(text)


@given(st.from_regex(r"(/[A-Za-z0-9_.=-]{1,8}){1,4}", fullmatch=True))
def test_written_and_read_again(text: str) -> None:
    with contextlib.suppress(ValueError):
        found = read_fqan(text)
        assert read_fqan(str(found)) == found
