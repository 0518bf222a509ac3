"""The log tarball of a job: its members, and their text."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pandamonitor import logfiles
from pandamonitor.query import Query
from pandamonitor.tables import table_of
from pandamonitor.views.job import Everything, load, logs_there
from pandamonitor.views.page import Monitor, Page, View
from pandaserver.errors import NotFound
from pandaserver.model.file import FileType
from pandaserver.model.grid import Endpoint
from pandaserver.taskbuffer import topology


def build(monitor: Monitor, query: Query, *, job_id: int) -> Page:
    """Make the page: the list of members, and one member's text when it is asked for."""
    found = load(monitor, job_id)
    endpoints = monitor.database.read(topology.load).endpoints
    root, path = _where(found, endpoints, query.number("file", -1))
    members = logfiles.list_members(root, path)
    number = query.number("member", -1)
    shown = logfiles.show_member(root, path, number) if number >= 0 else None
    values = {"job": found.record.job, "members": members, "shown": shown, "lfn": path.name}
    columns = ("number", "name", "size_bytes", "modified_at", "kind")
    data = {"job_id": job_id, "lfn": path.name, "members": members, "shown": shown}
    return Page(f"Log of job {job_id}", "log", values, data, table_of(members, columns))


def _where(found: Everything, endpoints: dict[str, Endpoint], file_id: int) -> tuple[Path, Path]:
    """Find a copy that this machine can read of the log with that id, or of the last one.

    Raises:
        NotFound: saying why there is none.
    """
    there = [log for log in logs_there(found) if file_id in (-1, log.file_id)]
    copies = [copy for log in there for copy in found.replicas[log.scope, log.lfn]]
    if not copies:
        logs = [f for f in found.record.files if f.type is FileType.LOG]
        text = "has no log file" if not logs else f"has no copy of its log {logs[0].lfn} in the catalogue yet"
        raise NotFound(f"Job {found.record.job.job_id} {text}.", field="log")
    for copy in copies:
        endpoint = endpoints.get(copy.endpoint)
        if endpoint is not None and endpoint.url.startswith("file:"):
            return _root(endpoint), logfiles.place(endpoint, copy.scope, copy.lfn)
    places = ", ".join(sorted({copy.endpoint for copy in copies}))
    raise NotFound(
        f"The log is at {places}, where the monitor cannot look; copy it with the panda client.", field="log"
    )


def _root(endpoint: Endpoint) -> Path:
    return Path(unquote(urlsplit(endpoint.url).path))


VIEWS = (View("/jobs/<int:job_id>/log", ("member", "file"), build, at_most_s=60.0),)
