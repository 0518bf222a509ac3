"""The sites file: what is read, and that all mistakes of a file are told at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandaserver.errors import ConfigError
from pandaserver.externalinterface.queuedata import OWN_KEYS, queue_data
from pandaserver.externalinterface.sites import SitesError, load_topology
from pandaserver.model.grid import Topology

GOOD = """
[queue BNL]
site = BNL
cloud = US
tier = 1
endpoint = BNL_DISK
{queue}

[endpoint BNL_DISK]
site = BNL
url = file:///data/BNL
{endpoint}

{more}
"""


@pytest.fixture
def read(tmp_path: Path):
    def read_it(*, queue: str = "", endpoint: str = "", more: str = "") -> Topology:
        (tmp_path / "sites.cfg").write_text(GOOD.format(queue=queue, endpoint=endpoint, more=more), encoding="utf-8")
        return load_topology(tmp_path / "sites.cfg")

    return read_it


def mistakes(read, **told: str) -> dict[tuple[str, str], str | None]:
    """What is wrong, by section and key: the value."""
    with pytest.raises(SitesError) as caught:
        read(**told)
    assert caught.value.message == "\n".join(m.text for m in caught.value.mistakes)
    assert all(m.text.startswith(m.place) for m in caught.value.mistakes)
    return {(m.place.rpartition("[")[2].rstrip("]"), m.key): m.value for m in caught.value.mistakes}


def test_the_keys_that_only_pilots_understand_are_handed_out_as_they_are(read):
    lines = [
        "container_type=apptainer:pilot",
        "direct_access_lan = true",
        'acopytools={"pr": ["rucio"]}',
        "corepower=11.5",
    ]
    queue = read(queue="params = " + "\n    ".join(lines) + "\ncountry = France\nmax_input_mb = 7\ntimefloor_min = 60")
    found = queue.queues["BNL"]
    assert found.params == (
        ("container_type", "apptainer:pilot"),
        ("direct_access_lan", True),
        ("acopytools", {"pr": ["rucio"]}),
        ("corepower", 11.5),
    )
    told = queue_data(found)
    assert told["container_type"] == "apptainer:pilot" and told["direct_access_lan"] is True
    assert told["acopytools"] == {"pr": ["rucio"]} and told["corepower"] == 11.5
    assert (told["country"], told["maxinputsize"], told["timefloor"]) == ("France", 7, 60)
    assert told["astorages"]["write_lan"] == ["BNL_DISK"] and told["nickname"] == told["siteid"] == "BNL"


@pytest.mark.parametrize("value", ["NaN", "[1e999]", "{broken", "[" * 5000, '"\\ud800"'])
def test_a_param_that_is_no_good_json_is_text(read, value):
    assert read(queue=f"params = x={value}").queues["BNL"].params == (("x", value),)


@pytest.mark.parametrize("key", OWN_KEYS)
def test_params_cannot_say_otherwise_than_the_keys_of_the_queue(read, key):
    assert mistakes(read, queue=f"params = {key}=1") == {("queue BNL", "params"): f"{key}=1"}
    assert key in queue_data(read().queues["BNL"])


def test_links_are_read(read):
    links = "[link BNL_DISK UTA_DISK]\nat_once = 5\n[link * *]\nat_once = 999"
    more = f"[endpoint UTA_DISK]\nsite = UTA\nurl = file:UTA\n{links}"
    assert read(more=more).links == {("BNL_DISK", "UTA_DISK"): 5, ("*", "*"): 999}


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ("[link BNL_DISK NOWHERE]\nat_once = 5", {("link BNL_DISK NOWHERE", "link"): "NOWHERE"}),
        ("[link BNL_DISK *]\nat_once = 0", {("link BNL_DISK *", "at_once"): "0"}),
        ("[link BNL_DISK *]\nat_once = ٣", {("link BNL_DISK *", "at_once"): "٣"}),
        ("[link BNL_DISK *]", {("link BNL_DISK *", "at_once"): ""}),
        ("[link * *]\nat_once = 1\nspeed = 2", {("link * *", "speed"): "2"}),
        ("[link *]\nat_once = 1", {("link *", "link *"): None}),
        (
            "[queue *]\nsite = A\ncloud = US\ntier = 1\nendpoint = *",
            {("queue *", "name"): "*", ("queue *", "endpoint"): "*"},
        ),
    ],
)
def test_mistakes_in_links_are_named(read, more, wrong):
    assert mistakes(read, more=more) == wrong


def test_all_mistakes_are_told_at_once(read):
    wrong = mistakes(
        read,
        queue="status = onlin\nmemroy_mb = 5\ncores = -1\nenvironment = NOVALUE\nparams = 1x=2",
        endpoint="quota_gb = much",
        more="[queue TWO]\nsite = A B\nendpoint = NOWHERE\n[site X]\n"
        "[endpoint A,B]\nsite = A\nurl = /data\ncolour = red",
    )
    assert wrong == {
        ("queue BNL", "memroy_mb"): "5",
        ("queue BNL", "status"): "onlin",
        ("queue BNL", "cores"): "-1",
        ("queue BNL", "environment"): "NOVALUE",
        ("queue BNL", "params"): "1x=2",
        ("endpoint BNL_DISK", "quota_gb"): "much",
        ("queue TWO", "cloud"): None,
        ("queue TWO", "tier"): None,
        ("queue TWO", "site"): "A B",
        ("queue TWO", "endpoint"): "NOWHERE",
        ("site X", "site X"): None,
        ("endpoint A,B", "name"): "A,B",
        ("endpoint A,B", "url"): "/data",
        ("endpoint A,B", "colour"): "red",
    }


def test_an_endpoint_that_is_wrong_is_not_called_missing_too(read):
    assert mistakes(read, endpoint="colour = red") == {("endpoint BNL_DISK", "colour"): "red"}


def test_a_file_that_is_no_ini_file_has_one_mistake(tmp_path):
    for content in (b"garbage", b"[queue A]\n[queue A]\n", b"\xff\xfe", None):
        path = tmp_path / "sites.cfg"
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(SitesError) as caught:
            load_topology(path)
        assert len(caught.value.mistakes) == 1 and str(path) in caught.value.message
        assert isinstance(caught.value, ConfigError)
