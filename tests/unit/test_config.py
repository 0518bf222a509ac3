"""The server's configuration: what is read, and that every kind of mistake is called by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pandaserver import config as configuration
from pandaserver.app import read_installation
from pandaserver.config import Config, load
from pandaserver.errors import ConfigError
from pandaserver.externalinterface.sites import load_topology
from pandaserver.model.grid import QueueStatus
from pandaserver.model.timeouts import TIMEOUTS, with_overrides

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
SMALLEST = """
[database]
write = sqlite:////tmp/panda.db
[cache]
directory = cache
[grid]
sites = sites.cfg
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration, with or without a sites file of its own, and give its path."""

    def written(more: str = "", *, sites: str = SITES, text: str = SMALLEST) -> Path:
        (tmp_path / "sites.cfg").write_text(sites, encoding="utf-8")
        (tmp_path / "panda_server.cfg").write_text(text + more, encoding="utf-8")
        return tmp_path / "panda_server.cfg"

    return written


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_installation(path)
    return caught.value


def mistaken(write, more: str) -> str:
    """The text about a mistake in the server's file; it always names the file."""
    path = write(more)
    message = refusal(path).message
    assert str(path) in message
    return message


def mistaken_sites(write, sites: str) -> str:
    path = write(sites=sites)
    message = refusal(path).message
    assert str(path.with_name("sites.cfg")) in message
    return message


def test_the_smallest_file_is_enough(write, tmp_path):
    config = load(write())
    assert config.server == configuration.ServerSection()
    assert config.cache.directory == tmp_path / "cache" and config.cache.max_upload_mb == 768
    assert with_overrides(config.timeouts) == TIMEOUTS
    assert config.identity == configuration.IdentitySection()
    assert (config.database.write, config.database.read) == ("sqlite:////tmp/panda.db", "")


def test_fewer_requests_may_wait_than_there_are_threads(write):
    assert load(write("[server]\nthreads = 8\n[dispatch]\nparked_max = 7\n")).dispatch.parked_max == 7
    assert load(write("[server]\nthreads = 8\n")).dispatch.parked_max is None
    for most in (8, 9):
        text = mistaken(write, f"[server]\nthreads = 8\n[dispatch]\nparked_max = {most}\n")
        assert f"parked_max = {most}" in text and "threads, 8" in text


