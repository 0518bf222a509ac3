"""Hostile text and files, storage, checksums and the log's content."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandapilot.failures import JobFailure
from pandapilot.files import create, is_regular, open_regular, read_regular, remove_tree, tail_of, tree_facts
from pandapilot.joblog import files_for_log, write_tarball
from pandapilot.jobs import InputFile, OutputFile, job_from_wire
from pandapilot.queues import Endpoint, queue_from_wire
from pandapilot.storage import LocalStorage, deterministic_path, storage_for
from pandapilot.text import clip, clip_start, harmless, printable
from pandapilot.transfers import Mover, check_outputs


def nothing():
    pass


@given(st.binary(max_size=200), st.integers(0, 100))
def test_harmless_text_has_no_control_characters_and_fits(raw, limit):
    text = harmless(raw, limit)
    assert len(text.encode()) <= limit
    assert all(char.isprintable() or char in "\n\t" for char in text)


@given(st.text(max_size=100), st.integers(0, 100))
def test_clipping_keeps_whole_characters(text, limit):
    text = text.encode("utf-8", "replace").decode()
    assert len(clip(text, limit).encode()) <= limit
    assert text.startswith(clip(text, limit))
    assert text.endswith(clip_start(text, limit))


def test_tail_is_kept_and_colours_are_not():
    assert harmless(b"\x1b[31mred\x07\r\nend", 8) == "red?\nend"
    assert printable("a\nb", keep="\n") == "a\nb"


@pytest.fixture
def oddities(tmp_path):
    """Everything that a payload may leave where a file is expected."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    directory = tmp_path / "dir"
    directory.mkdir()
    (directory / "link").symlink_to(secret)
    (directory / "dangling").symlink_to("nowhere")
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "file").write_text("content")
    return directory


@pytest.mark.parametrize("name", ["link", "dangling", "folder", "pipe", "none"])
def test_only_regular_files_are_opened(oddities, name):
    with pytest.raises(OSError, match=r".+"):
        open_regular(oddities / name)
    assert not is_regular(oddities / name)
    assert read_regular(oddities / name, 100) is None
    assert tail_of(oddities / name, 100) == b""


def test_regular_files_are_read_up_to_a_limit(oddities):
    assert read_regular(oddities / "file", 7) == b"content"
    assert read_regular(oddities / "file", 6) is None
    assert tail_of(oddities / "file", 4) == b"tent"
    assert tail_of(oddities / "file", 100) == b"content"


def test_nothing_is_written_through_a_link(oddities):
    for name in ("link", "dangling", "file"):
        with pytest.raises(FileExistsError):
            create(oddities / name)


def test_tree_is_measured_without_following_links(oddities):
    before = tree_facts(oddities)
    (oddities / "folder" / "big").write_bytes(b"x" * 100_000)
    after = tree_facts(oddities)
    assert after.size_bytes - before.size_bytes >= 100_000
    assert after.files == before.files + 1
    assert after.newest_ns >= before.newest_ns
    (oddities / "loop").symlink_to(oddities)
    assert tree_facts(oddities).size_bytes - after.size_bytes < 1000


def test_tree_that_is_not_there_is_empty(tmp_path):
    assert tree_facts(tmp_path / "none").files == 0


