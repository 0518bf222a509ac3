"""Log tarballs by hostile hands: names that lead out, links, bombs, lies in headers."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandamonitor import logfiles
from pandamonitor.logfiles import Unusable, list_members, place, show_member
from pandaserver.dataservice.ddm import storage
from pandaserver.errors import NotFound
from pandaserver.model.grid import Endpoint

Pack = Callable[..., Path]


def endpoint(url: str = "file:///srv/disk") -> Endpoint:
    return Endpoint(name="DISK", site="S", url=url)


def info(name: str, data: bytes = b"", **told: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in told.items():
        setattr(member, key, value)
    return member, data


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Write a tarball and give its path; the folder is the endpoint's root."""

    def make(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz", **told: object) -> Path:
        path = tmp_path / "log.tgz"
        with tarfile.open(path, mode, **told) as tar:  # type: ignore[call-overload]
            for member, data in members:
                tar.addfile(member, io.BytesIO(data))
        return path

    return make


# --- where a file is -------------------------------------------------------------------------------------------------

safe = st.text(st.sampled_from("abcXYZ019_-<>'& é"), min_size=1, max_size=12)


@given(st.lists(safe, min_size=1, max_size=3).map(".".join), safe)
def test_the_place_is_that_of_the_data_service(scope: str, lfn: str) -> None:
    assert place(endpoint(), scope, lfn) == storage.file_path(endpoint(), scope, lfn)


@pytest.mark.parametrize(
    ("scope", "lfn"),
    [("user.alice", "../x"), ("user.alice", ".."), ("user.alice", ""), ("..", "x"), ("a/b", "x"), ("a..b", "x"),
     ("user.alice", "a/b"), ("user.alice", "x\0"), ("", "x"), ("/etc", "x")],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(scope: str, lfn: str) -> None:
    with pytest.raises(NotFound, match="not sensible"):
        place(endpoint(), scope, lfn)


@pytest.mark.parametrize("url", ["https://srv/disk", "file://other.host/disk", "/srv/disk", "davs://x/y"])
def test_only_local_folders_are_looked_into(url: str) -> None:
    with pytest.raises(NotFound, match=r"no.* folder"):
        place(endpoint(url), "user.alice", "x")


# --- what is in it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_and_their_text(pack: Pack, tmp_path: Path, mode: str, form: int) -> None:
    deep = "d" * 60 + "/" + "n" * 60
    sizes = [0, 1, 511, 512, 513, 70_000]
    path = pack(*[info(f"{deep}{n}", b"%d" % n * size) for n, size in enumerate(sizes)], mode=mode, format=form)
    found = list_members(tmp_path, path)
    assert [(m.number, m.size_bytes, m.kind) for m in found] == [(n, s, "file") for n, s in enumerate(sizes)]
    assert [len(show_member(tmp_path, path, m.number).text) for m in found] == sizes


def test_a_long_text_is_shown_from_its_end(pack: Pack, tmp_path: Path) -> None:
    lines = b"".join(b"line %07d\n" % n for n in range(60_000))
    shown = show_member(tmp_path, pack(info("out", lines)), 0)
    assert shown.skipped_bytes == len(lines) - logfiles.SHOWN_BYTES
    assert shown.text.startswith("line ")
    assert shown.text.endswith("line 0059999\n")


def test_bytes_are_not_shown_and_control_characters_are_made_visible(pack: Pack, tmp_path: Path) -> None:
    path = pack(info("core", b"\0\1\2"), info("e\x1b[2Jvil\n<b>", b"\x1b[31mred\x1b[0m \x9b\xff ok"))
    assert show_member(tmp_path, path, 0).binary
    assert show_member(tmp_path, path, 1).text == "red \ufffd\ufffd ok"
    assert list_members(tmp_path, path)[1].name == "evil\\n<b>"


@pytest.mark.parametrize(
    ("kind", "shown"),
    [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.FIFOTYPE, "other"), (tarfile.CHRTYPE, "other"),
     (tarfile.DIRTYPE, "folder")],
)  # fmt: skip
def test_links_and_devices_are_listed_and_never_followed(pack: Pack, tmp_path: Path, kind: bytes, shown: str) -> None:
    path = pack(info("x", type=kind, linkname="/etc/passwd"), info("../../etc/cron.d/x", b"kept as text only"))
    assert list_members(tmp_path, path)[0].kind == shown
    with pytest.raises(Unusable, match="no text"):
        show_member(tmp_path, path, 0)
    assert show_member(tmp_path, path, 1).text == "kept as text only"
    assert [p.name for p in tmp_path.iterdir()] == ["log.tgz"], "nothing is ever unpacked"


def test_a_member_that_is_not_there(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no member number 7"):
        show_member(tmp_path, pack(info("a")), 7)


# --- what is too much ------------------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "MAX_UNPACKED_BYTES", 1024 * 1024)
    path = tmp_path / "bomb.tgz"
    header, after = tarfile.TarInfo("zeros"), tarfile.TarInfo("after")
    header.size = 8 * 1024 * 1024
    with gzip.open(path, "wb") as packed:
        packed.write(header.tobuf() + bytes(header.size) + after.tobuf() + bytes(1024))
    assert path.stat().st_size < 20_000
    with pytest.raises(Unusable, match="more than 1 MB"):
        list_members(tmp_path, path)
    with pytest.raises(Unusable, match="more than 1 MB"):
        show_member(tmp_path, path, 0)


def test_a_header_that_claims_to_be_huge_is_a_lie(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 100 * 1024 * 1024
    path = tmp_path / "lie.tar"
    path.write_bytes(header.tobuf() + bytes(2048))
    with pytest.raises(Unusable, match="header of"):
        list_members(tmp_path, path)


def test_headers_in_headers_end_somewhere(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    path = tmp_path / "nested.tar"
    path.write_bytes(header.tobuf() * 5000)
    with pytest.raises(Unusable):
        list_members(tmp_path, path)


def test_too_many_members_are_cut(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "MAX_MEMBERS", 5)
    assert len(list_members(tmp_path, pack(*[info(str(n)) for n in range(9)]))) == 5


@given(st.binary(max_size=2000))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log.tgz"
        path.write_bytes(data)
        try:
            found = list_members(Path(name), path)
        except (Unusable, NotFound) as error:
            assert error.message
        else:
            assert len(found) <= logfiles.MAX_MEMBERS


@pytest.mark.parametrize("cut", [600, 1500, 3000])
def test_a_damaged_tarball_is_an_answer(pack: Pack, tmp_path: Path, cut: int) -> None:
    path = pack(info("a", os.urandom(3000)), info("b", b"text"))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Unusable, match="cannot be shown"):
        show_member(tmp_path, path, 1)


# --- what is no file -------------------------------------------------------------------------------------------------


def test_links_out_of_the_endpoint_are_refused(pack: Pack, tmp_path: Path) -> None:
    path, root = pack(info("secret", b"s")), tmp_path / "root"
    root.mkdir()
    (root / "log.tgz").symlink_to(path)
    with pytest.raises(NotFound, match="leads out"):
        list_members(root, root / "log.tgz")


def test_pipes_folders_and_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(Unusable, match="no plain file"):
            list_members(tmp_path, tmp_path / name)
    with pytest.raises(NotFound, match="cannot be read"):
        list_members(tmp_path, tmp_path / "none")
