"""Duties that clear away: lanes nobody is in, datasets that were left open."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from factories import Grid, production_job

from pandaserver.taskbuffer import links, schema

DAY = 24 * 3600


def count(grid: Grid, table: sa.Table) -> int:
    return grid.buffer.read(lambda c: int(c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()))


def statuses(grid: Grid) -> set[str]:
    match = schema.datasets.c.type == "sub"
    return grid.buffer.read(lambda c: set(c.execute(sa.select(schema.datasets.c.status).where(match)).scalars()))


def test_lanes_go_when_nobody_is_in_them(grid: Grid) -> None:
    (job_id,) = grid.submit(production_job(computingSite="BNL"))
    grid.work()
    grid.watch(DAY + 60)
    assert (grid.state(job_id), count(grid, schema.lanes)) == ("activated", 1)
    grid.run_job(grid.get_job("BNL"))
    grid.watch(3600)
    assert (grid.state(job_id), count(grid, schema.lanes)) == ("finished", 0)
    (other,) = grid.submit(production_job(2, computingSite="BNL"))
    grid.work()
    assert grid.get_job("BNL")["PandaID"] == other


def test_a_dataset_whose_closing_was_forgotten_is_closed(grid: Grid) -> None:
    grid.submit(production_job(computingSite="BNL"))
    grid.work()
    grid.run_job(grid.get_job("BNL"))
    grid.work()
    assert statuses(grid) == {"completed"}
    reopened = sa.update(schema.datasets).values(status="running", modified_at=grid.clock())
    grid.buffer.run(lambda c: c.execute(reopened))
    grid.watch(1800)
    assert statuses(grid) == {"running"}, "it may be in hands yet"
    grid.watch(3600)
    assert statuses(grid) == {"completed"}


def test_a_dataset_to_which_something_will_come_stays_open(grid: Grid) -> None:
    grid.submit(*(production_job(n, computingSite="BNL") for n in (1, 2)))
    grid.work()
    grid.run_job(grid.get_job("BNL"))
    grid.watch(2 * 3600)
    assert statuses(grid) == {"running"}


def test_what_links_carried_long_ago_is_forgotten(grid: Grid) -> None:
    for days in (1, 200):
        then = grid.clock() - timedelta(days=days)
        grid.buffer.run(lambda c, then=then: links.note(c, ("A", "B"), links.Carried(1, 1, 1.0), then))  # type: ignore[misc]
    grid.watch(DAY + 60)
    assert count(grid, schema.ddm_link_hours) == 1
