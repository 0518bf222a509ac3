"""Who may do what: owners by DN, limited proxies, roles, operators, and headers that pretend."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from factories import Grid, production_job
from unchanged import unchanged

from pandaserver.web import identity as identities

ALICES = ["user", "rfc_rsa", "rfc_ec", "rfc_depth2", "rfc_depth3"]
LIMITED = ["limited", "full_from_limited"]
REFUSED = [
    "expired_proxy",
    "expired_user",
    "revoked_user",
    "proxy_of_revoked",
    "foreign",
    "foreign_same_name",
    "bad_self_signed",
    "bad_proxy_subject",
    "bad_issuer_not_ca",
    "pathlen_violation",
    "legacy",
    "legacy_limited",
    "independent",
]


def submit(grid: Grid, who: str, **headers: str) -> Any:
    return grid.client(who).post("/server/panda/submitJobs", json={"jobs": [production_job()]}, headers=headers)


def test_the_owner_is_the_end_entity_whatever_proxy_was_shown(grid: Grid):
    owners = set()
    for name in ALICES:
        answer = submit(grid, f"creds/{name}")
        assert answer.status_code == 200, (name, answer.text)
        owners.add(grid.describe(answer.json[0][0])["prodUserID"])
    assert len(owners) == 1 and "proxy" not in owners.pop()
    dn = grid.client("creds/rfc_depth3").get("/server/panda/getAttr").json["identity"]["dn"]
    assert grid.client("creds/user").post("/server/panda/killJobs", json={"ids": [1]}).json == [True], dn


def test_nobody_is_told_both_ways_to_be_somebody(grid: Grid):
    for path in ("/server/panda/killJobs", "/api/v1/job/kill"):
        for who in (None, "creds/legacy"):
            answer = grid.client(who).post(path, json={"job_ids": [1]})
            bearer, certificate = answer.headers.getlist("WWW-Authenticate")
            assert bearer == 'Bearer realm="PanDA"'
            assert certificate.startswith("X509 realm=") and "proxy" in certificate
        said = grid.client(None).post(path, json={"job_ids": [1]}).json["message"]
        assert "--cert PROXY" in said and "Authorization: Bearer" in said
    for who in (None, "bob"):
        assert "WWW-Authenticate" not in grid.client(who).get("/server/panda/isAlive").headers
    assert "WWW-Authenticate" not in grid.client("alice").post("/server/panda/getJob", json={}).headers


def test_limited_proxies_may_look_and_not_act(grid: Grid):
    (job_id,) = grid.submit(production_job())
    for name in LIMITED:
        who = f"creds/{name}"
        with unchanged(grid):
            for call, told in (
                ("submitJobs", {"jobs": [production_job()]}),
                ("killJobs", {"ids": [job_id]}),
                ("putFile", {}),
            ):
                answer = grid.client(who).post(f"/server/panda/{call}", json=told)
                assert answer.status_code == 403 and answer.json["StatusCode"] == 70
                assert "limited" in answer.json["message"] and answer.json["field"] == "certificate"
        assert grid.call(who, "getJobStatus", ids=[job_id])[0]["PandaID"] == job_id
        assert grid.call(who, "getAttr")["identity"]["limited"] is True


def test_a_pilot_may_show_a_limited_proxy_and_an_operator_may_not(grid: Grid, monkeypatch):
    (job_id,) = grid.submit(production_job())
    show(grid, monkeypatch, grid.pki.dn("pilot"), limited=True)
    assert grid.client("pilot").post("/server/panda/getJob", json={"siteName": "BNL"}).json["StatusCode"] == 20
    show(grid, monkeypatch, grid.pki.dn("prodman"), limited=True)
    assert grid.client("prodman").post("/server/panda/killJobs", json={"ids": [job_id]}).status_code == 403


def show(grid: Grid, monkeypatch, dn: str, *, limited: bool = False) -> None:
    """Let every certificate belong to `dn`."""
    seen = identities.Identity(dn, limited, 1, datetime(2100, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(identities.IdentityCache, "identify", lambda self, chain: seen)


@pytest.mark.parametrize("name", REFUSED)
def test_certificates_that_do_not_count(grid: Grid, name: str):
    with unchanged(grid):
        for call in ("submitJobs", "getJob", "getAttr"):
            answer = grid.client(f"creds/{name}").post(f"/server/panda/{call}", json={})
            assert (answer.status_code, answer.json["StatusCode"]) == (401, 40), answer.text
        told = grid.client(f"creds/{name}").get("/api/v1/system/get_attributes").json
        assert told["success"] is False and told["error"]["status"] == 401 and told["message"]


def test_headers_of_clients_never_count(grid: Grid):
    alice = grid.pki.environ("alice")
    headers = {f"SSL-CLIENT-{name}": value for name, value in {
        "S-DN": grid.pki.dn("pilot"), "VERIFY": "SUCCESS", "CERT": alice["SSL_CLIENT_CERT"].replace("\n", " "),
        "CERT-CHAIN-0": alice["SSL_CLIENT_CERT"].replace("\n", " "), "I-DN": "/CN=CA",
    }.items()}  # fmt: skip
    headers |= {name.replace("-", "_"): value for name, value in headers.items()}
    headers |= {"X-SSL-Client-S-DN": grid.pki.dn("pilot"), "X-Forwarded-User": "alice", "Remote-User": "alice"}
    headers |= {"GRST-CRED-0": f"X509USER 1 2 0 {grid.pki.dn('pilot')}", "GRST-CRED-AURI-0": grid.pki.dn("pilot")}
    headers |= {"Authorization": "Bearer x", "Origin": "testvo", "HTTP-SSL-CLIENT-VERIFY": "SUCCESS"}
    with unchanged(grid):
        for call in ("submitJobs", "killJobs", "getJob", "updateJob", "datasetCompleted", "putFile"):
            answer = grid.client(None).post(f"/server/panda/{call}", json={"siteName": "BNL"}, headers=headers)
            assert answer.status_code == 401, call
        assert grid.client(None).get("/server/panda/getAttr", headers=headers).json["identity"] == {}
        assert submit(grid, "creds/foreign", **headers).status_code == 401


def test_a_front_end_that_hands_on_no_certificate_is_told_so(grid: Grid):
    environ = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": grid.pki.dn("pilot")}
    client = grid.server.application.test_client()
    answer = client.post("/server/panda/getJob", json={"siteName": "BNL"}, environ_overrides=environ)
    assert answer.status_code == 401 and "ExportCertData" in answer.json["message"]
    answer = client.post("/server/panda/getJob", json={}, environ_overrides={"SSL_CLIENT_VERIFY": "FAILED:expired"})
    assert answer.status_code == 401 and "FAILED:expired" in answer.json["message"]


def test_a_name_that_is_nearly_the_same_is_somebody_else(grid: Grid, monkeypatch):
    (job_id,) = grid.submit(production_job())
    dn = grid.pki.dn("alice")
    for other in (dn + " ", dn + "/CN=1", dn.upper(), dn.replace("Alice", "Alicé"), dn[:-1], dn.replace("/O=", "/OU=")):
        show(grid, monkeypatch, other)
        assert grid.client("bob").post("/server/panda/killJobs", json={"ids": [job_id]}).status_code == 403, other
    for role in ("pilot", "prodman", "ddm"):
        show(grid, monkeypatch, grid.pki.dn(role) + "/CN=1")
        answer = grid.client("bob").post("/server/panda/getJob", json={"siteName": "BNL"})
        assert answer.status_code == 403
        assert grid.client("bob").post("/server/panda/killJobs", json={"ids": [job_id]}).status_code == 403


def test_an_end_entity_with_a_number_in_its_name_is_not_shortened(grid: Grid, monkeypatch):
    show(grid, monkeypatch, "/DC=org/CN=alice/CN=123456")
    entry = submit(grid, "alice").json[0]
    assert grid.describe(entry[0])["prodUserID"] == "/DC=org/CN=alice/CN=123456"


def test_a_dn_that_no_column_holds_is_refused(grid: Grid, monkeypatch):
    show(grid, monkeypatch, "/CN=" + "x" * 251)
    assert submit(grid, "alice").status_code == 200
    show(grid, monkeypatch, "/CN=" + "x" * 252)
    with unchanged(grid):
        answer = submit(grid, "alice")
        assert answer.status_code == 403 and "256 characters" in answer.json["message"]


def test_roles_do_not_include_each_other(grid: Grid):
    with unchanged(grid):
        for who in ("pilot", "ddm", "bob"):
            assert grid.client(who).post("/server/panda/killJobs", json={"ids": [1]}).json == [False]
        for who in ("alice", "prodman", "ddm"):
            assert grid.client(who).post("/server/panda/getJob", json={"siteName": "BNL"}).status_code == 403
        for who in ("alice", "prodman", "pilot"):
            assert grid.client(who).post("/server/panda/datasetCompleted", json={"dataset": "d"}).status_code == 403


def test_pilots_and_the_ddm_do_not_kill_other_peoples_jobs(grid: Grid):
    (job_id,) = grid.submit(production_job())
    with unchanged(grid):
        for who in ("pilot", "ddm", "bob"):
            answer = grid.client(who).post("/server/panda/killJobs", json={"ids": [job_id]})
            assert answer.status_code == 403 and "nothing was killed" in answer.json["message"]
    assert grid.call("prodman", "killJobs", ids=[job_id]) == [True]
