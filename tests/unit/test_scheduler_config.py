from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from schedulers.batch.protocol import BATCH_ID_MARK
from schedulers.command import pilot_request
from schedulers.config import KINDS, PilotConfig, QueueConfig, SchedulerConfig, read_config
from schedulers.errors import ConfigError

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "conf" / "scheduler.cfg"
SMALLEST = """\
[scheduler]
server = https://localhost:25443/
state_dir = state
[pilot]
command = panda-pilot
[queue Q1]
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text: str):
        path = tmp_path / "scheduler.cfg"
        path.write_text(text, encoding="utf-8")
        return read_config(path)

    return read_text


def test_the_smallest_file_is_enough(read, tmp_path):
    config = read(SMALLEST)
    assert config.scheduler.server == "https://localhost:25443"
    assert config.scheduler.state_dir == tmp_path / "state"
    assert config.pilot == PilotConfig(("panda-pilot",))
    assert config.queues == (QueueConfig("Q1"),)


def test_every_value_is_read(read, tmp_path):
    config = read("""\
[scheduler]
server = http://127.0.0.1:25080
state_dir = /var/state
proxy = certs/pilot.pem
interval_s = 1.5
command_prefix = unshare --pid "two words"
max_total = 7
on_stop = cancel
bad_pilots = 2
short_pilot_s = 3
pause_s = 4
pause_max_s = 5
[pilot]
command = /opt/panda/bin/panda-pilot --debug
idle_s = 20
environment =
    TMPDIR=/var/tmp
    OPTIONS=a=b c%d
