"""The Rucio back end over a connection that only notes what it is asked: chunks, order, and what is not asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pandaserver.config_rucio import RucioSection
from pandaserver.dataservice.ddm.protocol import Progress, ProgressState
from pandaserver.dataservice.ddm.rucio import RucioDDM
from pandaserver.dataservice.ddm.rucio_rules import progress_of
from pandaserver.dataservice.ddm.storage import Stores, file_path
from pandaserver.errors import DDMError, DDMFatal, DDMUnknown
from pandaserver.model.file import Replica
from pandaserver.model.grid import Endpoint

GUID = "01234567-89ab-4def-8123-456789abcdef"
DISPATCH = "panda.0f5b_dis7"


class Notes:
    """Stands for a connection: answers what a test says, None else, and notes all."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"get_metadata_bulk": [], "list_scopes": ["s", "d", "panda", "mc"]} | answers
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def ask(self, method: str, *told: Any, accept: Any = (), **more: Any) -> Any:
        self.asked.append((method, told, more))
        answer = self.answers.get(method)
        if method == "get_metadata_bulk":
            return [one for one in answer if {"scope": one["scope"], "name": one["name"]} in told[0]]
        return answer(*told) if callable(answer) else answer

    def calls(self, method: str) -> list[tuple[Any, ...]]:
        return [told for name, told, _ in self.asked if name == method]

    def options(self, method: str) -> list[dict[str, Any]]:
        return [more for name, _, more in self.asked if name == method]


@pytest.fixture
def endpoints(tmp_path: Path) -> dict[str, Endpoint]:
    return {name: Endpoint(name=name, site=name, url=f"file://{tmp_path}/{name}") for name in ("BNL_DISK", "UTA")}


Make = Callable[..., tuple[RucioDDM, Notes]]


@pytest.fixture
def make(endpoints: dict[str, Endpoint]) -> Make:
    def made(section: dict[str, Any] | None = None, **answers: Any) -> tuple[RucioDDM, Notes]:
        notes = Notes(**answers)
        told = RucioSection(**({"rses": ("BNL_DISK BNL-DATADISK",)} | (section or {})))
        return RucioDDM(notes, told, lambda: endpoints, Stores()), notes  # type: ignore[arg-type]

    return made


def stored(endpoints: dict[str, Endpoint], lfn: str, *, endpoint: str = "BNL_DISK", guid: str = GUID) -> Replica:
    path = file_path(endpoints[endpoint], "s", lfn)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return Replica(scope="s", lfn=lfn, endpoint=endpoint, guid=guid, size_bytes=0, adler32="00000001")


def rule(**more: Any) -> dict[str, Any]:
    told = {"id": "1", "account": "panda", "rse_expression": "UTA", "state": "OK", "expires_at": None, "error": None}
    return told | {"locks_ok_cnt": 0, "locks_replicating_cnt": 0, "locks_stuck_cnt": 0} | more


def test_files_are_registered_in_chunks_of_500(make: Make, endpoints: dict[str, Endpoint]) -> None:
    ddm, notes = make()
    replicas = [stored(endpoints, f"f{n}") for n in range(1001)]
    ddm.register({"d": replicas})
    added = notes.calls("add_replicas")
    assert [(rse, len(files)) for rse, files in added] == [
        ("BNL-DATADISK", 500),
        ("BNL-DATADISK", 500),
        ("BNL-DATADISK", 1),
    ]
    assert added[0][1][0] == {
        "scope": "s", "name": "f0", "bytes": 0, "adler32": "00000001", "meta": {"guid": GUID.replace("-", "")},
    }  # fmt: skip
    assert [len(told[0][0]["dids"]) for told in notes.calls("attach_dids_to_dids")] == [500, 500, 1]
    assert notes.calls("add_dids") == [([{"scope": "d", "name": "d", "type": "DATASET", "meta": {}}],)]
    assert max(len(told[0]) for told in notes.calls("get_metadata_bulk")) == 500


def test_what_is_no_guid_is_left_out(make: Make, endpoints: dict[str, Endpoint]) -> None:
    ddm, notes = make()
    ddm.register({"d": [stored(endpoints, "f", guid="g")]})
    ((_, (told,)),) = notes.calls("add_replicas")
    assert "meta" not in told


