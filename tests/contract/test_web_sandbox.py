"""Sandboxes: uploads, what is refused of them, and the cache that everybody may read."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter
from typing import Any

import pytest
from factories import Grid
from unchanged import contents, unchanged

PATHS = ("/server/panda/putFile", "/api/v1/file_server/upload_cache_file")
GOOD = "sources.0f8e7a5c-1111-4222-8333-444455556666.tar.gz"
MULTIPART = "multipart/form-data; boundary=b"
CONTENT = b"\x1f\x8b some bytes"


def put(
    grid: Grid, name: str | bytes, content: bytes = CONTENT, *, who: str | None = "alice", path: str = PATHS[0]
) -> Any:
    """Upload under a name exactly as it is; client libraries would change it."""
    told = name.encode() if isinstance(name, str) else name
    return grid.client(who).post(path, data=form(told, content), content_type=MULTIPART)


def form(name: bytes, content: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name
    return head + b'"\r\nContent-Type: application/octet-stream\r\n\r\n' + content + b"\r\n--b--\r\n"


def cached(grid: Grid, name: str) -> bytes:
    with grid.client(None).get(f"/cache/{name}") as answer:
        assert answer.status_code == 200
        return bytes(answer.data)


def status(answer: Any) -> tuple[int, str | None]:
    told = answer.json
    if "error" in told:
        return told["error"]["status"], told["error"]["field"]
    return answer.status_code, told["field"]


def test_an_upload_is_kept_and_served(grid: Grid):
    answer = put(grid, GOOD)
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "True", "text/plain")
    url = put(grid, GOOD, path=PATHS[1]).json["data"]
    assert url == f"https://localhost:25443/cache/{GOOD}"
    with grid.client(None).get(f"/cache/{GOOD}") as served:
        assert (served.data, served.mimetype) == (CONTENT, "application/octet-stream")
        assert served.headers["X-Content-Type-Options"] == "nosniff"
    (row,) = contents(grid)["sandbox_files"]
    assert hashlib.sha256(CONTENT).hexdigest() in row and grid.pki.dn("alice") in row


@pytest.mark.parametrize(
    "name", ["/data/alice/job.tgz", "C:\\work\\job.tgz", "../../job.tgz", "a/../../job.tgz", "job.tgz"]
)
def test_only_the_last_part_of_a_name_counts(grid: Grid, name: str):
    assert put(grid, name.replace("\\", "\\\\")).text == "True"
    assert sorted(p.name for p in grid.server.rooms.config.cache.directory.iterdir()) == ["job.tgz"]


HOSTILE = [
    b".htaccess",
    b"..",
    b".",
    b"../",
    b"a/",
    b"a b",
    b"-rf",
    b"a\x00b",
    b"a\tb",
    "é".encode(),
    b"\xff",
    b"a%2fb",
    b"~",
    b"*",
    b"x" * 201,
    b"a/.bashrc",
    b"..\\..\\",
    b"a;b",
    b"$HOME",
    b"<script>",
    b"a,b",
]


def test_hostile_names(grid: Grid, subtests: pytest.Subtests):
    for name in HOSTILE:
        for path in PATHS:
            with subtests.test(name=name[:40], path=path), unchanged(grid):
                assert status(put(grid, name, path=path)) == (400, "file")


def test_no_file(grid: Grid):
    with unchanged(grid):
        for path in PATHS:
            client = grid.client("alice")
            answers = [
                client.post(path),
                client.post(path, json={}),
                client.post(path, json={"file": "content"}),
                client.post(path, data={"file": "content"}),
                client.post(path, data={"file": "content"}, content_type="multipart/form-data"),
                client.post(path, data={"other": (io.BytesIO(b"x"), "x")}, content_type="multipart/form-data"),
                client.post(path, data=b"no parts at all", content_type="multipart/form-data; boundary=b"),
                put(grid, b"", path=path),
            ]
            for answer in answers[:5] + answers[6:]:
                assert status(answer) == (400, "file") and "curl -F file=@NAME" in answer.text
            assert status(answers[5])[0] == 400


def test_a_file_that_is_too_large(grid: Grid):
    most = 1024 * 1024
    assert put(grid, "just.tgz", b"x" * most).status_code == 200
    with unchanged(grid):
        for size in (most + 1, most + 500_000, 3 * most):
            for path in PATHS:
                answer = put(grid, "more.tgz", b"x" * size, path=path)
                assert answer.status_code == status(answer)[0] == 413
    assert grid.client(None).get("/cache/more.tgz").status_code == 404


def test_a_file_in_another_call_is_no_way_to_send_much(grid: Grid):
    with unchanged(grid):
        data = form(b"x", b"x" * 21 * 1024 * 1024)
        answer = grid.client(None).post("/server/panda/getJobStatus", data=data, content_type=MULTIPART)
        assert answer.status_code == 413


def test_the_same_file_twice_is_fine(grid: Grid):
    put(grid, GOOD)
    with unchanged(grid):
        assert put(grid, GOOD).text == "True"


def test_other_content_under_the_same_name_is_not(grid: Grid):
    put(grid, GOOD)
    with unchanged(grid):
        for path in PATHS:
            assert status(put(grid, GOOD, b"other", path=path)) == (409, "file")
            assert status(put(grid, GOOD, who="bob", path=path)) == (409, "file"), "nor somebody else's, even if equal"
    assert cached(grid, GOOD) == CONTENT


def test_a_file_that_was_stored_and_not_recorded_is_taken_over(grid: Grid):
    """A server was killed between the two."""
    (grid.server.rooms.config.cache.directory / GOOD).write_bytes(CONTENT)
    with unchanged(grid):
        assert status(put(grid, GOOD, b"other")) == (409, "file")
    assert put(grid, GOOD).text == "True"
    assert len(contents(grid)["sandbox_files"]) == 1


def test_a_file_that_was_recorded_and_is_gone_is_stored_again(grid: Grid):
    put(grid, GOOD)
    (grid.server.rooms.config.cache.directory / GOOD).unlink()
    assert put(grid, GOOD).text == "True"
    assert cached(grid, GOOD) == CONTENT


@pytest.mark.parametrize("same", [True, False])
def test_uploads_at_the_same_moment(grid: Grid, same: bool):
    answers: list[int] = []
    barrier = threading.Barrier(6)

    def upload(number: int) -> None:
        client = grid.server.application.test_client()
        client.environ_base.update(grid.pki.environ("alice"))
        data = form(GOOD.encode(), CONTENT if same else b"%d" % number)
        barrier.wait()
        answers.append(client.post(PATHS[0], data=data, content_type=MULTIPART).status_code)

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(answers) == ({200: 6} if same else {200: 1, 409: 5})
    assert len(contents(grid)["sandbox_files"]) == 1
    assert [p.name for p in grid.server.rooms.config.cache.directory.iterdir()] == [GOOD]


@pytest.mark.parametrize(
    "path",
    [
        "../panda.db",
        "..%2fpanda.db",
        "%2e%2e/panda_server.cfg",
        "..%252fpanda_server.cfg",
        "/etc/passwd",
        "%2fetc/passwd",
        "a/../../panda_server.cfg",
        "..\\panda_server.cfg",
        "..%5cpanda_server.cfg",
        ".secret.part",
        "missing.tgz",
        "",
        "%00",
        "a%00b",
        "sub/file",
        "schedconfig",
        "schedconfig/..%2f..%2fx.all.json",
        ".",
    ],
)
def test_the_cache_gives_nothing_but_sandboxes(grid: Grid, path: str):
    cache = grid.server.rooms.config.cache.directory
    (cache / ".secret.part").write_text("half of a file")
    (cache / "sub").mkdir()
    (cache / "sub" / "file").write_text("no sandbox")
    answer = grid.client(None).get(f"/cache/{path}", follow_redirects=True)
    assert answer.status_code == 404 and answer.is_json, answer.text
    assert "half of" not in answer.text and "[database]" not in answer.text


def test_the_cache_is_for_reading(grid: Grid):
    put(grid, GOOD)
    with unchanged(grid):
        for method in ("post", "put", "delete", "patch"):
            assert getattr(grid.client("alice"), method)(f"/cache/{GOOD}").status_code == 405