def test_tree_is_removed_with_what_was_made_unreadable_but_not_behind_links(oddities, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").touch()
    (oddities / "out").symlink_to(outside)
    (oddities / "folder" / "inner").mkdir()
    (oddities / "folder").chmod(0)
    remove_tree(oddities)
    assert not oddities.exists()
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o755


# Storage


def test_path_is_spread_by_the_hash_of_scope_and_name():
    digest = hashlib.md5(b"user.alice:f.root").hexdigest()
    assert deterministic_path("user.alice", "f.root") == f"user/alice/{digest[:2]}/{digest[2:4]}/f.root"


@given(st.binary(max_size=3000))
def test_file_survives_the_way_to_storage_and_back(tmp_path_factory, content):
    directory = tmp_path_factory.mktemp("way")
    source = directory / "source"
    source.write_bytes(content)
    url = f"file://localhost{directory}/a/b/file%20name"
    there = LocalStorage().put(source, url, nothing)
    back = LocalStorage().get(url, directory / "back", nothing)
    assert there == back
    assert (there.size_bytes, there.adler32) == (len(content), f"{zlib.adler32(content):08x}")
    assert (directory / "back").read_bytes() == content
    assert [path.name for path in (directory / "a/b").iterdir()] == ["file name"]


def test_put_replaces_an_older_file(tmp_path):
    source, url = tmp_path / "s", f"file://localhost{tmp_path}/t"
    for content in (b"old and long", b"new"):
        source.write_bytes(content)
        LocalStorage().put(source, url, nothing)
    assert (tmp_path / "t").read_bytes() == b"new"


def test_put_that_is_broken_off_leaves_nothing(tmp_path):
    (tmp_path / "s").write_bytes(b"x")

    def stop():
        raise JobFailure(1144, "killed")

    with pytest.raises(JobFailure):
        LocalStorage().put(tmp_path / "s", f"file://localhost{tmp_path}/d/t", stop)
    assert list((tmp_path / "d").iterdir()) == []
    with pytest.raises(JobFailure):
        LocalStorage().get(f"file://localhost{tmp_path}/s", tmp_path / "t", stop)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("url", ["http://host/x", "x", "file://elsewhere/x", "file://localhost/a/../b", "file:x"])
def test_other_storage_is_refused(url, tmp_path):
    with pytest.raises(OSError, match=r"storage back end|must look like"):
        storage_for(url).exists(url)


class Sleepless:
    def now(self):
        return 0.0

    def sleep(self, seconds):
        raise AssertionError("no time passes here")


@pytest.fixture
def mover(tmp_path):
    url = f"file://localhost{tmp_path}/disk"
    endpoints = {"D": Endpoint("D", url, url), "DEAF": Endpoint("DEAF", "", "")}
    queue = queue_from_wire("Q", {"astorages": {"read_lan": ["D"], "write_lan": ["D"]}})
    return Mover(queue, endpoints, Sleepless(), nothing, 0.0)


def test_files_without_an_endpoint_use_that_of_the_queue(mover, tmp_path):
    (tmp_path / "o").write_bytes(b"data")
    done = mover.stage_out(OutputFile("o", "s", "", "g"), tmp_path / "o")
    assert (done.endpoint, done.guid, done.facts.size_bytes) == ("D", "g", 4)
    (tmp_path / "job").mkdir()
    mover.stage_in((InputFile("o", "s", "", 4, done.facts.adler32),), tmp_path / "job")
    assert (tmp_path / "job" / "o").read_bytes() == b"data"


@pytest.mark.parametrize("endpoint", ["DEAF", "UNKNOWN"])
def test_unknown_endpoints_have_their_own_codes(mover, tmp_path, endpoint):
    with pytest.raises(JobFailure) as caught:
        mover.stage_in((InputFile("o", "s", endpoint, None, None),), tmp_path)
    assert caught.value.code == 1100
    with pytest.raises(JobFailure) as caught:
        mover.stage_out(OutputFile("o", "s", endpoint, "g"), tmp_path)
    assert caught.value.code == 1133


def test_inputs_that_do_not_fit_are_not_even_begun(mover, tmp_path):
    with pytest.raises(JobFailure) as caught:
        mover.stage_in((InputFile("o", "s", "D", 10**18, None),), tmp_path)
    assert caught.value.code == 1098


def test_transfer_that_fails_once_is_tried_again(mover, tmp_path, caplog):
    path = tmp_path / "disk" / deterministic_path("s", "o")
    path.parent.mkdir(parents=True)
    waiting = Mover(mover.queue, mover.endpoints, Sleepless(), lambda: path.write_bytes(b"late"), 0.0)
    (tmp_path / "job").mkdir()
    waiting.stage_in((InputFile("o", "s", "D", 4, None),), tmp_path / "job")
    assert (tmp_path / "job" / "o").read_bytes() == b"late"
    assert "trying again" in caplog.text


def test_file_in_the_way_of_an_input_is_not_overwritten(mover, tmp_path):
    (tmp_path / "o").write_bytes(b"data")
    mover.stage_out(OutputFile("o", "s", "D", "g"), tmp_path / "o")
    with pytest.raises(JobFailure) as caught:
        mover.stage_in((InputFile("o", "s", "D", None, None),), tmp_path)
    assert caught.value.code == 1099


@pytest.mark.parametrize(("name", "code"), [("none", 1165), ("link", 1165), ("folder", 1165), ("empty", 1191)])
def test_outputs_are_checked(oddities, name, code):
    (oddities / "empty").touch()
    with pytest.raises(JobFailure) as caught:
        check_outputs((OutputFile("file", "s", "D", "g"), OutputFile(name, "s", "D", "g")), oddities)
    assert caught.value.code == code


# The log


IDENTITY = {"PandaID": 5, "attemptNr": 1, "jobToken": "secret"}
WIRE = {**IDENTITY, "inFiles": "in", "scopeIn": "s", "outFiles": "out", "scopeOut": "s"}


def test_log_takes_the_known_files_and_small_others(oddities):
    for name in ("in", "out", "core", "core.77", "payload.stdout", "payload.stderr", "jobReport.json", "note"):
        (oddities / name).write_text(name)
    with (oddities / "huge").open("wb") as stream:
        stream.truncate(11 * 1024 * 1024)
    names = [path.name for path in files_for_log(job_from_wire(WIRE), oddities)]
    assert names == ["file", "jobReport.json", "note", "payload.stderr", "payload.stdout"]


def test_tarball_has_its_own_directory_and_cannot_be_forged(oddities, tmp_path):
    (oddities / "pilot.log").write_text("forged by the payload")
    (oddities / "job.json").write_text("forged by the payload")
    (oddities / "payload.stdout").write_bytes(b"hello" * 100_000)
    ticks = []
    write_tarball(
        tmp_path / "log", job_from_wire(WIRE), directory=oddities, pilot_log=b"true", tick=lambda: ticks.append(1)
    )
    with tarfile.open(tmp_path / "log") as tarball:
        content = {item.name: tarball.extractfile(item).read() for item in tarball}
    assert len(content["job-5-1/payload.stdout"]) == 500_000
    assert content["job-5-1/pilot.log"] == b"true"
    assert json.loads(content["job-5-1/job.json"])["inFiles"] == "in"
    assert all(b"secret" not in text for text in content.values())
    assert ticks


def test_tarball_is_not_written_over_something(oddities):
    with pytest.raises(FileExistsError):
        write_tarball(oddities / "link", SimpleNamespace(), directory=oddities, pilot_log=b"", tick=nothing)