def test_every_value_is_read(write, tmp_path):
    config = load(
        write("""
[server]
host = 0.0.0.0
port = 443
url = https://panda.example.org/
host_cert = certs/host.pem
host_key = /abs/key.pem
ca_dir = ca
workers = 2
threads = 7
log_file = log/server.log
log_level = DEBUG
max_body_mb = 3
[identity]
pilots = /CN=one
    /CN=two words

operators = /CN=three
ddm = /CN=four
default_vo = testvo
[dispatch]
lease_s = 10.5
sent_lease_s = 5
[background]
threads = 2
lease_s = 1
watch_period_s = 0.5
recheck_period_s = 3
give_up_after_s = 4
[ddm]
backend = local
callback_cert = ddm.pem
callback_key =
[timeouts]
defined.any = 5
holding.analysis = 77
""")
    )
    server = config.server
    assert (server.host, server.port, server.public_url) == ("0.0.0.0", 443, "https://panda.example.org")
    assert (server.host_cert, server.host_key) == (tmp_path / "certs/host.pem", Path("/abs/key.pem"))
    assert (server.workers, server.threads, server.log_level, server.max_body_mb) == (2, 7, "DEBUG", 3)
    assert (server.log_file, server.ca_dir) == (tmp_path / "log/server.log", tmp_path / "ca")
    assert config.identity.pilots == ("/CN=one", "/CN=two words")
    assert (config.dispatch.lease_s, config.background.watch_period_s) == (10.5, 0.5)
    assert (config.ddm.callback_cert, config.ddm.callback_key) == (tmp_path / "ddm.pem", None)
    changed = {f"{t.state}.{t.subject}": t.after_s for t in with_overrides(config.timeouts)}
    assert changed["defined.any"] == 5 and changed["holding.analysis"] == 77
    assert [replace(t, after_s=0) for t in with_overrides(config.timeouts)] == [replace(t, after_s=0) for t in TIMEOUTS]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "https://localhost:25443"), ("0.0.0.0", "https://localhost:25443"),
        ("::", "https://localhost:25443"), ("panda.example.org", "https://panda.example.org:25443"),
        ("2001:db8::1", "https://[2001:db8::1]:25443"),
    ],
)  # fmt: skip
def test_the_url_is_made_of_host_and_port(host, url):
    assert configuration.ServerSection(host=host).public_url == url


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[sever]\nport = 1\n", ["unknown section [sever]", "known are", "server"]),
        ("[server]\nprot = 1\n", ["[server]", "unknown key prot", "known are", "port"]),
        ("[timeouts]\ndefined.sometimes = 5\n", ["[timeouts]", "unknown timeout defined.sometimes", "defined.any"]),
        ("[server]\nport = many\n", ["[server] port", "'many'"]),
        ("[server]\nport = \n", ["[server] port", "''"]),
        ("[server]\nport = 65536\n", ["[server] port", "65536", "1 to 65535"]),
        ("[server]\nport = 0\n", ["[server] port", "0"]),
        ("[server]\nworkers = -1\n", ["[server] workers", "'-1'"]),
        ("[server]\nthreads = 0\n", ["[server] threads", "above 0"]),
        ("[server]\nmax_body_mb = 1.5\n", ["[server] max_body_mb", "'1.5'"]),
        ("[server]\nlog_level = LOUD\n", ["[server] log_level", "'LOUD'"]),
        ("[server]\nhost_cert =\n", ["[server] host_cert", "empty"]),
        ("[dispatch]\nlease_s = nan\n", ["[dispatch] lease_s", "'nan'", "a number from"]),
        ("[dispatch]\nlease_s = inf\n", ["[dispatch] lease_s", "'inf'"]),
        ("[dispatch]\nlease_s = 1e20\n", ["[dispatch] lease_s", "'1e20'"]),
        ("[dispatch]\nlease_s = 0\n", ["[dispatch] lease_s", "above 0"]),
        ("[archive]\nperiod_s = 0\n", ["[archive] period_s", "above 0"]),
        ("[archive]\nbatch = 0\n", ["[archive] batch", "above 0"]),
        ("[archive]\nbatch = 1001\n", ["[archive] batch", "at most 1000"]),
        ("[brokerage]\ndeny = BNL\n", ["[brokerage] deny", "names no user"]),
        ("[brokerage]\nfinalists = 0\n", ["[brokerage] finalists", "above 0"]),
        ("[archive]\nkeep_months = -1\n", ["[archive] keep_months", "a number from 0"]),
        ("[archive]\nafter_s = three days\n", ["[archive] after_s", "three days"]),
        ("[dispatch]\nlease_s = two hours\n", ["[dispatch] lease_s", "'two hours'"]),
        ("[background]\nwatch_period_s = -5\n", ["[background] watch_period_s", "'-5'"]),
        ("[timeouts]\ndefined.any = soon\n", ["[timeouts] defined.any", "'soon'", "whole seconds"]),
        ("[timeouts]\ndefined.any = 0\n", ["[timeouts] defined.any", "'0'"]),
        ("[timeouts]\ndefined.any = -5\n", ["[timeouts] defined.any", "'-5'"]),
        ("[timeouts]\ndefined.any = 1.5\n", ["[timeouts] defined.any", "'1.5'"]),
        ("[timeouts]\ndefined.any = ²\n", ["[timeouts] defined.any", "'²'"]),
        ("[timeouts]\ndefined.any = 99999999999\n", ["[timeouts] defined.any", "'99999999999'"]),
        ("[identity]\npilots = CN=Pilot,O=Grid\n", ["[identity] pilots", "CN=Pilot,O=Grid", "slash form"]),
        ("[identity]\noperators = /CN=a\n    alice\n", ["[identity] operators", "'alice'"]),
        ("[server]\nport = 1\n[server]\nport = 2\n", ["server", "already exists"]),
        ("[server]\nport = 1\nport = 2\n", ["port", "already exists"]),
        ("port\n", ["cannot read configuration"]),
    ],
)  # fmt: skip
def test_mistakes_are_named(write, more, words):
    message = mistaken(write, more)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("key", ["write", "directory", "sites"])
