"""The built-in DDM's transfers: lanes of links, tries, quotas, what links carry, and what processes that die leave."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from factories import Clock

from pandaserver.background.pool import Handler, WorkPool, one_by_one
from pandaserver.dataservice.ddm import carrying, moving, storage
from pandaserver.dataservice.ddm.lanes import CALLBACK, COPY, LINK
from pandaserver.dataservice.ddm.local import LocalDDM
from pandaserver.dataservice.ddm.protocol import ProgressState
from pandaserver.dataservice.ddm.removing import DELETE
from pandaserver.errors import DDMError, DDMUnknown
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint, Topology, at_once
from pandaserver.taskbuffer import catalogue, deletions, links, schema, topology, transfers, work
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.transfers import Lane
from pandaserver.taskbuffer.work import NewWork, WorkItem


@dataclass
class Grid:
    """Endpoints that are folders, the DDM over them, and its background work."""

    buffer: TaskBuffer
    root: Path
    ddm: LocalDDM
    clock: Clock

    def store(self, endpoint: str, lfn: str, content: bytes = b"content") -> Replica:
        path = self.path(endpoint, lfn)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        adler = f"{zlib.adler32(content):08x}"
        return Replica(scope="s", lfn=lfn, endpoint=endpoint, guid="g", size_bytes=len(content), adler32=adler)

    def path(self, endpoint: str, lfn: str) -> Path:
        return self.root / endpoint / storage.below_root("s", lfn)

    def describe(self, sizes: dict[str, float] | None = None, limits: dict[tuple[str, str], int] | None = None) -> None:
        """Configure the grid: quotas, in bytes, and how many copies links make at once."""
        endpoints = {
            name: Endpoint(
                name=name, site=name[0], url=f"file://{self.root}/{name}", quota_gb=(sizes or {}).get(name, 0) / 1e9
            )
            for name in ("A", "A2", "B", "C")
        }
        grid = Topology(queues={}, endpoints=endpoints, links=limits or {})
        self.buffer.run(lambda c: topology.save(c, grid))

    @property
    def pool(self) -> WorkPool:
        handlers = {
            COPY: Handler(self.ddm.carrier.plan),
            LINK: Handler(one_by_one(self.ddm.carrier.run)),
            DELETE: Handler(one_by_one(self.ddm.remover.run)),
            CALLBACK: Handler(one_by_one(lambda _: None)),
        }
        return WorkPool(self.buffer, handlers, threads=1, lease_s=60, give_up_after_s=86400)

    def settle(self, seconds: float = 0) -> int:
        self.clock.forward(seconds)
        return self.pool.run_all()

    def lanes(self) -> list[str]:
        """Name the lanes that are to be looked after."""
        statement = schema.work.select().where(schema.work.c.kind == LINK).order_by(schema.work.c.key)
        return [row.key for row in self.buffer.read(lambda c: c.execute(statement).all())]

    def item(self, key: str) -> WorkItem:
        """Give the piece of background work of a lane."""
        items = self.buffer.run(lambda c: work.claim(c, "me", 99, now=self.buffer.now(), lease_s=60, kind=LINK))
        return next(item for item in items if item.key == key)

    def there(self, lfn: str) -> list[str]:
        return [r.endpoint for r in self.ddm.replicas([("s", lfn)]).get(("s", lfn), [])]


@pytest.fixture
def grid(buffer: TaskBuffer, tmp_path: Path) -> Iterator[Grid]:
    assert isinstance(buffer.clock, Clock)
    made = Grid(buffer, tmp_path / "storage", LocalDDM(buffer), buffer.clock)
    made.describe()
    yield made


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that bytes are carried of."""
    names, copy = list[str](), moving.copy

    def note(source: moving.Place, target: moving.Place, wanted: moving.Bytes, *, mark: str) -> None:
        names.append(wanted.lfn)
        copy(source, target, wanted, mark=mark)

    monkeypatch.setattr(moving, "copy", note)
    return names


