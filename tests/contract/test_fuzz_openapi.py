"""The OpenAPI document taken at its word: what it allows and what it does not, asked by everybody in turn.

PANDA_FUZZ says how many requests, about; PANDA_FUZZ_SEED where the chance begins.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from contract.test_fuzz_requests import Watch, fuzzed, memory_mb  # noqa: F401 - a fixture
from factories import Grid
from flask import Response
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

COUNT = int(os.environ.get("PANDA_FUZZ", "900"))
SEED = int(os.environ.get("PANDA_FUZZ_SEED", "1"))
MOST_GROWTH_MB = 40  # of the process, tools and all, after the first fifth
WHO = (None, "alice", "pilot", "ddm", "creds/limited")
DOCUMENT = "/api/v1/openapi.json"
CHECKS: list[Any] = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


def with_names(told: Any, job: dict[str, Any]) -> Any:
    """Put names into a document that exist on this server, or chance would never reach what is behind them."""
    names: dict[str, list[Any]] = {
        "computingSite": ["BNL", "UTA"],
        "siteName": ["BNL", "UTA"],
        "queue": ["BNL", "UTA"],
        "dataset": ["mc.test.evnt", "no.such"],
        "prodSourceLabel": ["managed", "user", ""],
        "job_id": [1, 2, 77],
        "job_ids": [[], [1, 2], [77]],
        "jobId": [job["PandaID"], 77],
        "jobToken": [job["jobToken"]],
        "attemptNr": [1],
    }
    if isinstance(told, list):
        return [with_names(each, job) for each in told]
    if not isinstance(told, dict):
        return told
    changed = {name: value if name == "responses" else with_names(value, job) for name, value in told.items()}
    if "schema" in told and told.get("name") in names:
        changed["schema"] = {"enum": names[told["name"]]}
    for name in names.keys() & changed.get("properties", {}).keys():
        changed["properties"] |= {name: {"enum": names[name]}}
    return changed


def as_somebody(grid: Grid, who: str | None, document: str) -> Callable[..., Any]:
    """The application as one client sees it, whose certificate the front end has verified."""
    shown = grid.pki.environ(who)

    def application(environ: Any, start: Any) -> Any:
        if environ["PATH_INFO"] == DOCUMENT:
            return Response(document, mimetype="application/json")(environ, start)
        return grid.server.application(environ | shown, start)

    return application


def operations(grid: Grid) -> Iterator[Any]:
    """Every operation as each client sees it."""
    told = grid.client(None).get(DOCUMENT).json
    paths = with_names(told["paths"], grid.get_job("BNL"))
    jobs = paths["/api/v1/job/submit"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    jobs["jobs"] = jobs["jobs"]["anyOf"][0]  # JSON text is hardly found by chance
    document = json.dumps(told | {"paths": paths})
    for who in WHO:
        schema = schemathesis.openapi.from_wsgi(DOCUMENT, as_somebody(grid, who, document))
        yield from (result.ok() for result in schema.get_all_operations())


class Asked:
    """Sends requests, and sees what becomes of them."""

    def __init__(self, grid: Grid) -> None:
        self.grid, self.watch, self.counts = grid, Watch(grid), Counter[str]()
        self.files = self.watch.traces()[1]

    def ask(self, case: Case[Any], mode: GenerationMode) -> None:
        answer = case.call()
        case.validate_response(answer, checks=CHECKS)
        refused = self._is_refused(answer)
        committed, files = self.watch.traces()
        assert not (refused and (committed or files != self.files)), (case.as_curl_command(), answer.text, committed)
        self.files = files
        self.counts["requests"] += 1
        self.counts[f"{mode.value} {'refused' if refused else 'done'}"] += 1
        if committed:
            self.counts["changed something"] += 1
        if self.counts["requests"] % 5000 == 0:
            self.grid.work()
            self.watch.traces()

    def _is_refused(self, answer: Any) -> bool:
        if answer.status_code != 200 or "json" not in answer.headers["content-type"][0]:
            return bool(answer.status_code != 200)
        return json.loads(answer.text)["success"] is False


def try_out(asked: Asked, operation: Any, mode: GenerationMode, times: int) -> None:
    """Send that many requests to one operation, all as the document says or none."""

    @seed(SEED + asked.counts["requests"])
    @settings(
        max_examples=times,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        asked.ask(case, mode)

    ask()


def try_all(asked: Asked, operations: Sequence[Any], times: int) -> None:
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        for operation in operations:
            nothing_wrong = (Unsatisfiable,) if mode is GenerationMode.NEGATIVE else ()  # of what takes nothing
            with suppress(*nothing_wrong):
                try_out(asked, operation, mode, times)


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_document_is_true(fuzzed: Grid) -> None:  # noqa: F811
    asked = Asked(fuzzed)
    every = list(operations(fuzzed))
    times = max(1, COUNT // (2 * len(every)))
    try_all(asked, every, times // 5 or 1)  # what the tools remember of an operation they know then
    early_mb = memory_mb()
    try_all(asked, every, times - times // 5)
    growth_mb = memory_mb() - early_mb
    print(f"\n{len(every)} operations by {len(WHO)} clients: {dict(asked.counts)}; memory grew by {growth_mb:.1f} MB")
    assert growth_mb < MOST_GROWTH_MB
    assert fuzzed.client(None).get("/server/panda/isAlive").text == "alive=yes"
    counts = asked.counts
    assert counts["positive done"] > counts["requests"] // 20 and counts["changed something"], "some get through"
    assert counts["negative refused"] > counts["negative done"], "and most of what is wrong does not"
