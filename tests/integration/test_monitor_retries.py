"""What the monitor shows of failed attempts that were followed by others: the decisions, the rules, every log."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import factories as f
import pytest
from factories import Grid
from flask.testing import FlaskClient

from pandamonitor.app import create_app
from pandamonitor.settings import Settings
from pandaserver.model.retry import RULES


def tarball(text: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"{text}.txt")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def attempt(grid: Grid, outcome: str, **told: Any) -> None:
    """Run the job of queue BNL, with a log that can be read."""
    job = grid.get_job("BNL")
    number = job["attemptNr"]
    real = grid.store

    def store(endpoint: str, scope: str, lfn: str, content: bytes = b"", **told: Any) -> dict[str, Any]:
        found = tarball(f"attempt{number}") if lfn == job["logFile"] else content
        return real(endpoint, scope, lfn, found, **told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "store", store)
        grid.run_job(job, outcome=outcome, **told)
    grid.work()


@pytest.fixture
def page(grid: Grid) -> FlaskClient:
    grid.submit(f.analysis_job(computingSite="BNL"))
    grid.work()
    attempt(grid, "failed", pilotErrorCode=1201)
    database = grid.server.installation.config.database.write
    return create_app(Settings(database=database, cache_s=0.0), lambda: grid.clock.now).test_client()


def test_the_page_of_a_job_tells_why_it_was_tried_again(page: FlaskClient) -> None:
    text = page.get("/jobs/1").text
    assert "Tried again" in text and "pilot stopped by a signal" in text and "pilot 1201: tried again at BNL" in text
    (decision,) = page.get("/jobs/1?format=json").json["data"]["retries"]
    assert (decision["action"], decision["done"], decision["queue"]) == ("retry", True, "BNL")


def test_the_logs_of_all_attempts_can_be_read(grid: Grid, page: FlaskClient) -> None:
    assert "attempt1.txt" in page.get("/jobs/1/log").text, "there is no newer one yet"
    attempt(grid, "finished")
    logs = {x["lfn"][-2:]: x["row_ID"] for x in grid.describe(1)["Files"] if "log" in x["type"]}
    assert set(logs) == {"gz", ".2"}
    assert "attempt2.txt" in page.get("/jobs/1/log").text
    for suffix, name in (("gz", "attempt1.txt"), (".2", "attempt2.txt")):
        assert f"file={logs[suffix]}" in page.get("/jobs/1").text
        assert name in page.get(f"/jobs/1/log?file={logs[suffix]}").text
    assert page.get("/jobs/1/log?file=4711").status_code == 404


def test_the_built_in_rules_are_shown(page: FlaskClient) -> None:
    text = page.get("/timeouts").text
    assert all(rule.name in text for rule in RULES)
