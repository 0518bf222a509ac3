"""Users who may not submit any more."""

from __future__ import annotations

import factories as f
from factories import Grid

from pandaserver.taskbuffer import users


def test_a_disabled_user_submits_nothing(grid: Grid) -> None:
    grid.submit(f.analysis_job())
    dn = grid.pki.dn("alice")
    assert grid.buffer.run(lambda c: users.set_enabled(c, dn, False))
    answer = grid.client("alice").post("/server/panda/submitJobs", json={"jobs": [f.analysis_job()]})
    assert answer.status_code == 403
    assert "disabled" in answer.json["message"] and answer.json["value"] == dn
    assert grid.buffer.run(lambda c: users.set_enabled(c, dn, True))
    assert grid.submit(f.analysis_job())


def test_nobody_unknown_is_enabled_or_disabled(grid: Grid) -> None:
    assert not grid.buffer.run(lambda c: users.set_enabled(c, "/CN=nobody", False))
