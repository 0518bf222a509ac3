"""The pages of the monitor, one module for each family."""

from __future__ import annotations

from pandamonitor.views import datasets, errors, job, jobs, logs, overview, search, server, sites, transfers
from pandamonitor.views.page import View

VIEWS: tuple[View, ...] = (
    overview.VIEW,
    *jobs.VIEWS,
    *job.VIEWS,
    *logs.VIEWS,
    *sites.VIEWS,
    *datasets.VIEWS,
    *transfers.VIEWS,
    *errors.VIEWS,
    *server.VIEWS,
    *search.VIEWS,
)