def test_nothing_is_written_when_something_is_wrong(make: Make, endpoints: dict[str, Endpoint]) -> None:
    good, other = stored(endpoints, "good"), {"scope": "s", "name": "good", "bytes": 5, "adler32": "00000001"}
    frozen = {"scope": "d", "name": "d", "did_type": "DATASET", "is_open": False}
    container = frozen | {"did_type": "CONTAINER", "is_open": True}
    cases: list[tuple[dict[str, Any], list[Replica], str]] = [
        ({"get_metadata_bulk": [other]}, [good], "in the catalogue with 5 bytes and adler32 00000001, not 0"),
        ({}, [good, replace(good, lfn="no blanks")], "no name like 'no blanks'"),
        ({}, [good, replace(good, scope="mc.x")], "different places"),
        ({}, [good, replace(good, endpoint="X")], "no endpoint X; known are BNL_DISK, UTA"),
        ({}, [good, replace(good, adler32="00000002")], "announced"),
        ({"get_metadata_bulk": [frozen], "list_files": []}, [good], "dataset d is frozen, 1 files"),
        ({"get_metadata_bulk": [container], "list_files": []}, [good], "d is a container, no dataset"),
    ]
    for answers, replicas, text in cases:
        ddm, notes = make(**answers)
        with pytest.raises(DDMFatal, match=text):
            ddm.register({"d": replicas})
        assert not {name for name, _, _ in notes.asked} & {"add_replicas", "add_dids", "attach_dids_to_dids"}, text


def test_scopes_are_made_only_where_that_is_allowed(make: Make, endpoints: dict[str, Endpoint]) -> None:
    ddm, notes = make(list_scopes=["d"])
    with pytest.raises(DDMError, match="Rucio has no scope s: its operators have to make it"):
        ddm.register({"d": [stored(endpoints, "f")]})
    ddm, notes = make({"make_scopes": True}, list_scopes=["d"])
    for _ in range(2):
        ddm.register({"d": [stored(endpoints, "f")]})
    assert notes.calls("add_scope") == [("panda", "s")] and len(notes.calls("list_scopes")) == 1


def test_datasets_get_the_metadata_of_the_configuration(make: Make) -> None:
    ddm, notes = make({"dataset_metadata": ("project mc23", "datatype two words")})
    ddm.request(["d"], "UTA")
    ((((told,),)),) = notes.calls("add_dids")
    assert told["meta"] == {"project": "mc23", "datatype": "two words"}


def test_rules_of_inputs_end_and_those_of_outputs_last(make: Make) -> None:
    section = {"input_activity": "In", "output_activity": "Out", "input_lifetime_s": 99, "account": "prod"}
    ddm, notes = make(section, add_replication_rule=["id"])
    ddm.request([DISPATCH, "d"], "BNL_DISK")
    bringing, output = notes.options("add_replication_rule")
    assert (bringing["lifetime"], bringing["activity"], output["lifetime"], output["activity"]) == (
        99,
        "In",
        None,
        "Out",
    )
    assert bringing["account"] == output["account"] == "prod" and isinstance(output["meta"], str)
    first = notes.calls("add_replication_rule")[0]
    assert first == ([{"scope": "panda", "name": DISPATCH}], 1, "BNL-DATADISK")
    with pytest.raises(DDMUnknown):
        ddm.request(["d"], "X")


@pytest.mark.parametrize(
    ("found", "options"),
    [
        (rule(), None),
        (rule(state="REPLICATING"), None),
        (rule(expires_at=datetime(2026, 1, 1)), {"lifetime": None}),  # noqa: DTZ001 - as Rucio's client gives it
        (rule(state="STUCK"), {"boost_rule": True}),
        (rule(state="SUSPENDED"), {"boost_rule": True, "state": "STUCK"}),
        (rule(account="others", state="STUCK"), None),
        (rule(rse_expression="BNL-DATADISK", state="STUCK"), None),
    ],
)
def test_a_rule_that_is_there_goes_on(make: Make, found: dict[str, Any], options: dict[str, Any] | None) -> None:
    ddm, notes = make(add_replication_rule=None, list_did_rules=[found])
    ddm.request(["d"], "UTA")
    assert notes.calls("update_replication_rule") == ([("1", options)] if options else [])


def test_cancelling_ends_the_rules_of_this_account_at_this_place_now(make: Make) -> None:
    rules = [rule(), rule(id="2", account="others"), rule(id="3", rse_expression="BNL-DATADISK")]
    ddm, notes = make(list_did_rules=rules)
    ddm.cancel([("d", "UTA"), ("d", "BNL_DISK")])
    assert notes.calls("update_replication_rule") == [("1", {"lifetime": 0}), ("3", {"lifetime": 0})]
    assert notes.calls("delete_replication_rule") == [], "that would take an hour"


