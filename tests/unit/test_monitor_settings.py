"""Settings: every key in the sample, every mistake named."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from pandamonitor.main import main
from pandamonitor.serve import options
from pandamonitor.settings import Settings, load, memcached_address
from pandaserver.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "conf" / "monitor.cfg"
URL = "sqlite:///x.db"


def file_with(folder: Path, text: str) -> Path:
    path = folder / "monitor.cfg"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sample_names_every_key_with_its_default() -> None:
    found = load(SAMPLE, {})
    default = Settings(database=found.database)
    assert found == default
    words = SAMPLE.read_text(encoding="utf-8")
    for key in (f.name for f in fields(Settings) if f.name != "timeouts"):
        assert f"\n{key} = " in words or f"\n#{key} = " in words


def test_flags_count_more_than_the_file(tmp_path: Path) -> None:
    path = file_with(tmp_path, f"[monitor]\ndatabase = {URL}\nport = 1000\ncache_s = 7.5\n")
    found = load(path, {"port": "2000", "title": None})
    assert (found.port, found.cache_s, found.title) == (2000, 7.5, "PanDA monitor")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[monitor]\ncolour = red\n", "colour"),
        ("[other]\n", "other"),
        (f"[monitor]\ndatabase = {URL}\nport = many\n", "port"),
        (f"[monitor]\ndatabase = {URL}\nport = 0\n", "port"),
        (f"[monitor]\ndatabase = {URL}\nthreads = 1000\n", "threads"),
        (f"[monitor]\ndatabase = {URL}\nrefresh_s = 0.1\n", "refresh_s"),
        (f"[monitor]\ndatabase = {URL}\ncache = disk\n", "cache"),
        (f"[monitor]\ndatabase = {URL}\nlog_level = LOUD\n", "log_level"),
        ("[monitor]\n", "database"),
        ("no section\n", "config"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file_with(tmp_path, text), {})
    assert caught.value.field == field


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "none.cfg", {})


@pytest.mark.parametrize(
    ("cache", "address"),
    [("memory", None), ("memcached:localhost:11211", ("localhost", 11211)), ("memcached:[::1]:1", ("::1", 1))],
)
def test_caches(cache: str, address: tuple[str, int] | None) -> None:
    assert memcached_address(cache) == address


@pytest.mark.parametrize("cache", ["memcached", "memcached:host", "memcached::1", "memcached:h:0", "redis:h:1", ""])
def test_caches_that_are_none(cache: str) -> None:
    with pytest.raises(ConfigError, match="memory or memcached"):
        memcached_address(cache)


def test_the_command_tells_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "say --database URL" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "example:" in capsys.readouterr().out


def test_every_setting_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    keys = [f.name for f in fields(Settings) if f.name != "timeouts"]
    assert [key for key in keys if f"--{key.replace('_', '-')} " not in told] == []


def test_gunicorn_serves_one_cache() -> None:
    told = options(Settings(database=URL, host="::1", port=99, threads=3))
    assert (told["bind"], told["workers"], told["threads"]) == ("[::1]:99", 1, 3)
