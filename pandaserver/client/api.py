"""PanDA for Python programs: submit jobs, follow them, fetch what they made."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pandaserver.client.answers import Explanation, FileInfo, JobInfo, Preview, Reason, Roles, Submitted, Timeout
from pandaserver.client.connection import PAUSES_S, Connection
from pandaserver.client.download import Download, fetch
from pandaserver.client.failures import FileTrouble, StrangeAnswer

T = TypeVar("T")

MOST_IDS = 5000  # in one request
MOST_UPLOAD_BYTES = 1024**3


class PandaClient:
    """A user's way to a PanDA server.

    Every call may raise `ClientError`: `Refused` when the server said no, `Unreachable` when it did not answer in spite
    of several tries, `NotAuthenticated`, `NotTrusted` or `StrangeAnswer` when trying again would not help.
    Without proxy only calls that read can be made.
    """

    def __init__(
        self,
        server: str,
        proxy: str | Path | None,
        ca_dir: str | Path,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(
            server, Path(proxy) if proxy else None, Path(ca_dir), pauses_s=pauses_s, sleep=sleep
        )

    def __enter__(self) -> PandaClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Give the address of the server, without path."""
        return self._connection.url

    @property
    def proxy(self) -> Path | None:
        """Give the proxy that is shown to the server."""
        return self._connection.proxy

    def submit(self, jobs: Sequence[dict[str, Any]], client_key: str | None = None) -> list[Submitted]:
        """Submit jobs, dictionaries by attribute name, all or none.

        The key makes a submission one and the same however often it is sent; give the same again to try again later.
        """
        self._connection.need_proxy()
        body = {"jobs": list(jobs), "clientKey": client_key or new_client_key()}
        told = self._connection.post("job/submit", body)
        return _each(Submitted.from_wire, told, "job/submit")

    def status(self, ids: Iterable[int]) -> list[JobInfo | None]:
        """Describe jobs in the order asked; None for ids that the server does not know."""
        told = self._in_portions("job/get_description_incl_archive", ids)
        return _each(lambda one: None if one is None else JobInfo.from_wire(one), told, "job/get_description")

    def kill(self, ids: Iterable[int]) -> list[bool]:
        """Kill jobs; True for each that is dying now, False for those that had ended or are unknown."""
        self._connection.need_proxy()
        return _each(bool, self._in_portions("job/kill", ids), "job/kill")

    def reasons(self, job_id: int) -> list[Reason]:
        """Tell what was said of each queue when a place for a job was looked for, oldest first."""
        return _each(Reason.from_wire, self._connection.get("job/get_reasons", job_id=job_id), "job/get_reasons")

    def why(self, job_id: int) -> Explanation:
        """Tell why a job is where it is, and what would help."""
        return Explanation.from_wire(self._connection.get("job/why", job_id=job_id))

    def check(self, jobs: Sequence[dict[str, Any]]) -> list[Preview]:
        """Tell what would become of jobs, dictionaries by attribute name, of which none is submitted."""
        self._connection.need_proxy()
        return _each(Preview.from_wire, self._connection.post("job/check", {"jobs": list(jobs)}), "job/check")

    def queues(self) -> dict[str, dict[str, Any]]:
        """Describe all queues."""
        return _by_name(self._connection.get("queue/list"), "queue/list")

    def set_queue(self, queue: str, status: str, reason: str, *, until: datetime | None = None) -> dict[str, Any]:
        """Switch a queue, whatever its source says, until it is cleared or the time is over; give how it stands."""
        self._connection.need_proxy()
        body = {"queue": queue, "status": status, "reason": reason}
        body |= {"until": until.isoformat()} if until else {}
        return _object(self._connection.post("queue/set_status", body), "queue/set_status")

    def clear_queue(self, queue: str, reason: str = "") -> dict[str, Any]:
        """Let a queue's source decide again; give how it stands."""
        self._connection.need_proxy()
        told = self._connection.post("queue/clear_status", {"queue": queue, "reason": reason})
        return _object(told, "queue/clear_status")

    def queue_history(self, queue: str) -> list[dict[str, Any]]:
        """Tell who switched a queue, when, from, to and why, newest first."""
        return _each(dict, self._connection.get("queue/history", queue=queue), "queue/history")

    def counts(self) -> dict[str, dict[str, int]]:
        """Count jobs by queue and state."""
        call = "statistics/job_stats_by_site"
        return _by_name(self._connection.get(call), call)

    def timeouts(self) -> list[Timeout]:
        """Tell how long a job may stay in each state, and what happens then."""
        return _each(Timeout.from_wire, self._connection.get("system/get_timeouts"), "system/get_timeouts")

    def files(self, dataset: str) -> list[FileInfo]:
        """List the files of a dataset with their copies."""
        told = self._connection.get("data/list_files", dataset=dataset)
        return _each(FileInfo.from_wire, told, "data/list_files")

    def whoami(self) -> dict[str, Any]:
        """Tell whom the server sees: dn, name, limited, proxyDepth, notAfter, fqans; nothing for strangers."""
        told = self._connection.get("system/get_attributes")
        return dict(told.get("identity") or {}) if isinstance(told, dict) else {}

    def roles(self) -> Roles:
        """Tell who may make which call, and which roles the caller has."""
        return Roles.from_wire(self._connection.get("system/get_roles"))

    def upload(self, path: str | Path, name: str = "") -> str:
        """Leave a file at the server for jobs to fetch, under its own or another name; give its URL."""
        self._connection.need_proxy()
        source = Path(path)
        told = self._connection.send_file("file_server/upload_cache_file", name or source.name, _content(source))
        if not isinstance(told, str):
            raise StrangeAnswer(f"the server took {source} and did not say where it is", field="file", value=told)
        return told

    def download(self, dataset: str, directory: str | Path) -> list[Download]:
        """Copy all files of a dataset that this machine can read to a directory, each verified; errors are told."""
        return [fetch(file, Path(directory)) for file in self.files(dataset)]

    def _in_portions(self, call: str, ids: Iterable[int]) -> list[Any]:
        wanted, told = list(ids), []
        for start in range(0, len(wanted), MOST_IDS):
            portion = wanted[start : start + MOST_IDS]
            answer = self._connection.post(call, {"job_ids": portion})
            if not isinstance(answer, list) or len(answer) != len(portion):
                raise StrangeAnswer(f"{call} was asked for {len(portion)} jobs and does not answer for each")
            told += answer
        return told


def new_client_key() -> str:
    """Make a key for a submission."""
    return str(uuid.uuid4())


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_UPLOAD_BYTES:
            text = f"{path} has more than {MOST_UPLOAD_BYTES} bytes: large files belong into datasets"
            raise FileTrouble(text, field="file", value=str(path))
        return path.read_bytes()
    except OSError as error:
        raise FileTrouble(f"cannot read {path}: {error.strerror}", field="file", value=str(path)) from error


def _each(read: Callable[[Any], T], told: Any, call: str) -> list[T]:
    try:
        if not isinstance(told, list):
            raise TypeError(f"a list is expected, not {type(told).__name__}")
        return [read(one) for one in told]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StrangeAnswer(f"the answer to {call} is not understood: {error!r}; is this client too old?") from error


def _object(told: Any, call: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise StrangeAnswer(f"the answer to {call} is not understood; is this client too old?")
    return told


def _by_name(told: Any, call: str) -> dict[str, Any]:
    if not isinstance(told, dict) or not all(isinstance(each, dict) for each in told.values()):
        raise StrangeAnswer(f"the answer to {call} is not understood; is this client too old?")
    return told
