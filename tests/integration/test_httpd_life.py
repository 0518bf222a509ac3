"""The whole life of jobs behind a real Apache on a real MariaDB, by curl and nothing else."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MariaDB, pick_free_port
from factories import Pki, analysis_job, production_job
from private_httpd import Httpd, Ports, private_httpd

pytestmark = [pytest.mark.mysql]


@pytest.fixture(scope="module")
def httpd(pki: Pki, mariadb: MariaDB) -> Iterator[Httpd]:
    url = mariadb.new_database()
    with private_httpd(pki, url, Ports(*(pick_free_port() for _ in range(3)))) as made:
        yield made


def test_a_job_and_another_that_reads_what_it_made_elsewhere(httpd: Httpd) -> None:
    """Submission, claim, heartbeat, outputs; then a dataset that is brought to the other site, with its callback."""
    made = production_job(computingSite="BNL")
    ((first, *_),) = httpd.call("prodman", "submitJobs", jobs=[made])
    httpd.wait_for(first, "activated")
    job = httpd.call("pilot", "getJob", siteName="BNL", node="wn1")
    assert (job["PandaID"], job["StatusCode"]) == (first, 0)
    httpd.run_job(job)
    httpd.wait_for(first, "finished")

    (file,) = httpd.call(None, "queryFilesInDataset", dataset="mc.test.evnt")
    reader = analysis_job(file["lfn"], computingSite="UTA")
    ((second, *_),) = httpd.call("alice", "submitJobs", jobs=[reader])
    httpd.wait_for(second, "activated")
    job = httpd.call("pilot", "getJob", siteName="UTA", node="wn2")
    assert (job["PandaID"], job["inFiles"]) == (second, file["lfn"])
    httpd.run_job(job)
    httpd.wait_for(second, "finished")
    (described,) = httpd.call(None, "getJobStatus", ids=str(second))
    assert described["prodUserID"].endswith("/CN=Alice Adams")
    assert 'datasetCompleted HTTP/1.1" 200' in httpd.access_log()


def test_a_job_is_killed_by_its_owner_alone(httpd: Httpd) -> None:
    ((job_id, *_),) = httpd.call("alice", "submitJobs", jobs=[analysis_job(computingSite="UTA")])
    refused = httpd.curl("/server/panda/killJobs", "--data", f"ids={job_id}", who="bob")
    assert refused.status == 403 and "nothing was killed" in refused.json["message"]
    assert httpd.call("alice", "killJobs", ids=str(job_id)) == [True]
    httpd.wait_for(job_id, "cancelled", "closed")


def test_a_sandbox_goes_up_with_a_proxy_and_comes_down_without(httpd: Httpd, tmp_path: Path) -> None:
    script = tmp_path / "run-3f6c2.sh"
    script.write_text("#!/bin/sh\necho hello\n")
    sent = httpd.curl("/server/panda/putFile", "--form", f"file=@{script}", who="alice")
    assert (sent.status, sent.text) == (200, "True")
    for base in ("", httpd.plain):
        found = httpd.curl("/cache/run-3f6c2.sh", base=base)
        assert (found.status, found.text) == (200, script.read_text())
    part = httpd.curl("/cache/run-3f6c2.sh", "--range", "2-8")
    assert (part.status, part.text) == (206, "/bin/sh")
    assert "run-3f6c2" not in httpd.access_log() and "/cache/- " in httpd.access_log()


def test_the_calls_of_today_and_grid_information(httpd: Httpd) -> None:
    alive = httpd.curl("/api/v1/system/is_alive").json
    assert alive["success"] is True
    assert set(httpd.curl("/cache/ddmendpoints.json").json) == {"BNL_DISK", "UTA_DISK"}
    assert httpd.curl("/cache/schedconfig/BNL.all.json").json["nickname"] == "BNL"


def test_the_monitor_has_a_host_of_its_own(httpd: Httpd) -> None:
    monitor = f"https://localhost:{httpd.monitor_port}"
    page = httpd.curl("/jobs", "--include", base=monitor)
    assert page.status == 200 and "Content-Security-Policy" in page.text
    assert "Strict-Transport-Security" in page.text
    assert httpd.curl("/jobs", "--data", "x=1", base=monitor).status == 403


def test_answers_are_deflated_for_those_who_ask(httpd: Httpd, tmp_path: Path) -> None:
    path = "/server/panda/getTimeouts"
    plain = httpd.curl(path).text
    packed = tmp_path / "answer"
    said = httpd.curl(path, "-H", "Accept-Encoding: gzip", "-o", str(packed), "-D", "-").text
    assert "Content-Encoding: gzip" in said and "Vary: Accept-Encoding" in said
    assert gzip.decompress(packed.read_bytes()).decode() == plain
    assert packed.stat().st_size < len(plain) / 2


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "X-Nothing: 1"])
@pytest.mark.parametrize("chunked", [True, False])
def test_requests_may_be_deflated(httpd: Httpd, tmp_path: Path, header: str, chunked: bool) -> None:
    """Pilots send gzip, and not all of them say so."""
    body = tmp_path / "body.gz"
    body.write_bytes(gzip.compress(json.dumps({"siteName": "BNL", "node": "n" * 2000}).encode()))
    words = ["-H", header, "-H", "Content-Type: application/json", "--data-binary", f"@{body}"]
    words += ["-H", "Transfer-Encoding: chunked"] if chunked else []
    answer = httpd.curl("/server/panda/getJob", *words, who="pilot")
    assert (answer.status, answer.json["StatusCode"]) == (200, 20)


def test_apache_may_inflate_instead(httpd: Httpd, tmp_path: Path) -> None:
    """Then it breaks off what is too much, and the application sees no more than the limit."""
    httpd.stop()
    httpd.start("-D", "PANDA_INFLATE")
    try:
        words = ["-H", "Content-Encoding: gzip", "-H", "Content-Type: application/json", "--data-binary"]
        (tmp_path / "good").write_bytes(gzip.compress(json.dumps({"siteName": "BNL", "node": "wn1"}).encode()))
        (tmp_path / "bomb").write_bytes(gzip.compress(bytes(300_000_000)))
        good = httpd.curl("/server/panda/getJob", *words, f"@{tmp_path / 'good'}", who="pilot")
        assert (good.status, good.json["StatusCode"]) == (200, 20)
        bomb = httpd.curl("/server/panda/getJob", *words, f"@{tmp_path / 'bomb'}", who="pilot")
        assert bomb.status == 500 and "cannot be inflated" in bomb.json["message"]
        assert "DEFLATE" not in good.text and "ratio" in httpd.log()
    finally:
        httpd.stop()
        httpd.start()


def test_a_pilot_that_waits_is_answered_by_the_job_that_comes(httpd: Httpd) -> None:
    """The waiting request sits in one process and the submission may come to the other."""
    told = list[dict[str, object]]()
    waiting = threading.Thread(target=lambda: told.append(httpd.call("pilot", "getJob", siteName="UTA", wait="30")))
    waiting.start()
    ((job_id, *_),) = httpd.call("alice", "submitJobs", jobs=[analysis_job(computingSite="UTA")])
    waiting.join(40)
    assert told and told[0]["PandaID"] == job_id


def test_what_is_secret_is_in_no_log(httpd: Httpd) -> None:
    httpd.curl("/server/panda/getJobStatus?jobToken=SECRET-IN-QUERY", "-H", "Authorization: Bearer SECRET-IN-HEADER")
    httpd.curl("/server/panda/getJobStatus?ids=1", "-H", "Referer: https://x/?token=SECRET-IN-REFERER")
    logs = httpd.access_log() + httpd.log()
    assert "getJobStatus" in logs and "SECRET" not in logs
