"""Jobs whose data is Rucio's: a real Rucio 41, its daemons copying, polling as the truth and hermes' posts as hints."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import Grid, Pki, analysis_job, production_job
from private_rucio import Rucio
from rucio_system import HERMES, HERMES_PASSWORD, make_rucio_grid
from werkzeug.serving import make_server

from pandaserver.dataservice.ddm.protocol import Progress, ProgressState
from pandaserver.model.dataset import Dataset, DatasetType
from pandaserver.taskbuffer import open_requests

pytestmark = [pytest.mark.conformance]

INPUTS, OUTPUTS = "mc.test.evnt", "mc.test.hist"
POLL_S = 60
MOVERS = ("submitter", "poller", "finisher")


@pytest.fixture
def grid(rucio: Rucio, tmp_path: Path, pki: Pki, sqlite_pattern: Path) -> Iterator[Grid]:
    made = make_rucio_grid(rucio, tmp_path / "grid", pki, sqlite_pattern)
    yield made
    made.close()


def simulation(*inputs: str, **more: Any) -> dict[str, Any]:
    """A production job at the Tier-2 that reads what is at the Tier-1, where its output shall go."""
    told = production_job(computingSite="UTA", prodDBlock=INPUTS, destinationDBlock=OUTPUTS)
    files = [{"type": "input", "lfn": lfn, "dataset": INPUTS} for lfn in inputs]
    return told | {"Files": [*files, {"type": "output", "lfn": "hist.$PANDAID.root", "dataset": OUTPUTS}]} | more


def submit(grid: Grid, job: dict[str, Any]) -> int:
    """Submit a job, and have it brokered and its inputs asked for."""
    (job_id,) = grid.submit(job)
    grid.work()
    return job_id


def under_way(grid: Grid) -> list[Dataset]:
    return grid.buffer.read(lambda c: open_requests.find(c, after="", limit=100))


def progress(grid: Grid) -> Progress:
    (dataset,) = under_way(grid)
    pair = (dataset.name, dataset.endpoint or "")
    return grid.server.rooms.data.ddm.progress([pair])[pair]


def test_the_whole_life_of_a_job(grid: Grid, rucio: Rucio) -> None:
    grid.register(INPUTS, "BNL_DISK", "a.root", "b.root")
    job_id = submit(grid, simulation("a.root", "b.root"))
    assert grid.state(job_id) == "assigned"
    (dispatch,) = under_way(grid)
    (rule,) = rucio.rules(dispatch.name, "panda")
    assert (rule["rse_expression"], rule["state"], rule["activity"]) == ("UTA_DISK", "REPLICATING", "Production Input")
    assert rule["expires_at"] is not None and rucio.client.get_did("panda", dispatch.name)["open"] is False
    grid.watch(POLL_S)
    assert grid.state(job_id) == "assigned", "nothing has been copied yet"

    rucio.work(*MOVERS)
    grid.watch(POLL_S)
    assert grid.state(job_id) == "activated"
    job = grid.get_job("UTA")
    assert job["PandaID"] == job_id
    grid.run_job(job)
    grid.work()
    assert grid.state(job_id) == "transferring"
    parts = under_way(grid)
    assert {(part.type, part.endpoint) for part in parts} == {(DatasetType.SUB, "BNL_DISK")}

    rucio.work("evaluator", *MOVERS)
    grid.watch(POLL_S)
    assert grid.state(job_id) == "finished" and under_way(grid) == []
    check_outputs(rucio, job, {part.name for part in parts})
    (done,) = grid.call(None, "queryFilesInDataset", dataset=OUTPUTS)[:1]
    assert {r["endpoint"] for r in done["replicas"]} == {"BNL_DISK", "UTA_DISK"}


def check_outputs(rucio: Rucio, job: dict[str, Any], parts: set[str]) -> None:
    """Outputs are in Rucio with size and checksum, at the Tier-1 by rules that last, in the dataset of the task."""
    rules = [rule for part in parts for rule in rucio.rules(part, "mc")]
    assert {rule["name"] for rule in rules} == parts
    assert {(r["rse_expression"], r["state"], r["expires_at"], r["activity"]) for r in rules} == {
        ("BNL-OSG2_DATADISK", "OK", None, "Production Output")
    }
    names = job["outFiles"].split(",")  # the log is one of them
    assert sum(rule["locks_ok_cnt"] for rule in rules) == len(names)
    for lfn in names:
        known, content = rucio.client.get_metadata("mc", lfn), f"made {lfn}".encode()
        copy = rucio.path("BNL-OSG2_DATADISK", "mc", lfn)
        assert copy.read_bytes() == content and known["bytes"] == len(content)
        assert known["adler32"] == rucio.facts(content)["adler32"] and known["guid"]
    kept = {one["name"] for one in rucio.client.list_files("mc", OUTPUTS)}
    assert job["outFiles"].split(",")[0] in kept
    assert rucio.client.get_metadata("mc", OUTPUTS)["project"] == "test"


def test_a_message_of_hermes_is_enough(grid: Grid, rucio: Rucio) -> None:
    grid.register(INPUTS, "BNL_DISK", "a.root")
    job_id = submit(grid, simulation("a.root"))
    rucio.work(*MOVERS)
    with listening(grid) as port:
        rucio.post_messages_to(port, HERMES, "wrong")
        rucio.work("hermes")
        grid.work()
        assert grid.state(job_id) == "assigned", "whoever does not know the password is not listened to"
        rucio.post_messages_to(port, HERMES, HERMES_PASSWORD)
        rucio.work("hermes")
    grid.work()
    assert grid.state(job_id) == "activated", "what was refused came again, among many messages of other kinds"


class listening:  # noqa: N801 - used like a function
    """Let the server of a test be called over HTTP."""

    def __init__(self, grid: Grid) -> None:
        self._server = make_server("127.0.0.1", 0, grid.server.application, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._server.server_port)

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_a_missing_source_is_reported_and_the_job_goes_on_when_it_is_back(
    grid: Grid, rucio: Rucio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pandaserver")
    grid.register(INPUTS, "BNL_DISK", "a.root", "b.root")
    lost = rucio.path("BNL-OSG2_DATADISK", "mc", "a.root")
    content = lost.read_bytes()
    lost.unlink()
    job_id = submit(grid, simulation("a.root", "b.root"))
    rucio.work(*MOVERS, times=4)
    for _ in range(2):
        grid.watch(POLL_S)
    seen = progress(grid)
    assert (seen.state, seen.there, seen.total) == (ProgressState.STUCK, 1, 2) and "a.root" in seen.error
    (said,) = [r.getMessage() for r in caplog.records if "is stuck" in r.getMessage()]
    assert "UTA_DISK, 1 of 2 files are there" in said and "No such file" in said
    assert grid.state(job_id) == "assigned", "that is not the end"

    lost.write_bytes(content)
    rucio.tell("wait", hours=3)
    rucio.work("repairer", *MOVERS)
    grid.watch(POLL_S)
    assert grid.state(job_id) == "activated"


def test_jobs_go_on_when_rucio_comes_back(grid: Grid, rucio: Rucio) -> None:
    grid.register(INPUTS, "BNL_DISK", "a.root")
    waiting = submit(grid, simulation("a.root"))
    rucio.stop("server")
    try:
        (late,) = grid.submit(simulation("a.root"))
        grid.work()
        grid.watch(POLL_S)
        assert (grid.state(waiting), grid.state(late)) == ("assigned", "defined")
    finally:
        rucio.start_server()
        rucio.wait_for_server()
    rucio.work(*MOVERS)
    give_up = time.monotonic() + 60
    while {grid.state(waiting), grid.state(late)} != {"activated"} and time.monotonic() < give_up:
        grid.watch(POLL_S)  # tries again later and later; the clock is ours
        rucio.work(*MOVERS)
    assert (grid.state(waiting), grid.state(late)) == ("activated", "activated")


def lines(*messages: dict[str, Any]) -> str:
    return "".join(f'{{ "index":{{ }} }}\n{json.dumps(message)}\n' for message in messages)


def post(grid: Grid, body: str, who: str | None = "ddm", **headers: str) -> int:
    answer = grid.client(who).post(
        "/server/panda/ddmMessages", data=body, content_type="application/json", headers=headers
    )
    return int(answer.status_code)


def test_messages_that_come_twice_early_and_out_of_order_do_no_harm(grid: Grid, rucio: Rucio) -> None:
    grid.register(INPUTS, "BNL_DISK", "a.root")
    job_id = submit(grid, simulation("a.root"))
    (dispatch,) = under_way(grid)
    payload = {"scope": "panda", "name": dispatch.name, "rule_id": "0" * 32}
    early = {"id": "1", "event_type": "RULE_OK", "payload": payload}
    other = {"id": "2", "event_type": "transfer-done", "payload": {"name": "a.root"}}
    assert post(grid, lines(early, other, early)) == 200
    grid.work()
    assert grid.state(job_id) == "assigned", "what a message says is not believed"
    rucio.work(*MOVERS)
    assert post(grid, lines(early)) == 200, "heard before"
    grid.work()
    assert grid.state(job_id) == "assigned"
    late = {"id": "3", "event_type": "DATASETLOCK_OK", "payload": payload | {"rse": "UTA_DISK"}}
    for body in (lines(other, late), lines(late, early, other)):
        assert post(grid, body) == 200
        grid.work()
    assert grid.state(job_id) == "activated"
    assert grid.history(job_id).count("activated") == 1


def test_analysis_at_the_place_of_its_data_needs_no_rule(grid: Grid, rucio: Rucio) -> None:
    grid.register(INPUTS, "BNL_DISK", "a.root")
    job_id = submit(grid, analysis_job("a.root", computingSite="BNL"))
    assert grid.state(job_id) == "activated" and list(rucio.client.list_replication_rules()) == []
    grid.run_job(grid.get_job())
    grid.work()
    assert grid.state(job_id) == "finished"
    assert len(list(rucio.client.list_files("user.alice", "user.alice.hist"))) >= 1


def test_a_rule_that_somebody_took_away_is_made_again(grid: Grid, rucio: Rucio) -> None:
    grid.register(INPUTS, "BNL_DISK", "a.root")
    job_id = submit(grid, simulation("a.root"))
    (dispatch,) = under_way(grid)
    grid.server.rooms.data.ddm.cancel([(dispatch.name, "UTA_DISK")])
    rucio.work("cleaner")
    grid.watch(POLL_S)
    assert rucio.rules(dispatch.name, "panda") == [], "it may be that it was not asked for yet"
    grid.watch(900)
    assert len(rucio.rules(dispatch.name, "panda")) == 1
    rucio.work(*MOVERS)
    grid.watch(POLL_S)
    assert grid.state(job_id) == "activated"
