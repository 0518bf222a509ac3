"""The difference between two descriptions of the grid, as it is said in logs and previews."""

from __future__ import annotations

from dataclasses import replace

import factories as f
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Topology
from pandaserver.model.gridchange import What, compare

A_DISK = Endpoint(name="A_DISK", site="A", url="file:///a")


def grid(*queues: Queue, endpoints: tuple[Endpoint, ...] = (A_DISK,), **more) -> Topology:
    return Topology(queues={q.name: q for q in queues}, endpoints={e.name: e for e in endpoints}, **more)


def said(before: Topology, after: Topology) -> list[str]:
    return [str(change) for change in compare(before, after)]


def test_nothing_differs():
    assert compare(grid(f.queue("A")), grid(f.queue("A"))) == ()


def test_what_came_and_went_is_said_in_order():
    moved = replace(A_DISK, url="root://a:1094//a")
    before = grid(f.queue("B"), f.queue("A"), links={("*", "A_DISK"): 2, ("A_DISK", "*"): 1})
    after = grid(f.queue("C"), f.queue("A"), endpoints=(moved,), links={("*", "A_DISK"): 3})
    assert said(before, after) == [
        "queue B removed",
        "queue C added",
        "endpoint A_DISK changed: url file:///a -> root://a:1094//a",
        "link * A_DISK changed: at_once 2 -> 3",
        "link A_DISK * removed",
    ]


def test_keys_say_what_they_were_and_are():
    one = f.queue("A", releases=("1", "2"), environment=(("PATH", "/a"),), country="US")
    other = replace(
        one, status=QueueStatus.OFFLINE, memory_mb=5, releases=("2", "3"), environment=(("PATH", "/b"),), country=""
    )
    assert said(grid(one), grid(other)) == [
        "queue A changed: status online -> offline; memory_mb 0 -> 5; releases +3 -1; environment +PATH=/b -PATH=/a;"
        " country US -> (none)"
    ]
    assert said(grid(one), grid(replace(one, releases=("2", "1")))) == ["queue A changed: releases in another order"]


def test_long_values_are_cut_and_odd_characters_do_not_steer_the_terminal():
    (text,) = said(grid(f.queue("A")), grid(f.queue("A", country="\x1b[31m" + "x" * 500)))
    assert "?[31m" in text and len(text) < 200


names = st.sampled_from("ABCD")
queues = st.builds(
    f.queue, names, memory_mb=st.integers(0, 2), releases=st.lists(st.sampled_from("12"), max_size=2).map(tuple)
)
grids = st.lists(queues).map(lambda found: grid(*found))


@given(grids, grids)
def test_a_difference_leads_from_one_to_the_other(before, after):
    found = dict(before.queues)
    for change in compare(before, after):
        if change.what is What.REMOVED:
            del found[change.name]
        elif change.what is What.ADDED:
            found[change.name] = after.queues[change.name]
        else:
            found[change.name] = replace(found[change.name], **{key: new for key, _, new in change.keys})
            assert change.keys
    assert found == after.queues
    assert (compare(before, after) == ()) == (before == after)
