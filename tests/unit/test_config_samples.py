"""The sample configurations: every section and key is there, explained, with its default, and they load."""

from __future__ import annotations

import configparser
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from pandaserver.app import read_installation
from pandaserver.config import SECTIONS, load
from pandaserver.model.grid import Endpoint, Queue
from pandaserver.model.share import Share, read_shares
from pandaserver.model.timeouts import TIMEOUTS

CONF = Path(__file__).parents[2] / "conf"
SERVER, SITES = CONF / "panda_server.cfg", CONF / "sites.cfg"
ASSIGNMENT = re.compile(r"([a-z0-9_.]+) =")


def parsed(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return parser


def comments(path: Path, section: str) -> dict[str, str]:
    """The comment above each key of a section."""
    found, comment, inside = {}, "", False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            inside, comment = line == f"[{section}]", ""
        elif line.startswith("#"):
            comment += line[1:]
        elif (key := ASSIGNMENT.match(line)) and inside:
            found[key[1]], comment = comment.strip(), ""
    return found


def keys(kind: Any) -> dict[str, Any]:
    return {f.name: f.default for f in fields(kind) if f.name != "name"}


def test_every_section_is_in_the_sample():
    assert set(parsed(SERVER).sections()) == {*SECTIONS, "shares", "timeouts"}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_in_the_sample_in_the_order_of_the_code(section):
    assert list(parsed(SERVER)[section]) == list(keys(SECTIONS[section]))


def test_every_timeout_is_in_the_sample_with_its_default():
    expected = {f"{rule.state}.{rule.subject}": str(rule.after_s) for rule in TIMEOUTS}
    assert dict(parsed(SERVER)["timeouts"]) == expected
    for name, comment in comments(SERVER, "timeouts").items():
        assert f"Default: {expected[name]}," in comment, name


def test_no_share_is_the_default_and_the_example_of_shares_can_be_read():
    assert dict(parsed(SERVER)["shares"]) == {}
    text = SERVER.read_text(encoding="utf-8")
    explained = text.split("[shares]")[0].rpartition("\n\n")[2]
    example = dict(re.findall(r"^# .*?(\w+) = (\d+ \w+=.*)$", explained, re.M))
    assert read_shares(example).shares == (
        Share(name="production", weight=60, label="production"),
        Share(name="higgs", weight=20, vo="atlas", working_group="phys-higgs*", label="analysis"),
        Share(name="analysis", weight=19, label="analysis"),
    )
    for key in ("vo", "working_group", "label"):
        assert f"{key}=PATTERN" in explained


def test_every_key_of_a_queue_and_an_endpoint_is_in_the_sample():
    sites = parsed(SITES)
    first = {name.split()[0]: name for name in reversed(sites.sections())}
    assert set(sites[first["queue"]]) == set(keys(Queue))
    assert set(sites[first["endpoint"]]) == set(keys(Endpoint))


EXPLAINED = [
    *((SERVER, name, kind) for name, kind in SECTIONS.items()),
    (SITES, "queue EXAMPLE_T1", Queue),
    (SITES, "endpoint EXAMPLE_DISK", Endpoint),
]


@pytest.mark.parametrize(
    ("path", "section", "kind"), EXPLAINED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_key_is_explained_with_its_default(path, section, kind):
    told = comments(path, section)
    for name, default in keys(kind).items():
        comment = told[name]
        assert len(comment) > 30 and comment.count("#") == 0, name
        needed = default is MISSING and name != "status"
        assert ("No default." in comment) is needed, name
        if not needed:
            assert "Default: " in comment, name
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert f"Default: {default:g}." in comment, name
        for unit, word in {"_s": "econds", "_mb": "MB"}.items():
            assert not name.endswith(unit) or word in comment, name


def test_the_samples_load(monkeypatch):
    config = read_installation(SERVER)
    assert config.timeouts == TIMEOUTS
    assert config.shares == read_shares({})
    assert set(config.topology.queues) == {"EXAMPLE_T1", "EXAMPLE_T2"}
    first = config.topology.queues["EXAMPLE_T1"]
    assert first.releases == ("13.0.40", "14.1.0") and first.environment == (("SITE_SOFTWARE", "/opt/software"),)
    assert config.topology.endpoint_of("EXAMPLE_UNIVERSITY") == "EXAMPLE_UNIVERSITY_DISK"


def test_what_the_sample_sets_is_the_default():
    config = load(SERVER)
    own = {"pilots", "operators", "ddm", "write", "directory", "sites"}
    for section, kind in SECTIONS.items():
        for name, default in keys(kind).items():
            if name not in own:
                assert getattr(getattr(config, section), name) == default, f"[{section}] {name}"
