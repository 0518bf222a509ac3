"""What happens in the order in which nobody expects it."""

from __future__ import annotations

from collections.abc import Iterable

import factories as f
import pytest
from factories import Grid


@pytest.mark.parametrize("outcome", ["finished", "failed"])
def test_outputs_that_arrive_before_the_adder_is_done_are_not_forgotten(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    (job_id,) = grid.submit(f.production_job(computingSite="UTA", maxAttempt=1), who="prodman")
    grid.work()
    grid.run_job(grid.get_job("UTA"), outcome=outcome)
    ddm = grid.server.rooms.data.ddm
    request = ddm.request

    def request_while_all_else_goes_on(datasets: Iterable[str], endpoint: str) -> None:
        request(datasets, endpoint)
        grid.work()  # copies, callback and finisher overtake the adder

    monkeypatch.setattr(ddm, "request", request_while_all_else_goes_on)
    grid.work()
    assert grid.state(job_id) == outcome
    made = [x for x in grid.describe(job_id)["Files"] if x["type"] == "log" or outcome == "finished"]
    assert {x["status"] for x in made} == {"ready"}
