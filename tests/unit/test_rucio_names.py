"""Names as Rucio takes them: scopes from names, and what a call would stumble over is refused before it."""

from __future__ import annotations

import re

import pytest

from pandaserver.config_rucio import RucioSection
from pandaserver.dataservice.ddm.rucio_names import Did, guid_in, guid_out, in_parts, is_dispatch, names_by
from pandaserver.errors import DDMFatal
from pandaserver.model.dataset import dispatch_name, sub_name

NAMES = names_by(RucioSection())


@pytest.mark.parametrize(
    ("name", "scope", "rest"),
    [
        ("mc23.evnt", "mc23", "mc23.evnt"),
        ("user.alice.x", "user.alice", "user.alice.x"),
        ("group.phys.x.y", "group.phys", "group.phys.x.y"),
        ("data:mc23.evnt", "data", "mc23.evnt"),
        ("mc23.evnt/", "mc23", "mc23.evnt"),
        ("user.alice:user.alice.set/", "user.alice", "user.alice.set"),
        ("d", "d", "d"),
    ],
)
def test_a_dataset_tells_its_scope(name, scope, rest):
    assert NAMES.dataset(name) == Did(scope, rest)


@pytest.mark.parametrize(
    "name", ["", "/", ":", "a:", ":a", "a b", "a:b c", "a+b", "a#b", ".a", "-a", "a:b:c", "ä", "a\n"]
)
def test_wrong_dataset_names_are_refused_by_name(name):
    with pytest.raises(DDMFatal, match=r"\[rucio\] (scope|name)_pattern") as refused:
        NAMES.dataset(name)
    assert refused.value.field in ("scope", "dataset")


@pytest.mark.parametrize("name", [("s", "a b"), ("s", ""), ("", "a"), ("s/t", "a"), ("s" * 26, "a"), ("s", "a" * 251)])
def test_wrong_file_names_are_refused_or_are_not_known(name):
    with pytest.raises(DDMFatal):
        NAMES.file(name)
    assert NAMES.known([name, ("s", "good"), ("s", "good")]) == [Did("s", "good")]


def test_a_place_is_only_given_to_what_rucio_has_there_too():
    assert NAMES.placed(("user.alice", "a")) == ("user.alice", "a")
    assert NAMES.placed(("group.a.b", "a")) == ("group.a.b", "a")
    assert NAMES.placed(("mc23", "a.b.c")) == ("mc23", "a.b.c")
    with pytest.raises(DDMFatal, match=r"scope mc23\.x: Rucio and the pilots have different places"):
        NAMES.placed(("mc23.x", "a"))


def test_a_site_may_have_other_patterns():
    strict = names_by(RucioSection(name_pattern="[a-z]+", scope_pattern="[a-z]"))
    assert strict.file(("s", "abc")) == ("s", "abc")
    for name in (("ss", "abc"), ("s", "ABC"), ("s", "abc1")):
        with pytest.raises(DDMFatal, match=re.escape("_pattern")):
            strict.file(name)


def test_dispatch_datasets_are_known_by_their_names():
    name = dispatch_name("0f5b", 12)
    assert is_dispatch(name) and NAMES.dataset(name).scope == "panda"
    for other in (sub_name("mc.x", 1), "panda.x", "user.alice_dis12", "panda.x_dis"):
        assert not is_dispatch(other)


def test_guids_are_written_both_ways():
    text = "01234567-89AB-4def-8123-456789abcdef"
    assert guid_in(text) == "0123456789ab4def8123456789abcdef"
    assert guid_out(guid_in(text)) == text.lower()
    assert (guid_in("g"), guid_in(""), guid_out(None)) == (None, None, "")


def test_parts_are_of_a_size_that_a_call_takes():
    assert [len(part) for part in in_parts(list(range(1001)), 500)] == [500, 500, 1]
    assert list(in_parts([], 500)) == []