[queue SITE_A]
slots = 3
weight = 0.5
label = managed
[queue SITE-B.2]
""")
    assert config.scheduler.proxy == tmp_path / "certs" / "pilot.pem"
    assert config.scheduler.command_prefix == ("unshare", "--pid", "two words")
    assert (config.scheduler.interval_s, config.scheduler.max_total, config.scheduler.on_stop) == (1.5, 7, "cancel")
    rules = config.scheduler.breaker_rules
    assert (rules.bad_pilots, rules.short_pilot_s, rules.pause_s, rules.pause_max_s) == (2, 3, 4, 5)
    assert config.pilot.command == ("/opt/panda/bin/panda-pilot", "--debug")
    assert config.pilot.environment == {"TMPDIR": "/var/tmp", "OPTIONS": "a=b c%d"}
    assert [queue.name for queue in config.queues] == ["SITE_A", "SITE-B.2"]
    assert config.queues[0] == QueueConfig("SITE_A", slots=3, weight=0.5, label="managed")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("[scheduler]\nintervall_s = 3", ["[scheduler] intervall_s = 3", "unknown key", "interval_s"]),
        ("[scheduler]\ninterval_s = soon", ["[scheduler] interval_s = soon", "seconds, 0.1 or more"]),
        ("[scheduler]\ninterval_s = 0", ["interval_s = 0", "0.1 or more"]),
        ("[scheduler]\ninterval_s = nan", ["interval_s = nan", "0.1 or more"]),
        ("[scheduler]\nmax_total = -1", ["max_total = -1", "whole number, 0 or more"]),
        ("[scheduler]\nmax_total = 1.5", ["max_total = 1.5", "whole number"]),
        ("[scheduler]\nserver = localhost:25443", ["server = localhost:25443", "https://host:25443"]),
        ("[scheduler]\non_stop = kill", ["on_stop = kill", "leave, cancel"]),
        ("[scheduler]\nproxy =", ["proxy = :", "a path"]),
        ('[scheduler]\ncommand_prefix = "open', ["command_prefix", "words as in a shell"]),
        ("[pilot]\ncommand = bin/panda-pilot", ["command = bin/panda-pilot", "absolute path"]),
        ("[pilot]\ncommand =", ["command = :", "a command"]),
        ("[pilot]\nenvironment = NOTHING", ["environment = NOTHING", "NAME=value"]),
        ("[queue Q1]\nslots = 0", ["[queue Q1] slots = 0", "whole number, 1 or more"]),
        ("[queue Q1]\nweight = heavy", ["weight = heavy", "a number, 0 or more"]),
        ("[queue Q1]\nmin_pending = 11", ["min_pending = 11", "must not exceed max_pending = 10"]),
        ("[queue Q1]\ntest = 11", ["[queue Q1] test = 11", "unknown key", "test_pilots"]),
        ("[queue ../../etc]", ["../../etc", "not a queue name"]),
        ("[queue]", ["[queue]", "not a queue name"]),
        ("[queues]", ["unknown section [queues]", "[queue NAME]"]),
        ("[DEFAULT]\nslots = 3", ["unknown section [DEFAULT]"]),
    ],
)
def test_a_wrong_word_is_named_with_its_place_and_what_is_allowed(tmp_path, wrong, words):
    header, *lines = wrong.splitlines()
    key = lines[0].split("=")[0].strip() if lines else ""
    sections = re.split(r"(?m)^(?=\[)", SMALLEST)[1:]
    kept = "".join(re.sub(rf"(?m)^{key} =.*\n", "", section) if key else section for section in sections)
    text = kept.replace(f"{header}\n", "\n".join([header, *lines, ""]), 1) if header in kept else f"{kept}{wrong}\n"
    path = tmp_path / "scheduler.cfg"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert all(word in str(caught.value) for word in [*words, str(path)]), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "section [scheduler] is missing"),
        ("[scheduler]\n", "section [pilot] is missing"),
        (SMALLEST.replace("[queue Q1]", ""), "no section [queue NAME]"),
        (SMALLEST.replace("command = panda-pilot", ""), "[pilot]: command must be given"),
        (SMALLEST.replace("[scheduler]\n", "[scheduler]\n[scheduler]\n"), "already exists"),
        (SMALLEST + "[queue  Q1]\n", "the same queue has two sections"),
        ("server = x\n", "no section headers"),
    ],
)
def test_a_file_with_something_missing_is_refused(read, text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(text)


def test_a_file_that_cannot_be_read_is_an_error_with_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.cfg: cannot be read"):
        read_config(tmp_path / "nowhere.cfg")
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.cfg: cannot be read"):
        read_config(tmp_path / "binary.cfg")


def test_the_sample_is_valid_and_shows_every_key():
    config = read_config(SAMPLE)
    text = SAMPLE.read_text()
    for part, (cls, kinds) in zip(re.split(r"(?m)^(?=\[)", text)[1:], KINDS.items(), strict=True):
        shown = re.findall(r"(?m)^([a-z_]+) =", part)
        assert sorted(shown) == sorted(kinds), cls
        assert all(re.search(rf"(?m)^# .*\n(?:# .*\n)*{key} =", part) for key in shown), "each key has a comment"
    assert config.queues[0] == QueueConfig(config.queues[0].name)


def test_the_sample_shows_the_defaults():
    scheduler = read_config(SAMPLE).scheduler
    given = {"server", "state_dir", "proxy", "ca_dir", "scheduler_id"}
    for item in fields(SchedulerConfig):
        if item.name not in given:
            assert getattr(scheduler, item.name) == item.default, item.name


@pytest.mark.parametrize("cls", list(KINDS))
def test_keys_and_fields_are_the_same(cls):
    assert {item.name for item in fields(cls)} - {"name"} == set(KINDS[cls])
    assert any(item.default is MISSING for item in fields(cls))


def test_the_pilot_gets_what_is_known_and_nothing_else(read, tmp_path):
    config = read(SMALLEST + "label = user\n")
    request = pilot_request(config, config.queues[0])
    assert request.queue == "Q1"
    assert request.argv == (
        *("panda-pilot", "--server", "https://localhost:25443", "--queue", "Q1", "--label", "user"),
        *("--pilot-id", BATCH_ID_MARK, "--scheduler-id", config.scheduler.scheduler_id),
    )
    assert (request.environment, request.work_dir) == ({}, None)


def test_the_pilot_gets_all_that_is_configured(read, tmp_path):
    options = "work_dir = /scratch\nlifetime_s = 600\nmax_jobs = 3\nidle_s = 20\n"
    options += "poll_interval_s = 0.5\nextra_options = -v 'a b'\n"
    text = SMALLEST.replace(
        "[pilot]\n", f"proxy = /p/scheduler.pem\nca_dir = /ca\nscheduler_id = me\n[pilot]\n{options}"
    )
    config = read(text)
    assert pilot_request(config, config.queues[0]).argv == (
        *("panda-pilot", "--server", "https://localhost:25443", "--queue", "Q1", "--work-dir", "/scratch"),
        *(
            "--proxy",
            "/p/scheduler.pem",
            "--ca-dir",
            "/ca",
            "--lifetime",
            "600",
            "--max-jobs",
            "3",
            "--idle-time",
            "20",
        ),
        *("--poll-interval", "0.5", "--pilot-id", BATCH_ID_MARK, "--scheduler-id", "me", "-v", "a b"),
    )


def test_the_pilot_may_have_a_proxy_of_its_own(read):
    text = SMALLEST.replace("[pilot]\n", "proxy = /p/scheduler.pem\n[pilot]\nproxy = /p/pilot.pem\n")
    config = read(text)
    argv = pilot_request(config, config.queues[0]).argv
    assert argv[argv.index("--proxy") + 1] == "/p/pilot.pem"
