"""Sources of queues on every database: what each may say, what goes before what, and what becomes of what is gone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import factories as f
import pytest
import sqlalchemy as sa

from pandaserver.errors import ConfigError, NotAvailable
from pandaserver.externalinterface.cric_import import CricImport, fetch
from pandaserver.externalinterface.sites import SitesError
from pandaserver.externalinterface.sites_file import SitesFile
from pandaserver.model.grid import Endpoint, Queue, QueueStatus, Source, Switch, Topology
from pandaserver.taskbuffer import schema, sources, switches, topology
from pandaserver.taskbuffer.buffer import TaskBuffer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FILE, CRIC = Source.FILE, Source.CRIC


def grid(*queues: Queue, **more: Any) -> Topology:
    disks = {q.endpoint: Endpoint(name=q.endpoint, site=q.site, url=f"file:///{q.endpoint}") for q in queues}
    return Topology(queues={q.name: q for q in queues}, endpoints=disks, **more)


def apply(buffer: TaskBuffer, wanted: Topology, source: Source = FILE, **more: Any) -> list[str]:
    changes = buffer.run(lambda c: topology.apply(c, wanted, source=source, now=NOW, **more))
    topology.forget()
    return [str(change) for change in changes]


def queues(buffer: TaskBuffer) -> dict[str, Queue]:
    return buffer.read(topology.load).queues


def statuses(buffer: TaskBuffer) -> dict[str, str]:
    return {name: queue.status.value for name, queue in queues(buffer).items()}


def history(buffer: TaskBuffer, queue: str) -> list[tuple[str, str | None, str]]:
    return [(h.action, h.from_status, h.to_status) for h in buffer.read(lambda c: switches.history(c, queue))]


def switch(buffer: TaskBuffer, queue: str, status: QueueStatus, until: datetime | None = None) -> None:
    said = Switch(queue=queue, status=status, reason="why", by="/CN=Otto", by_name="Otto", at=NOW, until=until)
    buffer.run(lambda c: switches.set_status(c, said))
    topology.forget()


def test_everything_of_a_queue_comes_back_as_it_was(buffer: TaskBuffer) -> None:
    full = f.queue(
        "A", memory_mb=1, cores=2, max_wall_time_s=3, max_work_dir_mb=4, releases=("1", "2"), platforms=("p",),
        environment=(("PATH", "/a"),), heartbeat_s=5, country="Österreich", max_input_mb=6, timefloor_min=7, vos=("v",),
        params=(("x", {"deep": [1, None, "ü"]}), ("y", True)),
    )  # fmt: skip
    assert apply(buffer, grid(full, links={("A_DISK", "*"): 3})) == [
        "queue A added", "endpoint A_DISK added", "link A_DISK * added"
    ]  # fmt: skip
    found = buffer.read(topology.load)
    assert found.queues == {"A": full} and found.links == {("A_DISK", "*"): 3}
    assert apply(buffer, grid(full, links={("A_DISK", "*"): 3})) == [], "the same again changes nothing"


def test_servers_of_before_find_what_they_know_and_ours_bear_what_they_do_not_know(buffer: TaskBuffer) -> None:
    apply(buffer, grid(f.queue("A", params=(("x", 1),))))
    old = {
        "memory_mb", "cores", "max_wall_time_s", "max_work_dir_mb", "releases", "platforms", "vos", "environment",
        "heartbeat_s",
    }  # fmt: skip
    table = schema.queues
    data = buffer.read(lambda c: c.execute(sa.select(table.c.data)).scalar_one())
    assert set(data) == old
    later = {"of a later version": 1}
    buffer.run(lambda c: c.execute(sa.update(table).values(more=later, configured="", data=data | later)))
    topology.forget()
    assert queues(buffer) == {"A": f.queue("A")}
    assert apply(buffer, grid(f.queue("A"))) == []
    buffer.run(lambda c: c.execute(sa.update(table).values(more=None)))
    topology.forget()
    assert queues(buffer) == {"A": f.queue("A")}


def test_a_queue_that_is_gone_is_offline_and_stays_while_jobs_name_it(buffer: TaskBuffer) -> None:
    apply(buffer, grid(f.queue("A"), f.queue("B")))
    f.accept(buffer, f.new_job())
    site = sa.update(schema.jobs).values(site="A")
    buffer.run(lambda c: c.execute(site))
    assert apply(buffer, grid(f.queue("C"))) == [
        "queue A removed", "queue B removed", "queue C added",
        "endpoint A_DISK removed", "endpoint B_DISK removed", "endpoint C_DISK added",
    ]  # fmt: skip
    assert statuses(buffer) == {"A": "offline", "B": "offline", "C": "online"}
    assert set(buffer.read(topology.load).endpoints) == {"A_DISK", "B_DISK", "C_DISK"}, "files lie there"
    assert apply(buffer, grid(f.queue("C"))) == [], "once is enough"
    assert buffer.run(topology.sweep) == ["B"] and set(statuses(buffer)) == {"A", "C"}
    assert apply(buffer, grid(f.queue("C"), f.queue("A", memory_mb=9)))[0] == "queue A added"
    assert queues(buffer)["A"] == f.queue("A", memory_mb=9)
    assert history(buffer, "A") == [
        ("added", "offline", "online"), ("removed", "online", "offline"), ("added", None, "online")
    ]  # fmt: skip
    buffer.run(lambda c: c.execute(sa.delete(schema.jobs)))
    assert buffer.run(topology.sweep) == []


def test_the_endpoint_of_a_site_is_one_that_is_described(buffer: TaskBuffer) -> None:
    def disk(name: str) -> Topology:
        return Topology(queues={}, endpoints={name: Endpoint(name=name, site="S", url="file:///x")})

    apply(buffer, disk("A_OLD"))
    apply(buffer, disk("B_NEW"))
    found = buffer.read(topology.load)
    assert found.endpoint_of("S") == "B_NEW" and "A_OLD" in found.endpoints


def test_an_operators_word_goes_before_every_source(buffer: TaskBuffer) -> None:
    apply(buffer, grid(f.queue("A")))
    switch(buffer, "A", QueueStatus.OFFLINE)
    apply(buffer, grid(f.queue("A", memory_mb=5, status=QueueStatus.TEST)))
    assert statuses(buffer) == {"A": "offline"} and queues(buffer)["A"].memory_mb == 5
    apply(buffer, grid())
    apply(buffer, grid(f.queue("A")))
    assert statuses(buffer) == {"A": "offline"}, "also when it comes back"
    standing = buffer.read(switches.standings)["A"]
    assert (standing.configured, standing.by_name, standing.reason, standing.since) == ("online", "Otto", "why", NOW)
    switch(buffer, "A", QueueStatus.ONLINE)
    apply(buffer, grid(f.queue("A", status=QueueStatus.OFFLINE)))
    assert statuses(buffer) == {"A": "online"}
    apply(buffer, grid())
    assert statuses(buffer) == {"A": "offline"}, "nobody is sent where nothing is described"


def test_a_word_that_is_over_goes_alone(buffer: TaskBuffer) -> None:
    apply(buffer, grid(f.queue("A", status=QueueStatus.BROKEROFF), f.queue("B")))
    for name, hours in {"A": 1, "B": 2}.items():
        switch(buffer, name, QueueStatus.OFFLINE, NOW + timedelta(hours=hours))

    def end_over(hours: float) -> list[str]:
        return buffer.run(lambda c: switches.end_over(c, NOW + timedelta(hours=hours)))

    assert end_over(0.9) == []
    assert end_over(1) == ["A"] and end_over(1) == []
    topology.forget()
    assert statuses(buffer) == {"A": "brokeroff", "B": "offline"}
    assert history(buffer, "A")[0] == ("over", "offline", "brokeroff")


def test_the_sites_file_goes_before_cric_and_gives_back(buffer: TaskBuffer) -> None:
    mine, theirs = f.queue("A", memory_mb=1), f.queue("A", memory_mb=2)
    assert apply(buffer, grid(theirs, f.queue("X")), CRIC)[:2] == ["queue A added", "queue X added"]
    apply(buffer, grid(mine))
    assert queues(buffer)["A"] == mine
    assert apply(buffer, grid(theirs, f.queue("X")), CRIC) == []
    assert apply(buffer, grid(f.queue("B"))) == [
        "queue A removed", "queue B added", "endpoint A_DISK removed", "endpoint B_DISK added"
    ]  # fmt: skip
    assert statuses(buffer) == {"A": "offline", "B": "online", "X": "online"}, "what the other says is not touched"
    apply(buffer, grid(theirs, f.queue("X")), CRIC)
    assert queues(buffer)["A"] == theirs
    assert apply(buffer, grid(f.queue("X")), CRIC, keep={"A", "A_DISK"}) == [], "not understood now, so left as it was"
    assert apply(buffer, grid(f.queue("X")), CRIC) == ["queue A removed", "endpoint A_DISK removed"]


def test_a_preview_changes_nothing(buffer: TaskBuffer) -> None:
    wanted = grid(f.queue("A"))
    for _ in range(2):
        told = buffer.read(lambda c: topology.differences(c, wanted, source=CRIC))
        assert [str(change) for change in told] == ["queue A added", "endpoint A_DISK added"]
    assert queues(buffer) == {}


# --- the sites file of a running server


@pytest.fixture
def sites(tmp_path: Path, buffer: TaskBuffer) -> SitesFile:
    (tmp_path / "sites.cfg").write_text(f.SITES.format(root=tmp_path))
    return SitesFile(buffer, tmp_path / "sites.cfg", needed={"UTA"})


def state(buffer: TaskBuffer) -> sources.SourceState:
    (found,) = buffer.read(sources.states)
    return found


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_a_changed_file_is_taken_when_it_is_the_same_in_two_looks(sites, buffer, tmp_path) -> None:
    path = tmp_path / "sites.cfg"
    sites.begin()
    assert not sites.look() and not sites.look()
    edit(path, "memory_mb = 4000", "memory_mb = 5000")
    assert not sites.look(), "somebody may be writing it"
    edit(path, "memory_mb = 5000", "memory_mb = 66000")
    assert not sites.look() and queues(buffer)["BNL"].memory_mb == 4000
    assert sites.look() and queues(buffer)["BNL"].memory_mb == 66000
    assert not sites.look()
    assert state(buffer).changes == "queue BNL changed: memory_mb 4000 -> 66000"


def test_a_wrong_file_changes_nothing_and_is_shown_until_it_is_good(sites, buffer, tmp_path, caplog) -> None:
    path = tmp_path / "sites.cfg"
    sites.begin()
    before = buffer.read(topology.load)
    for old, new, words in (
        ("tier = 2", "tier = two", "tier = 'two'"),
        ("[queue UTA]", "[queue UTB]", "[queue UTA] is gone, and [retry] rules name it"),
    ):
        good = path.read_text()
        edit(path, old, new)
        sites.look()
        assert sites.look() and not sites.look()
        assert words in str(state(buffer).problem) and words in caplog.text
        topology.forget()
        assert buffer.read(topology.load) == before
        path.write_text(good)
        sites.look()
        assert sites.look() and state(buffer).problem is None
    path.unlink()
    sites.look()
    assert sites.look() and "No such file" in str(state(buffer).problem)
    since = state(buffer).problem_at
    again = SitesFile(buffer, path)
    again.begin()
    assert state(buffer).problem_at == since, "a server that starts goes on with what was read before"
    assert buffer.read(topology.load) == before


def test_a_server_without_any_grid_does_not_start_on_a_wrong_file(buffer, tmp_path) -> None:
    topology.forget()
    with pytest.raises(SitesError):
        SitesFile(buffer, tmp_path / "nothing.cfg").begin()


def test_two_processes_look_and_one_changes(sites, buffer, tmp_path) -> None:
    other = SitesFile(buffer, tmp_path / "sites.cfg")
    sites.begin()
    other.begin()
    edit(tmp_path / "sites.cfg", "memory_mb = 4000", "memory_mb = 5000")
    for one in (sites, other):
        one.look()
        assert one.look()
    assert state(buffer).changes == "queue BNL changed: memory_mb 4000 -> 5000"


# --- import

SAMPLE = {"cloud": "US", "status": "online", "astorages": {"pr": ["A_DISK"]}, "maxrss": 4000}
STORAGE = {"site": "A", "arprotocols": {"read_lan": [{"endpoint": "https://a:443", "path": "/a"}]}}


@pytest.fixture
def cric(tmp_path: Path, buffer: TaskBuffer) -> Any:
    """An import of what a test says."""

    def importer(queues_told: object, endpoints: object = None) -> CricImport:
        (tmp_path / "q.json").write_text(json.dumps(queues_told))
        (tmp_path / "e.json").write_text(json.dumps(endpoints))
        told = str(tmp_path / "e.json") if endpoints is not None else ""
        return CricImport(buffer, str(tmp_path / "q.json"), told, tmp_path)

    return importer


def test_good_entries_are_imported_and_bad_ones_stay_as_they_were(cric, buffer, tmp_path) -> None:
    disks = {"A_DISK": STORAGE, "B_DISK": STORAGE}
    first = cric({"A": SAMPLE, "B": SAMPLE | {"astorages": {"pr": ["B_DISK"]}}}, disks).run()
    assert [str(c) for c in first.changes] == [
        "queue A added", "queue B added", "endpoint A_DISK added", "endpoint B_DISK added"
    ]  # fmt: skip
    second = cric({"A": SAMPLE | {"maxrss": 5000}, "B": "junk", "C": {}}, disks | {"B_DISK": 5}).run()
    assert [str(c) for c in second.changes] == ["queue A changed: memory_mb 4000 -> 5000"]
    assert [m.place.rpartition(" ")[2] for m in second.mistakes] == ["B_DISK", "B", "C"]
    assert statuses(buffer) == {"A": "online", "B": "online"}
    assert "3 entries left out" in str(state(buffer).problem)
    third = cric({"A": SAMPLE | {"maxrss": 5000}}).run()
    assert [str(c) for c in third.changes] == ["queue B removed"], "without storage data the endpoints stay"
    assert state(buffer).problem is None


def test_a_dry_run_says_what_would_change(cric, buffer) -> None:
    apply(buffer, grid(f.queue("F")))
    told = cric({"A": SAMPLE, "F": SAMPLE}, {"A_DISK": STORAGE}).run(dry=True)
    assert [str(c) for c in told.changes] == ["queue A added", "endpoint A_DISK added"]
    assert told.from_file == ("F",) and (told.queues, told.endpoints) == (2, 1)
    assert set(queues(buffer)) == {"F"} and buffer.read(sources.states) == []


def test_queues_may_use_the_endpoints_of_the_sites_file(cric, buffer) -> None:
    apply(buffer, grid(f.queue("A")))
    assert cric({"X": SAMPLE}).run().queues == 1
    assert queues(buffer)["X"].endpoint == "A_DISK"


def test_what_cannot_be_read_changes_nothing_and_is_noted(cric, buffer, tmp_path) -> None:
    cric({"A": SAMPLE}, {"A_DISK": STORAGE}).run()
    for document, words in (({}, "an object with a queue for each name"), ([], "an object with a queue")):
        assert cric(document, {"A_DISK": STORAGE}).run_once() == 0
        assert words in str(state(buffer).problem)
    importer = cric({"A": SAMPLE})
    (tmp_path / "q.json").write_text("[NaN]")
    with pytest.raises(ConfigError, match="NaN is no JSON number"):
        importer.run()
    assert replace(importer, queues="/nowhere/q.json").run_once() == 0
    assert "cannot read /nowhere/q.json" in str(state(buffer).problem)
    assert statuses(buffer) == {"A": "online"}


@pytest.mark.parametrize("place", ["http://localhost/x", "ftp://localhost/x", "file:///etc/passwd"])
def test_only_files_and_verified_connections_are_read(place, tmp_path) -> None:
    with pytest.raises(ConfigError, match="a file or an https URL is expected"):
        fetch(place, tmp_path)


def test_a_place_that_does_not_answer_is_told(tmp_path, free_port) -> None:
    with pytest.raises(NotAvailable, match="cannot get https://localhost"):
        fetch(f"https://localhost:{free_port}/x", tmp_path)
