"""Shares and priorities in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandaserver.app import Installation, read_installation
from pandaserver.config import PrioritySection, load
from pandaserver.errors import ConfigError
from pandaserver.model.share import Share

SITES = """
[queue BNL]
site = BNL
cloud = US
tier = 1
endpoint = BNL_DISK
[endpoint BNL_DISK]
site = BNL
url = file:///data/BNL
"""
SERVER = """
[database]
write = sqlite:////tmp/panda.db
[cache]
directory = cache
[grid]
sites = sites.cfg
"""


def written(tmp_path: Path, more: str) -> Path:
    (tmp_path / "sites.cfg").write_text(SITES)
    (tmp_path / "panda_server.cfg").write_text(SERVER + more)
    return tmp_path / "panda_server.cfg"


def installation(tmp_path: Path, more: str) -> Installation:
    return read_installation(written(tmp_path, more))


def refused(tmp_path: Path, more: str) -> str:
    with pytest.raises(ConfigError) as caught:
        installation(tmp_path, more)
    assert str(tmp_path / "panda_server.cfg") in caught.value.message
    return caught.value.message


def test_shares_are_read_in_their_order(tmp_path: Path) -> None:
    more = "[shares]\nProduction = 60 label=production\nhiggs = 20.5  working_group=phys-higgs*   vo=atlas\n"
    assert installation(tmp_path, more).shares.shares == (
        Share(name="Production", weight=60, label="production"),
        Share(name="higgs", weight=20.5, vo="atlas", working_group="phys-higgs*"),
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("higgs = vo=atlas", "[shares] higgs = 'vo=atlas': a weight above 0"),
        ("higgs =", "[shares] higgs = '': a weight above 0"),
        ("higgs = 0 vo=atlas", "a weight above 0"),
        ("higgs = 20 group=x", "'group=x' is none of vo=PATTERN, working_group=PATTERN, label=PATTERN"),
        ("others = 5", "is not others"),
        ("higgs = 5\nhiggs = 6", "option 'higgs' in section 'shares' already exists"),
        ("just words", "parsing errors"),
    ],
)
def test_mistakes_in_shares_are_called_by_their_name(tmp_path: Path, lines: str, said: str) -> None:
    assert said in refused(tmp_path, f"[shares]\n{lines}\n")


def test_priorities_as_configured(tmp_path: Path) -> None:
    more = "[priority]\nraise_max = 100\ndaily_cpu_s = 864000\nageing_after_s = 3600\nageing_points = 5\n"
    expected = PrioritySection(raise_max=100, daily_cpu_s=864000, ageing_after_s=3600.0, ageing_points=5)
    assert load(written(tmp_path, more)).priority == expected


def test_priorities_that_are_not_configured(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")).priority == PrioritySection()
    empty = load(written(tmp_path, "[priority]\nraise_max =\ndaily_cpu_s =\nageing_points =\n")).priority
    assert (empty.raise_max, empty.daily_cpu_s, empty.ageing_points) == (None, None, None)


@pytest.mark.parametrize("key", ["raise_max", "daily_cpu_s", "ageing_after_s", "ageing_points"])
@pytest.mark.parametrize("value", ["-1", "0", "much", "nan", "1e99"])
def test_mistakes_in_priorities_are_called_by_their_name(tmp_path: Path, key: str, value: str) -> None:
    assert f"[priority] {key} = " in refused(tmp_path, f"[priority]\n{key} = {value}\n")


def test_producers_are_dns(tmp_path: Path) -> None:
    more = "[identity]\nproducers =\n    /DC=org/CN=Production Manager\n    /DC=org/CN=Robot\n"
    named = ("/DC=org/CN=Production Manager", "/DC=org/CN=Robot")
    assert load(written(tmp_path, more)).identity.producers == named
    assert "[identity] producers: 'Production Manager' is no DN" in refused(
        tmp_path, "[identity]\nproducers = Production Manager\n"
    )