def test_missing_keys_are_named(write, key):
    text = "\n".join(line for line in SMALLEST.splitlines() if not line.startswith(key))
    error = refusal(write(text=text))
    assert f"key {key} is missing" in error.message and error.field == key


def test_zero_is_a_value_where_it_means_something(write):
    config = load(write("[archive]\nafter_s = 0\nkeep_months = 0\n"))
    assert (config.archive.after_s, config.archive.keep_months, config.archive.batch) == (0, 0, 500)


def test_missing_sections_are_missing_keys(write):
    assert "[database]: key write is missing" in refusal(write(text="")).message


def test_a_database_is_a_url_and_its_password_stays_secret(write):
    text = SMALLEST.replace("sqlite:////tmp/panda.db", "user:secret@host")
    error = refusal(write(text=text))
    assert "[database] write is no URL" in error.message and "sqlite:///" in error.message
    assert "secret" not in error.message and "secret" not in str(error.value)


def test_a_line_outside_any_section_is_named(write):
    assert "no section headers" in refusal(write(text="port = 5\n")).message


def test_files_that_cannot_be_read_are_named(write, tmp_path):
    assert "No such file" in refusal(tmp_path / "nothing.cfg").message
    assert "directory" in refusal(tmp_path).message
    path = write()
    path.write_bytes(b"[server]\nhost = \xff\xfe\n")
    assert "cannot read configuration" in refusal(path).message
    path = write()
    path.with_name("sites.cfg").unlink()
    assert str(tmp_path / "sites.cfg") in refusal(path).message


def test_percent_signs_have_no_meaning(write):
    text = SMALLEST.replace("sqlite:////tmp/panda.db", "mysql+pymysql://u:a%40b@host/panda")
    assert load(write(text=text)).database.write == "mysql+pymysql://u:a%40b@host/panda"


def queue(**changes: str | None) -> str:
    told = {"site": "BNL", "cloud": "US", "tier": "1", "endpoint": "BNL_DISK"} | changes
    body = "".join(f"{name} = {value}\n" for name, value in told.items() if value is not None)
    return f"[queue BNL]\n{body}[endpoint BNL_DISK]\nsite = BNL\nurl = file:///data\n"


def test_a_queue_is_read(write, tmp_path):
    lists = {"releases": "13.0.40\n    14.1.0", "platforms": "x86\n    arm", "vos": "a\n    b"}
    numbers = {"memory_mb": "4000", "cores": "8", "max_wall_time_s": "5", "max_work_dir_mb": "6", "heartbeat_s": "7"}
    text = queue(**lists, **numbers, status="test", environment="PATH=/a:/b\n    EMPTY=\n    A=b=c")
    grid = read_installation(write(sites=text)).topology
    found = grid.queues["BNL"]
    assert (found.name, found.site, found.cloud, found.tier, found.endpoint) == ("BNL", "BNL", "US", 1, "BNL_DISK")
    assert found.status is QueueStatus.TEST
    assert (found.releases, found.platforms, found.vos) == (("13.0.40", "14.1.0"), ("x86", "arm"), ("a", "b"))
    assert (found.memory_mb, found.cores, found.max_wall_time_s, found.max_work_dir_mb, found.heartbeat_s) == (
        4000,
        8,
        5,
        6,
        7,
    )
    assert found.environment == (("PATH", "/a:/b"), ("EMPTY", ""), ("A", "b=c"))
    assert grid.endpoints["BNL_DISK"].url == "file:///data"