@pytest.mark.parametrize(
    ("told", "total", "seen"),
    [
        ({"state": "OK", "locks_ok_cnt": 2}, 2, Progress(ProgressState.OK, 2, 2)),
        ({"state": "OK", "locks_ok_cnt": 0}, 2, Progress(ProgressState.REPLICATING, 0, 2)),
        ({"state": "OK", "locks_ok_cnt": 3}, 2, Progress(ProgressState.OK, 2, 2)),
        ({"state": "OK"}, 0, Progress(ProgressState.OK, 0, 0)),
        ({"state": "REPLICATING", "locks_ok_cnt": 1}, 2, Progress(ProgressState.REPLICATING, 1, 2)),
        ({"state": "INJECT"}, 2, Progress(ProgressState.REPLICATING, 0, 2)),
        ({"state": "WAITING_APPROVAL"}, 2, Progress(ProgressState.REPLICATING, 0, 2)),
        ({"state": "STUCK", "error": "why"}, 2, Progress(ProgressState.STUCK, 0, 2, "why")),
        ({"state": "SUSPENDED"}, 2, Progress(ProgressState.STUCK, 0, 2, "Rucio gives no reason")),
        ({"locks_stuck_cnt": 1, "error": "e" * 900}, 2, Progress(ProgressState.STUCK, 0, 2, "e" * 500)),
    ],
)
def test_progress_counts_files_and_not_words(told: dict[str, Any], total: int, seen: Progress) -> None:
    assert progress_of(rule(**told), total) == seen


def test_a_rule_at_its_end_is_gone(make: Make) -> None:
    soon, before = datetime(2100, 1, 1), datetime(2026, 1, 1) - timedelta(days=1)  # noqa: DTZ001
    for end, state in ((soon, ProgressState.OK), (before, ProgressState.GONE)):
        ddm, _ = make(list_did_rules=[rule(expires_at=end)], get_did={"length": 0})
        assert ddm.progress([("d", "UTA")])["d", "UTA"].state is state
    ddm, _ = make()
    assert ddm.progress([("no such name", "UTA")])["no such name", "UTA"].state is ProgressState.GONE


def test_copies_count_where_they_are_available(make: Make) -> None:
    states = {"UTA": "AVAILABLE", "BNL-DATADISK": "AVAILABLE", "TAPE": "COPYING", "FAR": "AVAILABLE"}
    told = {"scope": "s", "name": "f", "bytes": 3, "adler32": "012d0097", "states": states}
    nowhere = told | {"name": "g", "states": {"UTA": "BAD"}}
    facts = [told | {"guid": GUID.replace("-", "")}]
    ddm, notes = make(list_replicas=[told, nowhere], get_metadata_bulk=facts)
    found = ddm.replicas([("s", "f"), ("s", "g"), ("s", "no blanks")])
    assert [r.endpoint for r in found["s", "f"]] == ["BNL_DISK", "FAR", "UTA"] and len(found) == 1
    assert (found["s", "f"][0].guid, found["s", "f"][0].size_bytes) == (GUID, 3)
    assert notes.calls("list_replicas") == [([{"scope": "s", "name": "f"}, {"scope": "s", "name": "g"}],)]


def test_shared_files_of_outputs_are_held_where_they_are(make: Make) -> None:
    files = [{"scope": "s", "name": "own"}, {"scope": "s", "name": "shared"}]
    parents = {"own": [{"scope": "d", "name": "d"}], "shared": [{"scope": "d", "name": n} for n in ("d", "e")]}
    copies = [
        {"scope": "s", "name": "own", "bytes": 1, "adler32": "1", "states": {"UTA": "AVAILABLE", "FAR": "AVAILABLE"}}
    ]
    ddm, notes = make(
        get_metadata_bulk=[{"scope": "d", "name": "d", "did_type": "DATASET"}],
        list_files=files,
        list_parent_dids=lambda scope, name: parents[name],
        list_replicas=copies,
        list_did_rules=[rule(), rule(id="2", rse_expression="BNL-DATADISK", expires_at=datetime(2100, 1, 1))],  # noqa: DTZ001
        add_replication_rule=["held"],
    )
    ddm.delete(["d"])
    assert notes.calls("add_replication_rule") == [([files[1]], 1, "UTA")], "where it lasts, and no place else"
    assert notes.calls("set_tombstone") == [([files[0] | {"rse": "UTA"}],)], "at our endpoints only"
    order = [name for name, _, _ in notes.asked]
    assert order.index("add_replication_rule") < order.index("update_replication_rule") < order.index("set_tombstone")
    assert order[-2:] == ["detach_dids", "set_metadata"] and notes.calls("set_metadata") == [("d", "d", "lifetime", -1)]
