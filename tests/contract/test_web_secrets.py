"""Secrets of users: taken from their owner, given to the pilots of their running jobs, readable by nobody else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from factories import Grid, analysis_job, make_grid
from unchanged import contents, unchanged

from pandaserver.errors import ConfigError
from pandaserver.userinterface import vault
from pandaserver.userinterface.vault import Vault, read_keys

VALUE = "s3cret-of-alice \N{SNOWMAN}"
SET, LIST, OPEN = "/api/v1/creds/set_user_secrets", "/api/v1/creds/get_user_secrets", "/api/v1/creds/get_job_secrets"


@pytest.fixture
def kept(tmp_path: Path, pki: Any, prepared_url: str) -> Iterator[Grid]:
    """A server that keeps secrets."""
    key = tmp_path / "secrets.key"
    key.write_bytes(Fernet.generate_key())
    key.chmod(0o600)
    grid = make_grid(tmp_path / "grid", pki, prepared_url)
    object.__setattr__(grid.server.rooms, "vault", Vault(grid.buffer, read_keys(key)))
    yield grid
    grid.close()


def put(grid: Grid, who: str | None, key: Any, value: Any) -> Any:
    return grid.client(who).post(SET, json={"key": key, "value": value}).json


def listed(grid: Grid, who: str = "alice", **told: Any) -> Any:
    return json.loads(grid.client(who).get(LIST, query_string=told).json["data"])


def running(grid: Grid, who: str = "alice") -> dict[str, Any]:
    grid.submit(analysis_job(computingSite="BNL", dataset=""), who=who)
    grid.work()
    return grid.get_job("BNL", prodSourceLabel="user")


def opened(grid: Grid, job: dict[str, Any], who: str | None = "pilot", **more: Any) -> Any:
    told = {"jobId": job["PandaID"], "jobToken": job["jobToken"]} | more
    return grid.client(who).post(OPEN, json=told).json


def test_a_job_gets_what_its_owner_left(kept: Grid) -> None:
    assert put(kept, "alice", "DB_PASSWORD", "old")["success"]
    assert put(kept, "alice", "DB_PASSWORD", VALUE)["data"] is True
    assert put(kept, "bob", "DB_PASSWORD", "bob's")["success"]
    job = running(kept)
    assert opened(kept, job)["data"] == {"DB_PASSWORD": VALUE}
    assert opened(kept, running(kept, "bob"))["data"] == {"DB_PASSWORD": "bob's"}
    legacy = kept.call("pilot", "get_job_secrets", jobId=job["PandaID"], jobToken=job["jobToken"])
    assert legacy == {"DB_PASSWORD": VALUE}


def test_clients_see_names_and_nothing_else(kept: Grid) -> None:
    """The answer is JSON text, as clients of today read it."""
    for name in ("b", "___file___:key.pem", "a.1"):
        put(kept, "alice", name, VALUE)
    assert listed(kept) == {"___file___:key.pem": "(hidden)", "a.1": "(hidden)", "b": "(hidden)"}
    assert listed(kept, keys="b") == {"b": "(hidden)"}
    assert listed(kept, "bob") == {}
    put(kept, "alice", "b", None)
    assert set(listed(kept)) == {"___file___:key.pem", "a.1"}
    put(kept, "bob", None, None)
    assert len(listed(kept)) == 2, "each deletes their own"
    assert put(kept, "alice", None, None)["success"] and listed(kept) == {}


@pytest.mark.parametrize("who", [None, "alice", "creds/limited", "ddm"])
def test_only_pilots_ask_for_jobs(kept: Grid, who: str | None) -> None:
    put(kept, "alice", "a", VALUE)
    answer = opened(kept, running(kept), who)
    assert answer["error"]["status"] == (403 if who else 401) and VALUE not in json.dumps(answer, ensure_ascii=False)


def test_only_with_the_token_of_a_live_attempt(kept: Grid) -> None:
    put(kept, "alice", "a", VALUE)
    job, other = running(kept), running(kept, "bob")
    with unchanged(kept):
        for told in ({"jobToken": other["jobToken"]}, {"jobToken": "0" * 64}, {"jobId": 77}, {"jobToken": ""}):
            assert opened(kept, job, **told)["error"]["status"] == 403
    assert opened(kept, job)["success"]
    kept.update(job, "failed", pilotErrorCode=1099)
    assert opened(kept, job)["error"]["status"] == 403


def test_a_pilot_has_to_ask_by_post(kept: Grid) -> None:
    """What stands in an address stands in logs."""
    assert kept.client("pilot").get(OPEN, query_string={"jobId": 1, "jobToken": "x"}).status_code == 405


@pytest.mark.parametrize("who", [None, "creds/limited"])
def test_who_may_not_submit_keeps_no_secrets(kept: Grid, who: str | None) -> None:
    with unchanged(kept):
        assert put(kept, who, "a", VALUE)["error"]["status"] == (403 if who else 401)


def test_they_are_in_no_table_and_no_log(kept: Grid, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        put(kept, "alice", "a", VALUE)
        put(kept, "alice", "bad name", VALUE)
        opened(kept, running(kept))
    assert "s3cret" not in repr(contents(kept)) and "s3cret" not in caplog.text
    (row,) = contents(kept)["user_secrets"]
    assert kept.pki.dn("alice") in row


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("", "x", 400), ("a b", "x", 400), ("a/../b", "x", 400), ("é", "x", 400), ("x" * 201, "x", 400),
        ("a\n", "x", 400), (5, "x", 400), ("a", 5, 400), ("a", ["x"], 400), ("a", "x\0", 400),
        ("a", "x" * 1_000_001, 413),
    ],
)  # fmt: skip
def test_what_is_not_taken(kept: Grid, key: Any, value: Any, status: int) -> None:
    with unchanged(kept):
        assert put(kept, "alice", key, value)["error"]["status"] == status


def test_there_are_not_too_many(kept: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "MOST_SECRETS", 2)
    assert [put(kept, "alice", name, "x")["success"] for name in ("a", "b", "c", "a")] == [True, True, False, True]
    assert put(kept, "bob", "c", "x")["success"]


def test_a_row_moved_to_somebody_else_opens_nothing(kept: Grid) -> None:
    put(kept, "alice", "a", VALUE)
    bob, alice = kept.pki.dn("bob"), kept.pki.dn("alice")
    kept.buffer.run(lambda c: c.exec_driver_sql(f"UPDATE user_secrets SET owner = '{bob}' WHERE owner = '{alice}'"))
    answer = opened(kept, running(kept, "bob"))
    assert answer["error"]["status"] == 503 and "s3cret" not in json.dumps(answer)


def test_keys_may_be_changed(kept: Grid, tmp_path: Path) -> None:
    """A new key goes in front of the old one; without the old one what it sealed is closed for good."""
    put(kept, "alice", "a", VALUE)
    job, key = running(kept), tmp_path / "secrets.key"
    old = key.read_text()
    key.write_text(f"# of this year\n{Fernet.generate_key().decode()}\n\n{old}\n")
    object.__setattr__(kept.server.rooms, "vault", Vault(kept.buffer, read_keys(key)))
    assert opened(kept, job)["data"] == {"a": VALUE}
    object.__setattr__(kept.server.rooms, "vault", Vault(kept.buffer, MultiFernet([Fernet(Fernet.generate_key())])))
    answer = opened(kept, job)
    assert answer["error"]["status"] == 503 and "key_file" in answer["message"]


def test_a_server_without_keys_takes_none(grid: Grid) -> None:
    with unchanged(grid):
        answer = put(grid, "alice", "a", VALUE)
    assert answer["error"]["status"] == 404 and "keeps no secrets" in answer["message"]
    assert listed(grid) == {} and opened(grid, running(grid))["data"] == {}


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "no key in it"),
        ("# nothing\n\n", 0o600, "no key in it"),
        ("short", 0o600, "openssl"),
        ("\xff", 0o600, "openssl"),
        (None, 0o600, "openssl"),
        ("A" * 43 + "=", 0o644, "chmod"),
    ],
)
def test_key_files_that_are_no_good(tmp_path: Path, text: str | None, mode: int, words: str) -> None:
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text, encoding="latin-1")
        path.chmod(mode)
    with pytest.raises(ConfigError, match=words):
        read_keys(path)


def test_the_configuration_names_the_file(kept: Grid, tmp_path: Path) -> None:
    told = kept.server.rooms.config
    assert told.secrets.key_file is None and read_keys(None) is None
    assert read_keys(replace(told.secrets, key_file=tmp_path / "secrets.key").key_file)