# --- links and lanes


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ({}, 2),
        ({("*", "*"): 5}, 5),
        ({("*", "*"): 5, ("*", "B"): 4}, 4),
        ({("*", "*"): 5, ("*", "B"): 4, ("A", "*"): 3}, 3),
        ({("A", "*"): 3, ("A", "B"): 1, ("B", "A"): 7}, 1),
    ],
)
def test_the_most_precise_word_about_a_link_counts(told: dict[tuple[str, str], int], number: int) -> None:
    assert at_once(told, "A", "B") == number


def test_a_link_has_as_many_lanes_as_it_may_and_needs(grid: Grid) -> None:
    grid.describe(limits={("A", "*"): 3, ("A", "C"): 1})
    grid.ddm.register({"d": [grid.store("A", f"f{n}") for n in range(5)], "e": [grid.store("A", "single")]})
    grid.ddm.request(["d"], "B")
    grid.ddm.request(["d"], "C")
    grid.ddm.request(["e"], "A2")
    assert grid.lanes() == ["A>A2#0", "A>B#0", "A>B#1", "A>B#2", "A>C#0"]
    assert grid.buffer.read(lambda c: links.limits(c)) == {("A", "*"): 3, ("A", "C"): 1}


def test_lanes_share_the_copies_and_never_make_one_twice(grid: Grid) -> None:
    grid.ddm.register({"d": [grid.store("A", f"f{n}") for n in range(7)]})
    grid.ddm.request(["d"], "B")
    one, two = Lane("A", "B", 0, "x"), Lane("A", "B", 1, "y")

    def take(lane: Lane, files: int, size_bytes: int = 10**9) -> list[str]:
        now = grid.buffer.now()
        return [
            t.lfn for t in grid.buffer.run(lambda c: transfers.take(c, lane, now, files=files, size_bytes=size_bytes))
        ]

    assert take(one, 3) == ["f0", "f1", "f2"]
    assert take(two, 10, size_bytes=10) == ["f3", "f4"], "about so many bytes: the second file has the tenth"
    assert take(one, 1, size_bytes=1) == ["f5"], "one at least, however large"
    assert take(two, 10) == ["f6"]
    assert take(one, 10) == []


def test_a_lane_that_the_link_lost_makes_nothing(grid: Grid, copied: list[str]) -> None:
    grid.ddm.register({"d": [grid.store("A", "one"), grid.store("A", "two")]})
    grid.ddm.request(["d"], "B")
    grid.describe(limits={("A", "B"): 1})
    grid.ddm.carrier.run(grid.item("A>B#1"))
    assert copied == []
    grid.settle(61)
    assert sorted(copied) == ["one", "two"]


def test_what_two_datasets_want_is_copied_once(grid: Grid, copied: list[str]) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")], "e": [grid.store("A", "one")]})
    grid.ddm.register({"e": [grid.store("A", "two")]})
    grid.ddm.request(["d", "e"], "B")
    grid.settle()
    assert sorted(copied) == ["one", "two"]
    states = grid.ddm.progress([("d", "B"), ("e", "B")])
    assert [p.state for p in states.values()] == [ProgressState.OK] * 2


def test_a_lane_waits_for_a_file_that_another_lane_copies(grid: Grid, copied: list[str]) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.ddm.request(["d"], "B")
    now, other = grid.buffer.now(), Lane("C", "B", 0, "x")
    grid.buffer.run(lambda c: transfers.take(c, Lane("A", "B", 0, "x"), now, files=9, size_bytes=9))
    grid.ddm.register({"e": [grid.store("C", "one")]})
    grid.buffer.run(lambda c: c.execute(schema.ddm_replicas.delete().where(schema.ddm_replicas.c.endpoint == "A")))
    grid.ddm.request(["e"], "B")
    assert grid.buffer.run(lambda c: transfers.take(c, other, grid.buffer.now(), files=9, size_bytes=9)) == []
    due = grid.buffer.read(lambda c: transfers.next_due(c, other))
    assert due is not None and due > grid.buffer.now()


