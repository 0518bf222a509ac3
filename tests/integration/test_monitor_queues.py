"""The monitor's pages about queues: who set their status and why, and what is wrong with their descriptions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from factories import Grid
from flask.testing import FlaskClient

from pandamonitor.app import create_app
from pandamonitor.settings import Settings
from pandaserver.model.grid import Source, Topology
from pandaserver.taskbuffer import sources, topology

HOSTILE = '<script>alert(1)</script> & "quotes" ${x} <%block/> é'


@pytest.fixture
def monitor(grid: Grid) -> FlaskClient:
    database = grid.server.installation.config.database.write
    return create_app(Settings(database=database, cache_s=0.0), lambda: grid.clock.now).test_client()


def page(monitor: FlaskClient, path: str) -> str:
    topology.forget()  # a monitor is another process
    answer = monitor.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def data(monitor: FlaskClient, path: str) -> Any:
    topology.forget()
    return monitor.get(f"{path}?format=json").json["data"]


def switch(grid: Grid, **told: Any) -> None:
    grid.call("prodman", "setQueueStatus", **({"queue": "UTA", "status": "offline"} | told))


def test_the_status_of_a_queue_has_an_author_and_a_reason(grid: Grid, monitor: FlaskClient) -> None:
    assert "online by the sites file, since" in page(monitor, "/sites/UTA")
    switch(grid, reason="cooling", until=(grid.clock.now + timedelta(hours=3)).isoformat())
    text = page(monitor, "/sites/UTA")
    assert "<strong>offline</strong> by Production Manager, since" in text and ", until <time" in text
    assert "“cooling” · online by the sites file" in text
    assert "Who set the status" in text and "described by the sites file: online" in text
    everywhere = page(monitor, "/sites")
    assert "cooling" in everywhere and "Production Manager" in everywhere
    told = data(monitor, "/sites/UTA")
    newest = told["history"][0]
    assert (newest["action"], newest["to_status"], newest["reason"]) == ("set", "offline", "cooling")
    rows = {row["name"]: row for row in data(monitor, "/sites")["sites"]}
    assert (rows["UTA"]["set_by"], rows["UTA"]["reason"]) == ("Production Manager", "cooling")
    assert rows["BNL"]["set_by"] == "sites file"


def test_reasons_are_text_and_nothing_else(grid: Grid, monitor: FlaskClient) -> None:
    switch(grid, reason=HOSTILE)
    for path in ("/sites", "/sites/UTA"):
        text = page(monitor, path)
        assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in text
        assert "${x} &lt;%block/&gt; é" in text
    assert data(monitor, "/sites/UTA")["history"][0]["reason"] == HOSTILE


def test_a_queue_that_is_described_nowhere_is_shown_as_that(grid: Grid, monitor: FlaskClient) -> None:
    left = Topology(queues={}, endpoints={})
    grid.buffer.run(lambda c: topology.apply(c, left, source=Source.FILE, now=grid.clock.now))
    text = page(monitor, "/sites/UTA")
    assert "nobody any more, since 2026-11-22" in text and "not in the sites file any more" in text
    assert "not in the sites file any more" in page(monitor, "/sites")


def test_what_is_wrong_with_a_description_is_on_the_first_page_and_that_of_the_server(
    grid: Grid, monitor: FlaskClient
) -> None:
    assert "Where queues are described" in page(monitor, "/server")
    assert "sites file" not in page(monitor, "/")
    problem = f"sites.cfg [queue X]: key {HOSTILE}\nanother"
    now = grid.clock.now
    grid.buffer.run(lambda c: sources.note_problem(c, Source.FILE, "sites.cfg", now=now, problem=problem))
    first, server = page(monitor, "/"), page(monitor, "/server")
    assert "The sites file sites.cfg is wrong" in first and "[queue X]" in first and "another" not in first
    assert "[queue X]" in server and "another" in server
    for text in (first, server):
        assert "<script>alert" not in text
    (told,) = data(monitor, "/server")["sources"]
    assert told["problem"] == problem and told["name"] == "file"
