"""Queue and storage data as CRIC writes them: what becomes of each field, and that a bad entry harms no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.errors import ConfigError
from pandaserver.externalinterface.cric import read_endpoints, read_queues
from pandaserver.externalinterface.queuedata import queue_data
from pandaserver.externalinterface.safejson import read_json
from pandaserver.model.grid import Queue, QueueStatus

KNOWN = ("A_DISK", "B_DISK")
SAMPLE: dict[str, Any] = {
    "nickname": "A_Q-nick",
    "siteid": "A_Q",
    "panda_resource": "A_Q",
    "atlas_site": "A-SITE",
    "rc_site": "A-RC",
    "cloud": "US",
    "country": "United States",
    "tier": "T2D",
    "state": "ACTIVE",
    "status": "online",
    "type": "unified",
    "resource_type": "GRID",
    "corecount": 8,
    "maxrss": 16000,
    "memory": 2000,
    "maxtime": "345600",
    "maxwdir": 20000,
    "maxinputsize": 14336,
    "timefloor": None,
    "astorages": {"read_lan": ["A_DISK"], "write_lan": ["OTHER", "B_DISK"], "pls": ["A_LOGS"]},
    "copytools": {"rucio": {"setup": "/x/setup.sh"}},
    "acopytools": {"pr": ["rucio"]},
    "releases": ["24.0.1", "24.0.2"],
    "cmtconfig": "x86_64-el9-gcc13-opt",
    "vo_name": "atlas",
    "environ": "APPDIR=/cvmfs/x;EMPTY=",
    "container_type": "apptainer:pilot",
    "params": {"internet_protocol_version": "IPv6"},
    "pledgedcpu": 300,
    "uconfig": {"nested": [1, 2.5, None, True]},
    "catchall": None,
}


def one(**changes: Any) -> dict[str, Any]:
    told = SAMPLE | changes
    return {"A_Q": {key: value for key, value in told.items() if value is not ...}}


def queue(**changes: Any) -> Queue:
    found = read_queues(one(**changes), "here", KNOWN)
    assert not found.mistakes, found.mistakes
    (only,) = found.entries.values()
    return only


def test_every_field_finds_its_place():
    found = queue()
    assert (found.name, found.site, found.cloud, found.country, found.tier) == (
        "A_Q",
        "A-SITE",
        "US",
        "United States",
        2,
    )
    assert (found.status, found.endpoint, found.cores) == (QueueStatus.ONLINE, "B_DISK", 8)
    assert (found.memory_mb, found.max_wall_time_s, found.max_work_dir_mb) == (16000, 345600, 20000)
    assert (found.max_input_mb, found.timefloor_min, found.heartbeat_s) == (14336, 0, 1800)
    assert (found.releases, found.platforms, found.vos) == (("24.0.1", "24.0.2"), ("x86_64-el9-gcc13-opt",), ("atlas",))
    assert found.environment == (("APPDIR", "/cvmfs/x"), ("EMPTY", ""))


def test_what_only_pilots_understand_comes_out_as_it_came():
    told = json.loads(json.dumps(queue_data(queue())))
    for key in (
        "copytools",
        "acopytools",
        "container_type",
        "params",
        "pledgedcpu",
        "uconfig",
        "type",
        "resource_type",
    ):
        assert told[key] == SAMPLE[key], key
    assert told["nickname"] == "A_Q-nick" and told["siteid"] == told["panda_resource"] == "A_Q"
    assert told["astorages"] == {"read_lan": ["B_DISK", "A_DISK"], "write_lan": ["B_DISK", "OTHER"], "pls": ["A_LOGS"]}
    for key in (
        "corecount",
        "maxrss",
        "maxwdir",
        "maxinputsize",
        "status",
        "cloud",
        "cmtconfig",
        "releases",
        "environ",
    ):
        assert told[key] == SAMPLE[key], key
    assert told["catchall"] == "mv_final_destination", "what is null is as usual"


def test_the_smallest_entry_is_enough():
    found = read_queues(
        {"Q": {"cloud": "X", "status": "TEST", "astorages": {"pr": ["A_DISK"]}}}, "here", KNOWN
    ).entries["Q"]
    assert (found.name, found.site, found.tier, found.status, found.endpoint) == (
        "Q",
        "Q",
        2,
        QueueStatus.TEST,
        "A_DISK",
    )
    assert (found.cores, found.memory_mb, found.vos, found.releases) == (1, 0, (), ())


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"tier": 1}, "tier", 1),
        ({"tier": "T3"}, "tier", 3),
        ({"tier": "", "tier_level": 1}, "tier", 1),
        ({"corecount": 0}, "cores", 1),
        ({"corecount": None}, "cores", 1),
        ({"maxrss": None}, "memory_mb", 2000),
        ({"maxrss": 3000.7}, "memory_mb", 3000),
        ({"releases": ["AUTO"]}, "releases", ()),
        ({"releases": [{"release": "1"}, {"release": "2"}, "1"]}, "releases", ("1", "2")),
        ({"releases": "1,2"}, "releases", ("1", "2")),
        ({"releases": None}, "releases", ()),
        ({"vo_name": ..., "vo_names": ["a", "b"]}, "vos", ("a", "b")),
        ({"vo_name": ..., "vo": "c"}, "vos", ("c",)),
        ({"atlas_site": None}, "site", "A-RC"),
        ({"panda_resource": ..., "siteid": ...}, "name", "A_Q-nick"),
        ({"environ": None}, "environment", ()),
        ({"heartbeat_s": 60}, "heartbeat_s", 60),
        ({"country": None}, "country", ""),
    ],
)
def test_other_ways_to_say_it(changes, key, value):
    assert getattr(queue(**changes), key) == value


HOSTILE = [
    ("status", "on"), ("status", None), ("status", ["online"]), ("state", "BROKEN"), ("cloud", None), ("cloud", "U S"),
    ("cloud", {"a": 1}), ("cloud", "x" * 65), ("atlas_site", "../../etc"), ("panda_resource", "A;B"),
    ("panda_resource", 7), ("panda_resource", ""), ("tier", "first"), ("tier", True), ("tier", 2.5), ("corecount", -1),
    ("corecount", "8; rm"), ("maxrss", [4000]), ("maxrss", True), ("maxrss", 10**30), ("maxtime", "1" * 5000),
    ("maxtime", 1e300), ("astorages", None), ("astorages", []), ("astorages", {}), ("astorages", {"pr": "A_DISK"}),
    ("astorages", {"pr": [{"a": 1}]}), ("astorages", {"pr": ["NOWHERE"]}), ("releases", {"a": 1}), ("releases", 5),
    ("releases", ["a\nb"]), ("releases", [None]), ("releases", ["x" * 300]), ("cmtconfig", 7), ("vo_name", "a b"),
    ("vo_names", ["a,b"]), ("environ", "NOVALUE"), ("environ", "1A=2"), ("environ", ["A=1"]), ("environ", "A=b\x00"),
    ("environ", "LD_PRELOAD"), ("country", "x" * 65), ("country", "a\x1bb"), ("uconfig", "x" * 70_000),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), HOSTILE, ids=[f"{key} {value!r:.30}" for key, value in HOSTILE])
def test_a_wrong_value_leaves_out_its_entry_alone(key, value):
    document = {"GOOD": SAMPLE | {"panda_resource": "GOOD"}} | one(**{key: value})
    found = read_queues(document, "here.json", KNOWN)
    assert set(found.entries) == {"GOOD"}
    (mistake,) = found.mistakes
    assert "here.json queue A_Q" in mistake.text and "left out" in mistake.text and len(mistake.text) < 500
    assert mistake.text.isprintable()
    assert "A_Q" in found.bad and "GOOD" not in found.bad


def test_entries_that_are_not_active_are_not_there():
    assert read_queues(one(state="INACTIVE"), "here", KNOWN).entries == {}
    assert not read_queues(one(state="DISABLED"), "here", KNOWN).mistakes


def test_a_name_that_is_there_twice_counts_once():
    found = read_queues({"X": SAMPLE, "Y": SAMPLE | {"cloud": "FR"}}, "here", KNOWN)
    assert found.entries["A_Q"].cloud == "US" and "same name" in found.mistakes[0].text
    assert "A_Q" not in found.bad


def test_a_list_of_entries_is_as_good():
    found = read_queues([SAMPLE, "junk", {"cloud": "US"}], "here", KNOWN)
    assert set(found.entries) == {"A_Q"} and [m.place for m in found.mistakes] == [
        "here queue number 2",
        "here queue number 3",
    ]


@pytest.mark.parametrize("document", [None, {}, [], 5, "text", True])
def test_what_is_no_queue_data_is_refused_as_a_whole(document):
    with pytest.raises(ConfigError, match="here: an object with a queue for each name is expected"):
        read_queues(document, "here", KNOWN)


# --- endpoints


def storage(**changes: Any) -> dict[str, Any]:
    https, root = (
        {"endpoint": "davs://se.example.org:443", "path": "/pnfs/a/"},
        {"endpoint": "root://se:1094/", "path": "/a"},
    )
    told = {"name": "A_DISK", "site": "A", "state": "ACTIVE", "is_deterministic": True}
    return {"A_DISK": told | {"arprotocols": {"read_lan": [root], "write_wan": [https]}} | changes}


def urls(*protocols: dict[str, Any]) -> str:
    found = read_endpoints(storage(arprotocols={"read_lan": list(protocols)}), "here")
    assert not found.mistakes, found.mistakes
    return str(found.entries["A_DISK"].url)


def test_the_best_way_to_a_storage_is_taken():
    assert read_endpoints(storage(), "here").entries["A_DISK"].url == "https://se.example.org:443/pnfs/a/"
    root = {"endpoint": "root://se:1094/", "path": "/a"}
    assert urls(root) == "root://se:1094//a"
    assert urls(root, {"endpoint": "file://localhost", "path": "/data/x"}) == "file:///data/x"
    assert urls({"endpoint": "gsiftp://se", "path": "/a"}, root) == "root://se:1094//a"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_deterministic": False}, "is_deterministic"),
        ({"is_deterministic": "yes"}, "is_deterministic"),
        ({"site": None}, "site"),
        ({"name": "A B"}, "name"),
        ({"arprotocols": None}, "arprotocols"),
        ({"arprotocols": {"read_lan": "x"}}, "none of file, https, davs, root"),
        ({"arprotocols": {"read_lan": [{"endpoint": 5, "path": "/"}, 7]}}, "none of"),
        ({"arprotocols": {"read_lan": [{"endpoint": "srm://x", "path": "/"}]}}, '["srm"]'),
        ({"arprotocols": {"read_lan": [{"endpoint": "https://x", "path": "/a b"}]}}, "a URL such as"),
        ({"arprotocols": {"read_lan": [{"endpoint": "file://localhost", "path": "/a/../../etc"}]}}, "a URL such as"),
        ({"arprotocols": {"read_lan": [{"endpoint": "https://x", "path": "/" + "a" * 2000}]}}, "a URL such as"),
    ],
)
def test_a_storage_that_cannot_be_used_is_left_out(changes, words):
    document = storage(**changes) | {"B": storage()["A_DISK"] | {"name": "B"}}
    found = read_endpoints(document, "here")
    assert set(found.entries) == {"B"}
    assert words in found.mistakes[0].text and "A_DISK" in found.bad


# --- anything at all


@pytest.mark.parametrize(
    "text", ["[NaN]", "[1e999]", '["\\udc00"]', "[" * 100_000, "[" * 25 + "]" * 25, "{", "", '{"a":']
)
def test_json_that_others_could_not_read_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        read_json(text)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
changes = st.dictionaries(
    st.sampled_from([*SAMPLE, "vo_names", "tier_level", "heartbeat_s"]) | st.text(), plain, max_size=6
)


@given(st.dictionaries(st.text(max_size=8), plain | changes.map(lambda told: SAMPLE | told), max_size=3))
def test_whatever_comes_is_read_or_left_out(document):
    document = {"SURE": SAMPLE | {"panda_resource": "SURE"}} | document
    found = read_queues(document, "here", KNOWN)
    for queue_found in found.entries.values():
        assert isinstance(queue_found, Queue) and queue_found.endpoint in KNOWN
        assert json.loads(json.dumps(queue_data(queue_found), allow_nan=False))
        hash((queue_found.name, queue_found.site, queue_found.releases, queue_found.environment))
    assert len(found.entries) + len(found.mistakes) <= len(document)
    assert not found.bad & set(found.entries)


@given(
    st.dictionaries(
        st.text(max_size=8), plain | st.dictionaries(st.sampled_from(list(storage()["A_DISK"])), plain), max_size=3
    )
)
def test_whatever_comes_as_storage_is_read_or_left_out(document):
    found = read_endpoints(storage() | document, "here")
    assert all(entry.url.partition("://")[0] in ("file", "https", "root") for entry in found.entries.values())