def test_sources_at_the_same_site_come_first_then_the_load_is_spread(grid: Grid) -> None:
    for source in ("A", "B", "C"):
        grid.ddm.register({"d": [grid.store(source, f"f{n}") for n in range(4)]})
    grid.ddm.register({"e": [grid.store(source, "near") for source in ("A", "C")]})
    grid.ddm.request(["e"], "A2")
    grid.buffer.run(lambda c: c.execute(schema.ddm_replicas.delete().where(schema.ddm_replicas.c.endpoint == "B")))
    grid.ddm.request(["d"], "B")
    assert grid.lanes() == ["A>A2#0", "A>B#0", "A>B#1", "C>B#0", "C>B#1"]


# --- tries


def test_each_source_is_tried_and_then_there_is_a_pause(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("A", "C"):
        grid.ddm.register({"d": [grid.store(source, "one")]})
    tried = list[str]()

    def fail(source: moving.Place, *_: object, **__: object) -> None:
        tried.append(str(source.storage._root)[-1])  # type: ignore[attr-defined]
        raise DDMError("the disk is on fire")

    monkeypatch.setattr(moving, "copy", fail)
    grid.ddm.request(["d"], "B")
    grid.settle()
    assert tried == ["A", "C"]
    for pause_s, number in ((1, 4), (1, 4), (2, 6), (4, 8), (8, 10)):
        grid.settle(pause_s)
        assert len(tried) == number, pause_s
    assert tried == ["A", "C"] * 5
    found = grid.ddm.progress([("d", "B")])["d", "B"]
    assert (found.state, found.error.partition(": ")[2]) == (ProgressState.STUCK, "the disk is on fire")


def test_pauses_end_with_five_minutes_and_tries_after_a_day(grid: Grid, copied: list[str]) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.path("A", "one").unlink()
    grid.ddm.request(["d"], "B")
    for _ in range(12):
        grid.settle(301)
    before = len(copied)
    grid.settle(299)
    grid.settle(2)
    assert len(copied) == before + 1
    grid.settle(86400)
    number = len(copied)
    grid.settle(86400)
    assert len(copied) == number, "given up"
    assert grid.buffer.read(lambda c: work.pending(c)) == {}
    found = grid.ddm.progress([("d", "B")])["d", "B"]
    assert found.state is ProgressState.STUCK and "cannot read one: No such file" in found.error


def test_a_file_without_any_copy_is_waited_for(grid: Grid) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.buffer.run(lambda c: c.execute(schema.ddm_replicas.delete()))
    grid.ddm.request(["d"], "B")
    grid.settle()
    assert "no good copy of one" in grid.ddm.progress([("d", "B")])["d", "B"].error
    grid.ddm.register({"e": [grid.store("C", "one")]})
    grid.settle(400)  # finds the source,
    grid.settle(2)  # and copies from there
    assert grid.there("one") == ["B", "C"]


def test_copies_that_servers_of_before_asked_for_are_made(grid: Grid) -> None:
    """They have no source, and a piece of work each."""
    grid.ddm.register({"d": [grid.store("A", "one")]})
    now = grid.buffer.now()
    row = {"dataset": "d", "scope": "s", "lfn": "one", "destination": "B", "state": "queued", "size_bytes": 7}
    grid.buffer.run(lambda c: c.execute(schema.ddm_transfers.insert().values(**row, created_at=now)))
    (old,) = grid.buffer.read(lambda c: transfers.queued(c, "d", "B"))
    asked = NewWork(kind=COPY, key="1", payload={"transfer_id": old.transfer_id})
    grid.buffer.run(lambda c: work.add(c, [asked], now=now))
    grid.settle()
    assert grid.there("one") == ["A", "B"]


# --- those who die


def die(grid: Grid, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Let a process make a copy and be killed: before its part is whole, or before it tells of it."""

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(moving, "verify" if when == "part" else "put", killed)
        if when == "told":
            patch.undo()
            patch.setattr(transfers, "save", killed)
        patch.setattr(moving, "_clear", lambda _: None)
        with pytest.raises(SystemExit):
            grid.ddm.carrier.run(grid.item("A>B#0"))


@pytest.mark.parametrize("when", ["part", "whole", "told"])
def test_what_a_killed_process_left_is_cleared_up_and_done_again(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.ddm.request(["d"], "B")
    die(grid, monkeypatch, when)
    left = [p.name for p in grid.path("B", "one").parent.iterdir()]
    assert [name.endswith(".part") for name in left] == [when != "told"]
    assert grid.settle() == 0, "its lease lasts"
    grid.settle(61)
    assert [p.name for p in grid.path("B", "one").parent.iterdir()] == ["one"]
    assert grid.there("one") == ["A", "B"]
    (moved,) = grid.buffer.read(lambda c: c.execute(schema.ddm_transfers.select()).all())
    assert (moved.state, moved.lane, moved.tries) == ("done", None, 1)


def test_who_lost_the_lease_changes_nothing_any_more(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.ddm.request(["d"], "B")
    slow, copy = grid.item("A>B#0"), moving.copy

    def slowly(*given: moving.Place | moving.Bytes, mark: str) -> None:
        monkeypatch.setattr(moving, "copy", copy)
        grid.settle(61)  # another takes the lane, and copies
        raise DDMError("the part is gone")

    monkeypatch.setattr(moving, "copy", slowly)
    grid.ddm.carrier.run(slow)
    (moved,) = grid.buffer.read(lambda c: c.execute(schema.ddm_transfers.select()).all())
    assert (moved.state, moved.message) == ("done", None)
    assert grid.there("one") == ["A", "B"]


# --- space


def test_a_quota_is_looked_at_before_the_copy(grid: Grid, copied: list[str]) -> None:
    grid.describe(sizes={"B": 100})
    grid.ddm.register({"full": [grid.store("B", "old", b"x" * 60)]})
    grid.ddm.register({"d": [grid.store("A", "small", b"x" * 40), grid.store("A", "large", b"x" * 41)]})
    grid.ddm.request(["d"], "B")
    grid.settle()
    assert copied == ["small"]
    found = grid.ddm.progress([("d", "B")])["d", "B"]
    assert found.state is ProgressState.STUCK and "B has no room for 0.000 GB more" in found.error
    assert "of its quota of 1e-07 GB" in found.error
    grid.describe(sizes={"B": 1000})
    grid.settle(400)
    assert grid.there("large") == ["A", "B"]


def test_a_full_disk_says_so_and_leaves_nothing(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    class Token:
        hex = "0123456789abcdef"

    monkeypatch.setattr(carrying.uuid, "uuid4", Token)
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.ddm.request(["d"], "B")
    folder = grid.path("B", "one").parent
    folder.mkdir(parents=True)
    (folder / ".one.0123456789ab.part").symlink_to("/dev/full")
    grid.settle()
    assert "cannot write one" in (told := grid.ddm.progress([("d", "B")])["d", "B"].error) or "No space left" in told
    assert "No space left on device" in told
    assert list(folder.iterdir()) == []
    grid.settle(2)
    assert grid.there("one") == ["A", "B"]


# --- what links carry


def test_links_tell_what_they_carried_and_what_waits(grid: Grid) -> None:
    grid.ddm.register({"d": [grid.store("A", f"f{n}", b"x" * 1000) for n in range(4)], "e": [grid.store("A", "bad")]})
    grid.path("A", "bad").unlink()
    grid.ddm.request(["d", "e"], "B")
    assert grid.buffer.read(links.backlog) == {("A", "B"): links.Backlog(5, 4007, None)}
    grid.settle()
    since = grid.buffer.now() - timedelta(hours=1)
    moved = grid.buffer.read(lambda c: links.carried(c, since))["A", "B"]
    assert (moved.files, moved.size_bytes, moved.failures) == (4, 4000, 1) and moved.seconds > 0
    backlog = grid.buffer.read(links.backlog)["A", "B"]
    assert (backlog.files, backlog.size_bytes) == (1, 7)
    assert backlog.bytes_per_s == pytest.approx(4000 / moved.seconds * 2), "of two lanes"
    grid.settle(7200)
    assert grid.buffer.read(lambda c: len(c.execute(schema.ddm_link_hours.select()).all())) == 2
    assert grid.buffer.run(lambda c: links.forget(c, grid.buffer.now() - timedelta(hours=1))) == 1
    late = grid.buffer.now() + timedelta(days=2)
    assert grid.buffer.read(lambda c: links.carried(c, late)) == {}


# --- deletion


def remove_while(grid: Grid, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen at the moment when the copies of a deleted dataset are removed from storage."""
    remove = grid.ddm.remover._remove

    def first(row: deletions.Deletion) -> str:
        happens()
        return remove(row)

    monkeypatch.setattr(grid.ddm.remover, "_remove", first)


def test_a_copy_that_comes_back_in_time_stays(grid: Grid) -> None:
    again = grid.store("A", "one")
    grid.ddm.register({"d": [again]})
    grid.ddm.delete(["d"])
    grid.ddm.register({"e": [again]})
    grid.settle(1)
    assert grid.path("A", "one").exists() and grid.there("one") == ["A"]
    assert grid.buffer.read(deletions.pending) == {}


def test_a_copy_that_is_being_removed_does_not_come_back(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    again, refused = grid.store("A", "one"), list[str]()
    grid.ddm.register({"d": [again]})
    grid.ddm.delete(["d"])

    def register() -> None:
        with pytest.raises(DDMError) as error:
            grid.ddm.register({"e": [again]})
        refused.append(error.value.message)

    remove_while(grid, monkeypatch, register)
    grid.settle(1)
    assert refused == ["one is just being removed from A"]
    assert not grid.path("A", "one").exists() and grid.there("one") == []
    grid.ddm.register({"e": [grid.store("A", "one")]})
    assert grid.there("one") == ["A"]


def test_a_copy_on_its_way_when_its_dataset_is_deleted_is_removed_too(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.ddm.request(["d"], "B")
    copy = moving.copy

    def meanwhile(*given: moving.Place | moving.Bytes, mark: str) -> None:
        copy(*given, mark=mark)  # type: ignore[arg-type]
        grid.ddm.delete(["d"])

    monkeypatch.setattr(moving, "copy", meanwhile)
    grid.settle()
    grid.settle(1)
    assert not grid.path("A", "one").exists() and not grid.path("B", "one").exists()
    assert grid.buffer.read(lambda c: c.execute(schema.ddm_files.select()).all()) == []


def test_large_datasets_are_deleted_part_by_part(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandaserver.dataservice.ddm.local._FORGOTTEN_AT_ONCE", 3)
    monkeypatch.setattr("pandaserver.dataservice.ddm.removing._AT_ONCE", 2)
    some = [grid.store("A", f"f{n}") for n in range(8)]
    grid.ddm.register({"d": some, "kept": some[:2]})
    grid.ddm.collect("c", ["d", "kept"])
    grid.ddm.delete(["d"])
    assert grid.buffer.read(deletions.pending) == {"A": 6}
    assert grid.ddm.contents("c") == [("s", "f0"), ("s", "f1")]
    grid.settle()
    assert [grid.path("A", f"f{n}").exists() for n in range(8)] == [True] * 2 + [False] * 6
    assert grid.buffer.read(deletions.pending) == {}


def test_storage_that_is_away_is_asked_again(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.ddm.register({"d": [grid.store("A", "one"), grid.store("A", "two")]})
    grid.ddm.delete(["d"])
    with monkeypatch.context() as patch:
        patch.setattr(grid.ddm.remover, "_remove", lambda row: "away" if row.lfn == "one" else "")
        grid.settle()
    assert grid.buffer.read(deletions.pending) == {"A": 1}
    (row,) = grid.buffer.read(lambda c: c.execute(schema.ddm_deletions.select()).all())
    assert (row.lfn, row.tries, row.message) == ("one", 1, "away")
    grid.settle(2)
    assert not grid.path("A", "one").exists() and grid.buffer.read(deletions.pending) == {}


def test_a_file_that_is_put_into_a_dataset_is_not_deleted_with_another(grid: Grid) -> None:
    grid.ddm.register({"d": [grid.store("A", "one")]})
    grid.ddm.attach({"e": [("s", "one")]})
    grid.ddm.delete(["d"])
    grid.settle(1)
    assert grid.path("A", "one").exists()
    grid.ddm.delete(["e"])
    with pytest.raises(DDMUnknown):
        grid.ddm.attach({"f": [("s", "one")]})
    assert grid.buffer.read(lambda c: catalogue.used(c, "A")) == 0
