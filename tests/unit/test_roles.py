"""Who has which role, for which jobs, and what that is good for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from factories import new_job
from hypothesis import given
from hypothesis import strategies as st

from pandaserver.config import IdentitySection, is_dn, load
from pandaserver.errors import ConfigError, NotAllowed, NotAuthenticated
from pandaserver.model.attempt import ClaimRequest, PilotReport
from pandaserver.web.access import as_produced, check_access, check_token, table, within
from pandaserver.web.application import CALLS
from pandaserver.web.identity import Identity
from pandaserver.web.roles import EVERYTHING, Permit, Reach, Role, Scope, permit, roles_of, scopes_of

ALICE, PILOT, BOSS, MOVER = (f"/DC=org/CN={name}" for name in ("Alice", "Robot: Pilot", "Boss", "Mover"))
CONFIGURED = IdentitySection(
    pilots=(PILOT, "/*/Role=pilot"),
    operators=(BOSS, "/atlas/Role=operator"),
    ddm=(MOVER,),
    producers=(BOSS, "/atlas/Role=production", "/atlas/*/Role=production"),
)
BY_PATH = {call.path: call for call in CALLS}


def somebody(dn: str = ALICE, *fqans: str, limited: bool = False) -> Identity:
    return Identity(dn=dn, limited=limited, depth=1, not_after=datetime(2030, 1, 1, tzinfo=UTC), fqans=fqans)


# --- who has a role


@pytest.mark.parametrize(
    ("identity", "role", "scopes"),
    [
        (somebody(), Role.USER, [""]),
        (somebody(), Role.PILOT, []),
        (somebody(), Role.OPERATOR, []),
        (somebody(), Role.DDM, []),
        (somebody(), Role.PRODUCTION, []),
        (somebody(PILOT), Role.PILOT, [""]),
        (somebody(PILOT, "/atlas/Role=pilot"), Role.PILOT, [""]),
        (somebody(ALICE, "/atlas/Role=pilot"), Role.PILOT, ["atlas"]),
        (somebody(ALICE, "/atlas/Role=pilot/Capability=NULL"), Role.PILOT, ["atlas"]),
        (somebody(ALICE, "/cms/Role=pilot", "/atlas/Role=pilot"), Role.PILOT, ["cms", "atlas"]),
        (somebody(ALICE, "/atlas/Role=NULL", "/atlas"), Role.PILOT, []),
        (somebody(ALICE, "/atlas/Role=pilots"), Role.PILOT, []),
        (somebody(ALICE, "/atlas/Role=production"), Role.PRODUCTION, ["atlas"]),
        (somebody(ALICE, "/atlas/higgs/Role=production"), Role.PRODUCTION, ["atlas/higgs"]),
        (somebody(ALICE, "/atlas/phys/higgs/Role=production"), Role.PRODUCTION, ["atlas/phys/higgs"]),
        (somebody(ALICE, "/cms/Role=production"), Role.PRODUCTION, []),
        (somebody(BOSS), Role.OPERATOR, [""]),
        (somebody(BOSS, limited=True), Role.OPERATOR, []),
        (somebody(ALICE, "/atlas/Role=operator"), Role.OPERATOR, [""]),
        (somebody(MOVER), Role.DDM, [""]),
        (somebody(PILOT.lower()), Role.PILOT, []),
        (somebody(f"{PILOT}/CN=1"), Role.PILOT, []),
    ],
)
def test_scopes(identity: Identity, role: Role, scopes: list[str]) -> None:
    assert [str(scope) for scope in scopes_of(identity, role, CONFIGURED)] == [scope or "all" for scope in scopes]


def test_a_dn_with_characters_of_patterns_is_no_pattern() -> None:
    configured = IdentitySection(pilots=("/DC=org/CN=Robot *", "/DC=org/CN=[ab]"))
    assert not scopes_of(somebody("/DC=org/CN=Robot 1"), Role.PILOT, configured)
    assert not scopes_of(somebody("/DC=org/CN=a"), Role.PILOT, configured)
    assert scopes_of(somebody("/DC=org/CN=Robot *"), Role.PILOT, configured) == (EVERYTHING,)


def test_an_attribute_that_looks_like_a_dn_is_not_taken_for_one() -> None:
    evil = somebody(ALICE, PILOT)
    assert not scopes_of(evil, Role.PILOT, IdentitySection(pilots=(PILOT,)))
    assert not scopes_of(somebody("/atlas/Role=pilot"), Role.PILOT, IdentitySection(pilots=("/atlas/Role=pilot",)))


def test_users_may_be_those_of_a_vo() -> None:
    configured = IdentitySection(users=("/atlas", "/atlas/*", BOSS))
    for fqan in ("/atlas", "/atlas/Role=NULL", "/atlas/higgs", "/atlas/Role=production"):
        assert scopes_of(somebody(ALICE, fqan), Role.USER, configured) == (EVERYTHING,)
    assert scopes_of(somebody(BOSS), Role.USER, configured)
    for fqans in ((), ("/cms",), ("/atlasx",)):
        assert not scopes_of(somebody(ALICE, *fqans), Role.USER, configured)
    assert permit(BY_PATH["job/submit"].allows, somebody(), configured) is None


def test_no_producers_named_means_everybody() -> None:
    assert scopes_of(somebody(), Role.PRODUCTION, IdentitySection()) == (EVERYTHING,)


@pytest.mark.parametrize(
    ("fqan", "entry", "scope"),
    [
        ("/atlas", "/atlas", Scope("atlas")),
        ("/atlas/Role=pilot", "/atlas/Role=pilot", Scope("atlas")),
        ("/atlas/a/b/Role=x/Capability=NULL", "/atlas/a/b/Role=x", Scope("atlas", "a/b")),
        ("/atlas/Role=NULL/Capability=NULL", "/atlas", Scope("atlas")),
    ],
)
def test_the_scope_of_an_attribute(fqan: str, entry: str, scope: Scope) -> None:
    assert scopes_of(somebody(ALICE, fqan), Role.PILOT, IdentitySection(pilots=(entry,))) == (scope,)


@pytest.mark.parametrize("fqan", ["", "/", "atlas", "//atlas", "/atlas/Role=a/b", "/atlas/../cms", "/atlas\n", "/a b"])
def test_what_is_no_attribute_gives_nothing(fqan: str) -> None:
    assert not scopes_of(somebody(ALICE, fqan), Role.PILOT, IdentitySection(pilots=("/*", "/*/Role=*")))


def test_all_roles_of_somebody() -> None:
    assert roles_of(None, CONFIGURED) == {Role.ANYONE: (EVERYTHING,)}
    assert set(roles_of(somebody(BOSS), CONFIGURED)) == {Role.ANYONE, Role.USER, Role.PRODUCTION, Role.OPERATOR}


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=3))
def test_any_attribute_gives_no_role_that_it_does_not_name(dn: str, fqans: list[str]) -> None:
    identity = somebody(dn, *fqans)
    for role in (Role.PILOT, Role.OPERATOR, Role.DDM, Role.PRODUCTION):
        if scopes_of(identity, role, CONFIGURED):
            assert dn in (PILOT, BOSS, MOVER) or any("/Role=" in fqan for fqan in fqans)


# --- what a role is good for


@pytest.mark.parametrize(
    ("path", "identity", "expected"),
    [
        ("job/get_description", None, (Role.ANYONE, Reach.ALL)),
        ("job/submit", None, None),
        ("job/submit", somebody(), (Role.USER, Reach.OWN)),
        ("job/submit", somebody(limited=True), None),
        ("job/submit", somebody(BOSS, limited=True), None),
        ("job/submit", somebody(BOSS), (Role.PRODUCTION, Reach.SCOPE)),
        ("job/kill", somebody(), (Role.USER, Reach.OWN)),
        ("job/kill", somebody(BOSS), (Role.OPERATOR, Reach.ALL)),
        ("job/kill", somebody(BOSS, limited=True), None),
        ("file_server/upload_cache_file", somebody(limited=True), None),
        ("pilot/acquire_jobs", somebody(), None),
        ("pilot/acquire_jobs", somebody(PILOT), (Role.PILOT, Reach.SCOPE)),
        ("pilot/acquire_jobs", somebody(PILOT, limited=True), (Role.PILOT, Reach.SCOPE)),
        ("pilot/update_job", somebody(ALICE, "/cms/Role=pilot"), (Role.PILOT, Reach.SCOPE)),
        ("pilot/update_job", somebody(BOSS), None),
        ("data/dataset_completed", somebody(MOVER), (Role.DDM, Reach.ALL)),
        ("data/dataset_completed", somebody(BOSS), None),
    ],
)
def test_permits(path: str, identity: Identity | None, expected: Any) -> None:
    found = permit(BY_PATH[path].allows, identity, CONFIGURED)
    assert (found and (found.role, found.reach)) == expected
    if expected is None:
        with pytest.raises(NotAuthenticated if identity is None else NotAllowed):
            check_access(BY_PATH[path], identity, CONFIGURED)
    else:
        assert check_access(BY_PATH[path], identity, CONFIGURED) == found


@pytest.mark.parametrize("path", ["pilot/acquire_jobs", "pilot/update_job", "pilot/update_jobs_bulk"])
def test_users_are_pilots_of_their_own_only_where_that_is_wanted(path: str) -> None:
    wanted = replace(CONFIGURED, user_pilots=True)
    for limited in (False, True):  # what worker nodes hold
        found = permit(BY_PATH[path].allows, somebody(limited=limited), wanted)
        assert found == Permit(Role.USER, Reach.OWN) and not found.unbounded
    assert permit(BY_PATH[path].allows, somebody(PILOT), wanted) == Permit(Role.PILOT, Reach.SCOPE)
    assert permit(BY_PATH["job/submit"].allows, somebody(limited=True), wanted) is None
    assert permit(BY_PATH[path].allows, somebody(), replace(wanted, users=("/atlas",))) is None


def test_a_refusal_says_what_to_do() -> None:
    cases = {
        "limited": ("job/submit", somebody(limited=True), "use a full proxy of"),
        "role": ("pilot/acquire_jobs", somebody(ALICE, "/cms"), "with attributes /cms is no pilot identity"),
        "operator": ("job/kill", somebody(BOSS, limited=True), "use a full proxy of"),
    }
    for path, identity, words in cases.values():
        with pytest.raises(NotAllowed) as caught:
            check_access(BY_PATH[path], identity, CONFIGURED)
        assert words in caught.value.message and caught.value.value == identity.dn


def test_the_table_has_every_call_and_only_known_words() -> None:
    rows = table(CALLS)
    assert [row["call"] for row in rows] == [call.path for call in CALLS]
    for row in rows:
        assert row["allows"] and set(row["allows"]) <= {role.value for role in Role}
        assert set(row["allows"].values()) <= {str(reach) for reach in Reach}
        assert not (row["writes"] and "anyone" in row["allows"]), "strangers change nothing"


# --- production


def test_a_producer_of_a_vo_submits_for_it_only() -> None:
    job, scopes = new_job(label="managed", vo="atlas", working_group="top"), (Scope("atlas"),)
    assert as_produced(job, scopes, ALICE) is job
    for vo in ("", "cms"):
        with pytest.raises(NotAllowed) as caught:
            as_produced(replace(job, vo=vo), scopes, ALICE)
        assert "of VO" in caught.value.message and caught.value.field == "prodSourceLabel"


def test_a_producer_of_a_group_submits_in_its_name() -> None:
    scopes = (Scope("atlas", "higgs"), Scope("atlas", "top"))
    job = new_job(label="managed", vo="atlas")
    assert as_produced(job, scopes, ALICE).working_group == "higgs"
    assert as_produced(replace(job, working_group="top"), scopes, ALICE).working_group == "top"
    for other in ({"working_group": "exotics"}, {"vo": "cms"}, {"vo": "cms", "working_group": "higgs"}):
        with pytest.raises(NotAllowed):
            as_produced(replace(job, **other), scopes, ALICE)
    with pytest.raises(NotAllowed):
        as_produced(job, (), ALICE)


# --- pilots


def request(**more: Any) -> ClaimRequest:
    return ClaimRequest(queue="BNL", pilot=ALICE, **({"labels": None} | more))


def test_a_pilot_of_the_installation_gets_what_it_asks_for() -> None:
    asked = request(vo="cms", owner=BOSS, working_group="top")
    assert within(asked, Permit(Role.PILOT, Reach.SCOPE), PILOT) == asked


def test_a_pilot_of_a_vo_gets_its_jobs_only() -> None:
    of_vo = Permit(Role.PILOT, Reach.SCOPE, (Scope("atlas"), Scope("cms", "top")))
    assert within(request(), of_vo, ALICE).vo == "atlas"
    assert within(request(vo="atlas", working_group="x"), of_vo, ALICE).working_group == "x"
    narrowed = within(request(vo="cms"), of_vo, ALICE)
    assert (narrowed.vo, narrowed.working_group) == ("cms", "top")
    for asked in ({"vo": "lhcb"}, {"vo": "cms", "working_group": "x"}):
        with pytest.raises(NotAllowed) as caught:
            within(request(**asked), of_vo, ALICE)
        assert "atlas, cms/top" in caught.value.message


def test_a_user_gets_own_jobs_only() -> None:
    own = Permit(Role.USER, Reach.OWN)
    assert within(request(), own, ALICE).owner == ALICE
    assert within(request(owner=ALICE, vo="cms"), own, ALICE).vo == "cms"
    with pytest.raises(NotAllowed):
        within(request(owner=BOSS), own, ALICE)


def test_who_is_no_pilot_of_the_installation_needs_the_token() -> None:
    report = PilotReport(job_id=1, attempt=1, token=None, pilot=ALICE, state="running")
    check_token(report, Permit(Role.PILOT, Reach.SCOPE))
    for permitted in (Permit(Role.USER, Reach.OWN), Permit(Role.PILOT, Reach.SCOPE, (Scope("atlas"),))):
        check_token(replace(report, token="x"), permitted)
        with pytest.raises(NotAllowed, match="jobToken"):
            check_token(report, permitted)


# --- the configuration


def written(tmp_path: Path, key: str, entry: str) -> Path:
    path = tmp_path / "panda_server.cfg"
    text = "[database]\nwrite = sqlite:///x.db\n[cache]\ndirectory = c\n[grid]\nsites = s.cfg\n"
    path.write_text(f"{text}[identity]\n{key} =\n    {entry}\n")
    return path


@pytest.mark.parametrize("key", ["pilots", "operators", "ddm", "producers", "users"])
def test_entries_are_dns_or_attributes(tmp_path: Path, key: str) -> None:
    for entry in ("/DC=org/CN=A, B/O=x y", "/atlas", "/atlas/Role=pilot", "/*/Role=pilot", "/atlas/h-1.x/*/Role=p*"):
        assert getattr(load(written(tmp_path, key, entry)).identity, key) == (entry,)
    for entry in ("atlas", "CN=Alice", "/atlas/Role=", "/atlas/Role=a/b", "/", "/at las", "//", "*"):
        with pytest.raises(ConfigError, match="one per line"):
            load(written(tmp_path, key, entry))


def test_dns_and_attributes_are_told_apart() -> None:
    assert is_dn("/DC=org/CN=x") and is_dn("/CN=/atlas/Role=pilot")
    assert not is_dn("/atlas/Role=pilot") and not is_dn("/atlas")