def test_a_queue_without_a_status_is_online(write):
    assert read_installation(write(sites=queue())).topology.queues["BNL"].status is QueueStatus.ONLINE


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (queue(endpoint="NOWHERE"), ["[queue BNL] endpoint = NOWHERE", "there is no [endpoint NOWHERE]"]),
        (queue(status="on"), ["[queue BNL] status", "'on'", "brokeroff"]),
        (queue(tier="first"), ["[queue BNL] tier", "'first'"]),
        (queue(tier=None), ["[queue BNL]: key tier is missing"]),
        (queue(cores="-1"), ["[queue BNL] cores", "'-1'"]),
        (queue(memroy_mb="1"), ["[queue BNL]", "unknown key memroy_mb", "memory_mb"]),
        (queue(name="other"), ["[queue BNL]", "unknown key name"]),
        (queue(site="A,B"), ["[queue BNL] site", "'A,B'"]),
        (queue(site=""), ["[queue BNL] site", "''"]),
        (queue(cloud="U S"), ["[queue BNL] cloud", "'U S'"]),
        (queue(environment="NOVALUE"), ["[queue BNL] environment", "'NOVALUE'", "NAME=value"]),
        (queue(environment="A=1;B=2"), ["[queue BNL] environment", "A=1;B=2"]),
        (queue(environment="1A=2"), ["[queue BNL] environment", "1A=2"]),
        (queue(environment="A B=2"), ["[queue BNL] environment", "A B=2"]),
        (queue() + "[site X]\n", ["[site X]", "[queue NAME] or [endpoint NAME]"]),
        (queue() + "[queue]\n", ["[queue]", "[queue NAME]"]),
        (queue() + "[endpoint ]\nsite = x\nurl = file:///x\n", ["[endpoint ]"]),
        (queue() + "[endpoint A,B]\nsite = x\nurl = file:///x\n", ["[endpoint A,B] name", "'A,B'"]),
        (queue() + f"[endpoint {'x' * 65}]\nsite = x\nurl = file:///x\n", ["at most 64"]),
        (queue() + "[endpoint X]\nsite = x\n", ["[endpoint X]", "key url is missing"]),
        (queue() + "[endpoint X]\nsite = x\nurl = /data\n", ["[endpoint X] url", "'/data'", "file:///data/X"]),
        (queue() + "[endpoint X]\nsite = x\nurl = \n", ["[endpoint X] url"]),
        (queue() + queue(), ["already exists"]),
        ("garbage", ["cannot read configuration"]),
    ],
)  # fmt: skip
def test_mistakes_in_the_sites_are_named(write, sites, words):
    message = mistaken_sites(write, sites)
    assert [word for word in words if word not in message] == []


def test_the_place_of_the_configuration(monkeypatch):
    monkeypatch.delenv("PANDA_CONFIG", raising=False)
    assert configuration.config_path() == Path("/etc/panda/panda_server.cfg")
    monkeypatch.setenv("PANDA_CONFIG", "/tmp/other.cfg")
    assert configuration.config_path() == Path("/tmp/other.cfg")
    assert configuration.config_path("mine.cfg") == Path("mine.cfg")


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.text(st.characters(codec="utf-8"), max_size=80)
    | st.sampled_from(sorted(configuration.SECTIONS)).map("[{}]".format)
)
def test_any_text_is_read_or_refused(write, text):
    for path in (write(text), write(sites=text), write(text=text)):
        try:
            assert isinstance(load(path), Config)
        except ConfigError as error:
            assert error.message
    assert load_topology(write().with_name("sites.cfg")).queues
