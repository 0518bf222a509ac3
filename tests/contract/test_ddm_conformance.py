"""What the server asks of any data management system, tried on each back end there is."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest
from conftest import pick_free_port
from factories import Clock, Pki
from private_webdav import StorageServer, private_webdav
from private_xrootd import private_xrootd
from rucio_system import make_rucio_system

from pandaserver.background.pool import Handler, WorkPool, one_by_one
from pandaserver.dataservice.ddm import local, storage
from pandaserver.dataservice.ddm.lanes import CALLBACK, LINK
from pandaserver.dataservice.ddm.protocol import DDM, Progress, ProgressState
from pandaserver.dataservice.ddm.removing import DELETE
from pandaserver.dataservice.ddm.storage import Credentials, Stores
from pandaserver.errors import DDMError, DDMFatal, DDMUnknown
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint, Topology
from pandaserver.taskbuffer import topology, transfers
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.taskbuffer.database import Database

pytestmark = pytest.mark.conformance  # `tools/test --only conformance` ends with a table of this file
PLACES = ("A", "B", "C", "D")


class System(Protocol):
    """A DDM under test: the DDM itself, its storage as pilots see it, and its time."""

    ddm: DDM
    calls: list[tuple[str, str]]  # callbacks made so far

    def store(self, endpoint: str, lfn: str, content: bytes, *, scope: str = "s") -> Replica:
        """Put a file where a pilot would; nothing is registered."""

    def path(self, endpoint: str, lfn: str, *, scope: str = "s") -> Path:
        """Say where a file lies, to look at it or to damage it."""

    def settle(self, seconds: float = 0) -> None:
        """Let time pass, and transfers and callbacks be made."""


@dataclass
class LocalSystem:
    """The built-in DDM."""

    ddm: local.LocalDDM
    buffer: TaskBuffer
    endpoints: dict[str, Endpoint]
    data: Path  # below which the endpoints really are
    own: Callable[[Path], None]
    calls: list[tuple[str, str]] = field(default_factory=list)

    def store(self, endpoint: str, lfn: str, content: bytes, *, scope: str = "s") -> Replica:
        path = self.path(endpoint, lfn, scope=scope)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.own(path)
        checksum = f"{zlib.adler32(content):08x}"
        return Replica(scope=scope, lfn=lfn, endpoint=endpoint, guid="g", size_bytes=len(content), adler32=checksum)

    def path(self, endpoint: str, lfn: str, *, scope: str = "s") -> Path:
        return self.data / endpoint / storage.below_root(scope, lfn)

    def settle(self, seconds: float = 0) -> None:
        assert isinstance(self.buffer.clock, Clock)
        self.buffer.clock.forward(seconds)
        self.pool.run_all()

    @property
    def pool(self) -> WorkPool:
        handlers = {
            LINK: Handler(one_by_one(self.ddm.carrier.run)),
            DELETE: Handler(one_by_one(self.ddm.remover.run)),
            CALLBACK: Handler(one_by_one(lambda w: self.calls.append((w.payload["dataset"], w.payload["endpoint"])))),
        }
        return WorkPool(self.buffer, handlers, threads=1, lease_s=60, give_up_after_s=86400)


def over_folders(request: pytest.FixtureRequest, buffer: TaskBuffer) -> System:
    root = request.getfixturevalue("tmp_path") / "storage"
    return local_system(buffer, root, lambda name: f"file://{root}/{name}")


def over_server(request: pytest.FixtureRequest, buffer: TaskBuffer, url: str, name: str) -> System:
    server: StorageServer = request.getfixturevalue(name)
    server.clear()
    trust = Credentials(server.proxy, None, server.certificates)
    return local_system(buffer, server.data, lambda place: url.format(server=server, place=place), trust, server.own)


def local_system(
    buffer: TaskBuffer,
    data: Path,
    url: Callable[[str], str],
    trust: Credentials | None = None,
    own: Callable[[Path], None] = lambda _: None,
) -> LocalSystem:
    endpoints = {name: Endpoint(name=name, site=name, url=url(name)) for name in PLACES}
    buffer.run(lambda c: topology.save(c, Topology(queues={}, endpoints=endpoints)))
    stores = Stores(trust) if trust else Stores()
    return LocalSystem(local.LocalDDM(buffer, stores), buffer, endpoints, data, own)


@pytest.fixture(scope="module")
def webdav(pki: Pki) -> Iterator[StorageServer]:
    with private_webdav(pki, pick_free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def plain_xrootd(pki: Pki) -> Iterator[StorageServer]:
    with private_xrootd(pki, pick_free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def xrootd(pki: Pki) -> Iterator[StorageServer]:
    with private_xrootd(pki, pick_free_port(), http_port=pick_free_port()) as server:
        yield server


Maker = Callable[[pytest.FixtureRequest, TaskBuffer], System]
# What stands in the table: the data management, its storage, its database.
MAKERS: dict[str, Maker] = {
    "folders": over_folders,
    "folders_mariadb": over_folders,
    "mod_dav": lambda request, buffer: over_server(request, buffer, "{server.url}/{place}", "webdav"),
    "XrdHttp": lambda request, buffer: over_server(request, buffer, "{server.url}/{place}", "xrootd"),
    "root": lambda request, buffer: over_server(request, buffer, "{server.root_url}/{place}", "plain_xrootd"),
    "rucio": lambda request, buffer: make_rucio_system(request.getfixturevalue("rucio"), PLACES),
    "root_gsi": lambda request, buffer: over_server(request, buffer, "{server.root_url}/{place}", "xrootd"),
}
BACK_ENDS = [pytest.param(name, marks=[pytest.mark.mysql] if name.endswith("mariadb") else []) for name in MAKERS]


# Of these only what is our own gives up, or can be spoiled at every step.
built_in = pytest.mark.parametrize("system", [one for one in BACK_ENDS if one.values != ("rucio",)], indirect=True)


@pytest.fixture(params=BACK_ENDS)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    database, give_back = tables(request, tmp_path)
    buffer = TaskBuffer(database, Clock())
    yield MAKERS[request.param](request, buffer)
    database.close()
    give_back()


def tables(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Database, Callable[[], None]]:
    """Give an empty database of the kind that the back end asks for, and what gives it back."""
    if request.param.endswith("mariadb"):
        used = request.getfixturevalue("used_database")
        return Database(used.take()), used.give_back
    shutil.copyfile(request.getfixturevalue("sqlite_pattern"), tmp_path / "panda.db")
    return Database(f"sqlite:///{tmp_path / 'panda.db'}"), lambda: None


def there(system: System, lfn: str) -> list[str]:
    return [r.endpoint for r in system.ddm.replicas([("s", lfn)]).get(("s", lfn), [])]


# --- register


def test_registered_files_are_in_the_dataset_with_their_facts(system: System) -> None:
    one, two = system.store("A", "one", b"1"), system.store("B", "two", b"22")
    system.ddm.register({"d": [one, two]})
    assert system.ddm.contents("d") == [("s", "one"), ("s", "two")]
    assert system.ddm.replicas([("s", "one"), ("s", "two"), ("s", "three"), ("t", "one")]) == {
        ("s", "one"): [one],
        ("s", "two"): [two],
    }


def test_registering_again_changes_nothing(system: System) -> None:
    one = system.store("A", "one", b"1")
    for _ in range(3):
        system.ddm.register({"d": [one]})
    assert system.ddm.contents("d") == [("s", "one")]
    assert system.ddm.replicas([("s", "one")]) == {("s", "one"): [one]}


def test_a_second_copy_is_one_more_replica(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.ddm.register({"e": [system.store("B", "one", b"1")]})
    assert there(system, "one") == ["A", "B"]
    assert system.ddm.contents("d") == system.ddm.contents("e") == [("s", "one")]


def test_names_are_case_sensitive(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1"), system.store("A", "ONE", b"other")]})
    system.ddm.register({"D": [system.store("A", "Two", b"2")]})
    assert sorted(system.ddm.contents("d")) == [("s", "ONE"), ("s", "one")]
    assert system.ddm.contents("D") == [("s", "Two")]
    assert list(system.ddm.replicas([("s", "two"), ("S", "one")])) == []


@pytest.mark.parametrize(
    "wrong",
    [{"size_bytes": 5}, {"size_bytes": 3}, {"size_bytes": 0}, {"adler32": "00000000"}, {"adler32": ""}],
    ids=str,
)
def test_a_copy_that_is_not_as_announced_is_refused_for_good(system: System, wrong: dict[str, object]) -> None:
    good, bad = system.store("A", "good", b"good"), system.store("A", "bad", b"1234")
    with pytest.raises(DDMFatal, match="announced"):
        system.ddm.register({"d": [good, replace(bad, **wrong)]})  # type: ignore[arg-type]
    assert system.ddm.contents("d") == []
    assert system.ddm.replicas([("s", "good"), ("s", "bad")]) == {}


def test_a_copy_that_is_not_there_yet_is_worth_another_try(system: System) -> None:
    late = system.store("A", "late", b"1")
    system.path("A", "late").unlink()
    with pytest.raises(DDMError, match="cannot read late") as refused:
        system.ddm.register({"d": [late]})
    assert not isinstance(refused.value, DDMFatal)
    system.ddm.register({"d": [system.store("A", "late", b"1")]})
    assert system.ddm.contents("d") == [("s", "late")]


def test_other_bytes_under_a_known_name_are_refused(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    with pytest.raises(DDMFatal, match="s:one is in the catalogue with 1 bytes"):
        system.ddm.register({"d": [system.store("B", "one", b"2")]})
    assert there(system, "one") == ["A"]


def test_an_unknown_endpoint_is_refused(system: System) -> None:
    with pytest.raises(DDMFatal, match="no endpoint X; known are A, B, C, D"):
        system.ddm.register({"d": [replace(system.store("A", "one", b"1"), endpoint="X")]})
    with pytest.raises(DDMFatal, match="no endpoint X"):
        system.ddm.request(["d"], "X")


# --- attach and freeze


def test_known_files_may_be_in_many_datasets(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1"), system.store("A", "two", b"2")]})
    for _ in range(2):
        system.ddm.attach({"e": [("s", "two"), ("s", "two")]})
    assert system.ddm.contents("e") == [("s", "two")]


def test_unknown_files_cannot_be_attached(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    with pytest.raises(DDMFatal, match="1 files are not in the catalogue"):
        system.ddm.attach({"e": [("s", "one"), ("s", "nothing")]})
    assert system.ddm.contents("e") == []


def test_a_frozen_dataset_takes_nothing_new_and_what_it_has_again(system: System) -> None:
    one, two = system.store("A", "one", b"1"), system.store("A", "two", b"2")
    system.ddm.register({"d": [one]})
    system.ddm.register({"e": [two]})
    for _ in range(2):
        system.ddm.freeze(["d"])
    with pytest.raises(DDMFatal, match="dataset d is frozen"):
        system.ddm.register({"d": [two]})
    with pytest.raises(DDMFatal, match="dataset d is frozen"):
        system.ddm.attach({"d": [("s", "one"), ("s", "two")]})
    system.ddm.register({"d": [one]})
    system.ddm.attach({"d": [("s", "one")]})
    assert system.ddm.contents("d") == [("s", "one")]
    system.ddm.register({"e": [two]})


def test_unknown_datasets_are_empty(system: System) -> None:
    assert system.ddm.contents("nothing") == []
    assert system.ddm.missing_at("nothing", "A") == []
    system.ddm.freeze(["nothing"])
    system.ddm.cancel([("nothing", "A")])


# --- many datasets in one call


def test_files_go_into_several_datasets_together(system: System) -> None:
    one, two, other = system.store("A", "one", b"1"), system.store("B", "two", b"2"), system.store("A", "3", b"333")
    system.ddm.register({"part": [one, two], "whole": [one], "third": [other, two]})
    assert system.ddm.contents("part") == [("s", "one"), ("s", "two")]
    assert system.ddm.contents("whole") == [("s", "one")]
    assert system.ddm.contents("third") == [("s", "3"), ("s", "two")]
    system.ddm.attach({"whole": [("s", "3")], "fourth": [("s", "one"), ("s", "3")]})
    assert system.ddm.contents("whole") == system.ddm.contents("fourth") == [("s", "3"), ("s", "one")]


@pytest.mark.parametrize("trouble", ["bytes", "frozen", "known", "endpoint", "twice"])
def test_all_are_registered_or_none(system: System, trouble: str) -> None:
    good, bad = system.store("A", "good", b"good"), system.store("A", "bad", b"bad")
    old = system.store("A", "old", b"old")
    system.ddm.register({"frozen": [old]})
    system.ddm.freeze(["frozen"])
    placed = {
        "bytes": {"d": [good], "e": [replace(bad, size_bytes=7)]},
        "frozen": {"d": [good], "frozen": [bad]},
        "known": {"d": [good], "e": [system.store("B", "old", b"other")]},
        "endpoint": {"d": [good], "e": [replace(bad, endpoint="X")]},
        "twice": {"d": [good], "e": [system.store("B", "good", b"other bytes")]},
    }
    with pytest.raises(DDMFatal):
        system.ddm.register(placed[trouble])
    assert system.ddm.contents("d") == system.ddm.contents("e") == []
    assert system.ddm.contents("frozen") == [("s", "old")]
    assert system.ddm.replicas([("s", "good"), ("s", "bad")]) == {}
    assert there(system, "old") == ["A"]


def test_all_are_attached_or_none(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    with pytest.raises(DDMFatal, match="1 files are not in the catalogue"):
        system.ddm.attach({"e": [("s", "one")], "f": [("s", "nothing")]})
    assert system.ddm.contents("e") == []


def test_scopes_are_kept_apart(system: System) -> None:
    one, other = system.store("A", "lfn", b"1", scope="s"), system.store("A", "lfn", b"22", scope="t")
    system.ddm.register({"d": [one, other]})
    assert sorted(system.ddm.contents("d")) == [("s", "lfn"), ("t", "lfn")]
    assert system.ddm.replicas([("t", "lfn")]) == {("t", "lfn"): [other]}
    assert system.ddm.replicas([("s", "lfn"), ("u", "lfn")]) == {("s", "lfn"): [one]}
    system.ddm.freeze(["d"])
    with pytest.raises(DDMFatal, match="frozen, 1 files"):
        system.ddm.register({"d": [one, system.store("A", "lfn", b"333", scope="u")]})


def test_nothing_is_easily_done(system: System) -> None:
    system.ddm.register({})
    system.ddm.attach({})
    system.ddm.freeze([])
    system.ddm.request([], "A")
    assert system.ddm.replicas([]) == {}


def test_several_datasets_are_requested_together(system: System) -> None:
    system.ddm.register({name: [system.store("A", name, name.encode())] for name in ("d", "e", "f")})
    system.ddm.request(["d", "e"], "B")
    system.settle()
    assert sorted(system.calls) == [("d", "B"), ("e", "B")]
    assert [there(system, name) for name in ("d", "e", "f")] == [["A", "B"], ["A", "B"], ["A"]]


def test_one_bad_copy_does_not_hold_up_the_others(system: System) -> None:
    system.ddm.register({name: [system.store("A", name, b"bytes")] for name in ("d", "e", "f")})
    system.path("A", "e").write_bytes(b"trash")
    system.ddm.request(["d", "e", "f"], "B")
    system.settle()
    assert sorted(system.calls) == [("d", "B"), ("f", "B")]
    system.path("A", "e").write_bytes(b"bytes")
    system.settle(5)
    assert sorted(system.calls) == [("d", "B"), ("e", "B"), ("f", "B")]


# --- request


def test_a_requested_dataset_arrives_byte_by_byte_and_calls_back(system: System) -> None:
    content = {f"f{n}": bytes([n]) * 1000 * n for n in range(4)}
    system.ddm.register({"d": [system.store("A", lfn, text) for lfn, text in content.items()]})
    system.ddm.request(["d"], "B")
    assert system.ddm.missing_at("d", "B") == [("s", lfn) for lfn in content]
    assert system.calls == []
    system.settle()
    assert system.ddm.missing_at("d", "B") == []
    assert system.calls == [("d", "B")]
    for lfn, text in content.items():
        assert system.path("B", lfn).read_bytes() == text
        assert there(system, lfn) == ["A", "B"]


def test_what_is_there_already_is_not_copied_and_calls_back_all_the_same(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.ddm.request(["d"], "A")
    system.settle()
    assert system.calls == [("d", "A")]


def test_requests_repeated_do_no_harm(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    for _ in range(3):
        system.ddm.request(["d"], "B")
    system.settle()
    system.ddm.request(["d"], "B")
    system.settle()
    assert set(system.calls) == {("d", "B")}
    assert there(system, "one") == ["A", "B"]


def test_what_comes_later_is_brought_too(system: System) -> None:
    system.ddm.request(["d"], "B")
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.settle()
    assert system.ddm.missing_at("d", "B") == []
    system.ddm.register({"e": [system.store("A", "two", b"2")]})
    system.ddm.attach({"d": [("s", "two")]})
    assert system.ddm.missing_at("d", "B") == [("s", "two")]
    system.calls.clear()
    system.settle()
    assert system.calls == [("d", "B")]
    assert there(system, "two") == ["A", "B"]


def test_a_cancelled_request_brings_nothing_more(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.ddm.request(["d"], "B")
    for _ in range(2):
        system.ddm.cancel([("d", "B")])
    system.ddm.register({"d": [system.store("A", "two", b"2")]})
    system.settle()
    assert system.ddm.missing_at("d", "B") == [("s", "one"), ("s", "two")]
    assert system.calls == []
    system.ddm.request(["d"], "B")
    system.settle()
    assert system.ddm.missing_at("d", "B") == []


def test_several_destinations_do_not_mix(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.ddm.register({"e": [system.store("A", "two", b"2")]})
    system.ddm.request(["d"], "B")
    system.ddm.request(["d"], "C")
    system.ddm.request(["e"], "B")
    system.ddm.cancel([("d", "C")])
    system.settle()
    assert sorted(system.calls) == [("d", "B"), ("e", "B")]
    assert there(system, "one") == there(system, "two") == ["A", "B"]


# --- bad copies


@pytest.mark.parametrize("damage", [b"X23", b"1234", b"", None], ids=["changed", "longer", "empty", "gone"])
def test_a_bad_source_falls_over_to_a_good_one(system: System, damage: bytes | None) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"123")]})
    system.ddm.register({"d": [system.store("B", "one", b"123")]})
    path = system.path("A", "one")
    path.unlink() if damage is None else path.write_bytes(damage)
    system.ddm.request(["d"], "C")
    system.settle()
    assert system.path("C", "one").read_bytes() == b"123"
    assert system.calls == [("d", "C")]


def test_without_a_good_source_nothing_arrives_until_there_is_one(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"123"), system.store("A", "two", b"2")]})
    system.path("A", "one").write_bytes(b"12X")
    system.ddm.request(["d"], "B")
    system.settle()
    assert system.ddm.missing_at("d", "B") == [("s", "one")]
    assert not system.path("B", "one").exists()
    assert [p.name for p in system.path("B", "one").parent.glob(".*")] == [], "no part is left behind"
    assert system.calls == []
    system.store("A", "one", b"123")
    system.settle(300)
    assert system.ddm.missing_at("d", "B") == []
    assert system.calls == [("d", "B")]


@built_in
def test_a_copy_given_up_is_tried_again_when_it_is_requested_again(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"123")]})
    system.path("A", "one").unlink()
    system.ddm.request(["d"], "B")
    for _ in range(3):
        system.settle(43200)
    system.store("A", "one", b"123")
    system.settle(86400)
    assert system.ddm.missing_at("d", "B") == [("s", "one")], "given up after a day"
    system.ddm.request(["d"], "B")
    system.settle()
    assert system.ddm.missing_at("d", "B") == []
    assert system.calls[-1] == ("d", "B")


@built_in
def test_a_copy_made_and_not_recorded_is_made_again(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"123")]})
    system.ddm.request(["d"], "B")
    with monkeypatch.context() as patch:
        patch.setattr(transfers, "save", lambda *_, **__: 1 / 0)
        system.settle()
    assert system.path("B", "one").exists()
    assert system.ddm.missing_at("d", "B") == [("s", "one")]
    system.settle(60)
    assert system.ddm.missing_at("d", "B") == []
    assert system.calls == [("d", "B")]


# --- names


@pytest.mark.parametrize("scope", ["mc", "user.alice", "group.a.b"])
def test_the_place_of_a_file_is_given_by_its_name_alone(system: System, scope: str) -> None:
    replica = system.store("A", "f.root", b"1", scope=scope)
    system.ddm.register({"d": [replica]})
    system.ddm.request(["d"], "B")
    system.settle()
    parts = system.path("B", "f.root", scope=scope).parts
    assert parts[-1] == "f.root"
    assert parts[-3 - len(scope.split(".")) : -3] == tuple(scope.split("."))
    assert system.path("B", "f.root", scope=scope).read_bytes() == b"1"


# --- containers


def test_a_container_has_the_files_of_its_datasets(system: System) -> None:
    one, two, three = (system.store("A", lfn, lfn.encode()) for lfn in ("one", "two", "three"))
    system.ddm.register({"d": [one, two], "e": [two, three], "other": [one]})
    for _ in range(2):
        system.ddm.collect("c", ["d"])
    assert system.ddm.contents("c") == [("s", "one"), ("s", "two")]
    system.ddm.collect("c", ["d", "e"])
    assert system.ddm.contents("c") == [("s", "one"), ("s", "three"), ("s", "two")]
    system.ddm.register({"d": [system.store("B", "four", b"4")]})
    assert ("s", "four") in system.ddm.contents("c"), "what comes later is in it too"


def test_only_known_datasets_are_collected_all_or_none(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    with pytest.raises(DDMUnknown, match="nothing"):
        system.ddm.collect("c", ["d", "nothing"])
    assert system.ddm.contents("c") == []
    system.ddm.collect("c", [])


def test_a_name_is_of_a_dataset_or_of_a_container(system: System) -> None:
    one = system.store("A", "one", b"1")
    system.ddm.register({"d": [one], "e": [one]})
    system.ddm.collect("c", ["d"])
    with pytest.raises(DDMFatal):
        system.ddm.collect("e", ["d"])
    with pytest.raises(DDMFatal):
        system.ddm.register({"c": [one]})
    with pytest.raises(DDMFatal):
        system.ddm.request(["c"], "B")
    assert system.ddm.contents("c") == system.ddm.contents("e") == [("s", "one")]


# --- progress


def test_progress_is_told_of_many_at_once(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1"), system.store("B", "two", b"2")]})
    system.ddm.register({"e": [system.store("A", "three", b"3")]})
    system.ddm.request(["d"], "B")
    system.ddm.request(["e"], "A")
    pairs = [("d", "B"), ("e", "A"), ("e", "C"), ("nothing", "A")]
    found = system.ddm.progress(pairs)
    assert found["d", "B"] == Progress(ProgressState.REPLICATING, 1, 2)
    assert (found["e", "A"].there, found["e", "A"].total) == (1, 1)
    assert [found[pair].state for pair in pairs[2:]] == [ProgressState.GONE] * 2
    system.settle()
    found = system.ddm.progress(pairs)
    assert (found["d", "B"], found["e", "A"]) == (Progress(ProgressState.OK, 2, 2), Progress(ProgressState.OK, 1, 1))
    system.ddm.cancel([("d", "B")])
    assert system.ddm.progress([("d", "B")])["d", "B"].state is ProgressState.GONE
    assert system.ddm.progress([]) == {}


def test_what_is_stuck_says_why_and_goes_on_when_it_can(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"123"), system.store("A", "two", b"2")]})
    system.path("A", "one").unlink()
    system.ddm.request(["d"], "B")
    for _ in range(4):
        system.settle(30)
    found = system.ddm.progress([("d", "B")])["d", "B"]
    assert (found.state, found.there, found.total) == (ProgressState.STUCK, 1, 2)
    assert found.error
    system.store("A", "one", b"123")
    system.settle(400)
    assert system.ddm.progress([("d", "B")])["d", "B"] == Progress(ProgressState.OK, 2, 2)


# --- delete


def test_a_deleted_dataset_takes_the_files_along_that_nobody_else_has(system: System) -> None:
    one, two = system.store("A", "one", b"1"), system.store("A", "two", b"2")
    system.ddm.register({"d": [one, two], "e": [two]})
    system.ddm.request(["d"], "B")
    system.settle()
    for _ in range(2):
        system.ddm.delete(["d"])
    system.settle(1)
    assert system.ddm.contents("d") == []
    assert system.ddm.replicas([("s", "one")]) == {}
    assert not system.path("A", "one").exists() and not system.path("B", "one").exists()
    assert there(system, "two") == ["A", "B"] and system.path("B", "two").read_bytes() == b"2"
    assert system.ddm.progress([("d", "B")])["d", "B"].state is ProgressState.GONE


def test_what_is_deleted_may_come_again_with_other_bytes(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.ddm.delete(["d"])
    system.settle(1)
    again = system.store("A", "one", b"other")
    system.ddm.register({"d": [again]})
    system.settle(1)
    assert system.ddm.replicas([("s", "one")]) == {("s", "one"): [again]}
    assert system.path("A", "one").read_bytes() == b"other"


def test_deleting_a_container_leaves_its_datasets(system: System) -> None:
    system.ddm.register({"d": [system.store("A", "one", b"1")]})
    system.ddm.collect("c", ["d"])
    system.ddm.delete(["c", "nothing"])
    system.settle(1)
    assert (system.ddm.contents("c"), system.ddm.contents("d")) == ([], [("s", "one")])
    assert system.path("A", "one").exists()


# --- names that are none


@pytest.mark.parametrize("lfn", ["..", "../../x", "a/b", "", "a\x00b", "a\nb"], ids=repr)
def test_no_name_leads_out_of_an_endpoint(system: System, lfn: str) -> None:
    replica = replace(system.store("A", "one", b"1"), lfn=lfn)
    with pytest.raises(DDMError):
        system.ddm.register({"d": [replica]})
    assert system.ddm.contents("d") == []
