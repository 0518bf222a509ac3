"""`panda roles`: the table of calls and roles as people read it."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from pandaserver.client.answers import Roles
from pandaserver.client.failures import StrangeAnswer
from pandaserver.client.grid import roles
from pandaserver.client.show import Output
from pandaserver.config import IdentitySection
from pandaserver.web.application import CALLS
from pandaserver.web.identity import Identity

GUS = Identity("/CN=Gus", False, 1, datetime(2030, 1, 1, tzinfo=UTC), ("/cms/higgs/Role=production",))


def told(identity: Identity | None) -> Any:
    """What the server answers."""
    call = next(call for call in CALLS if call.legacy == "getRoles")
    config = SimpleNamespace(identity=IdentitySection(producers=("/cms/*/Role=production",)))
    return json.loads(
        json.dumps(call.handler(SimpleNamespace(rooms=SimpleNamespace(config=config), identity=identity)))
    )


def shown(capsys: pytest.CaptureFixture[str], identity: Identity | None, *, as_json: bool = False) -> str:
    client = SimpleNamespace(roles=lambda: Roles.from_wire(told(identity)))
    roles(client, argparse.Namespace(), Output(as_json=as_json))  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_the_table_is_shown_with_what_the_caller_may(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, GUS).splitlines()
    rows = {line.split()[0]: line.split() for line in lines if "/" in line}
    assert rows["job/submit"] == ["job/submit", "submitJobs", "-", "own", "vo", "-", "-", "-", "vo"]
    assert rows["job/kill"][-1] == "own" and rows["pilot/acquire_jobs"][-1] == "no"
    assert set(rows) >= {call.path for call in CALLS}
    assert "you are /CN=Gus: anyone, user, production for cms/higgs" in lines[-1]


def test_strangers_see_what_they_may(capsys: pytest.CaptureFixture[str]) -> None:
    assert "you are nobody known: anyone" in shown(capsys, None)


def test_json_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, GUS, as_json=True))
    assert document["roles"]["production"] == ["cms/higgs"]
    kill = next(row for row in document["calls"] if row["call"] == "job/kill")
    assert kill == {
        "call": "job/kill",
        "legacy": "killJobs",
        "allows": {"user": "own", "operator": "all"},
        "you": "own",
    }


@pytest.mark.parametrize("answer", [None, [], {}, {"calls": [], "you": None}, {"calls": [{}], "you": {"roles": {}}}])
def test_strange_answers_are_named(answer: Any) -> None:
    with pytest.raises(StrangeAnswer, match="get_roles"):
        Roles.from_wire(answer)
