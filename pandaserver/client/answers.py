"""What the server answers, as things with names; old wire names end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pandaserver.client.failures import StrangeAnswer
from pandaserver.model.codes import ErrorFamily
from pandaserver.model.states import FINAL, JobState

ENDED = frozenset(state.value for state in FINAL)


@dataclass(frozen=True)
class Submitted:
    """The numbers that a new job got."""

    job_id: int
    definition_id: int
    jobset_id: int | None
    warnings: tuple[str, ...] = ()  # about this job, and others of the same submission

    @classmethod
    def from_wire(cls, told: Any) -> Submitted:
        """Read [PandaID, jobDefinitionID, {"jobsetID": n}]; of production jobs the third is a name."""
        job_id, definition_id, rest = told
        more = rest if isinstance(rest, dict) else {}
        warnings = tuple(_counted(each) for each in more.get("warnings") or [])
        return cls(int(job_id), int(definition_id), more.get("jobsetID"), warnings)

    def to_wire(self) -> dict[str, Any]:
        """Write it by attribute names."""
        return {"PandaID": self.job_id, "jobDefinitionID": self.definition_id, "jobsetID": self.jobset_id}


def _counted(told: Mapping[str, Any]) -> str:
    number = int(told.get("jobs") or 1)
    return f"{told['text']}{f' ({number} jobs)' if number > 1 else ''}"


@dataclass(frozen=True)
class JobInfo:
    """A job as the server describes it; `attributes` has everything by its wire name."""

    job_id: int
    state: str
    attributes: Mapping[str, Any]

    @classmethod
    def from_wire(cls, told: Any) -> JobInfo:
        """Read a description."""
        return cls(int(told["PandaID"]), str(told["jobStatus"]), dict(told))

    @property
    def ended(self) -> bool:
        """Say whether nothing will happen to it any more."""
        return self.state in ENDED

    @property
    def finished(self) -> bool:
        """Say whether it ended well."""
        return self.state == JobState.FINISHED.value

    @property
    def name(self) -> str:
        """Give the name the user gave it."""
        return str(self.attributes.get("jobName") or "")

    @property
    def site(self) -> str:
        """Give the queue it is at."""
        return str(self.attributes.get("computingSite") or "")

    @property
    def since(self) -> datetime | None:
        """Tell since when it is in its state."""
        since = self.attributes.get("stateChangeTime")
        return since if isinstance(since, datetime) else None

    @property
    def files(self) -> list[dict[str, Any]]:
        """Give its files by attribute name."""
        return [dict(each) for each in self.attributes.get("Files") or []]

    @property
    def errors(self) -> list[str]:
        """Tell what went wrong with its last attempt, one text for each party that complains."""
        told = self.attributes
        codes = {family: told.get(f"{family}ErrorCode") for family in ErrorFamily}
        said = [f"{f} {code}: {told.get(f'{f}ErrorDiag') or 'no text'}" for f, code in codes.items() if code]
        exit_code = told.get("transExitCode")
        payload_failed = exit_code not in (None, "", "0", 0, "NULL") and not self.finished
        return [*said, f"payload ended with exit code {exit_code}"] if payload_failed else said


@dataclass(frozen=True)
class Reason:
    """What was said of one queue when a place for a job was looked for."""

    time: datetime | None
    site: str
    verdict: str
    reason: str
    weight: float | None
    criterion: str = ""
    value: object = None  # what was asked for
    limit: object = None  # what is there

    @classmethod
    def from_wire(cls, told: Any) -> Reason:
        """Read one reason."""
        said = (told["site"], told["verdict"], told["reason"], told.get("weight"))
        return cls(told.get("time"), *said, told.get("criterion") or "", told.get("value"), told.get("limit"))


@dataclass(frozen=True)
class Round:
    """One look for a place for a job; so many `more` queues were possible."""

    time: datetime | None
    site: str | None
    reasons: tuple[Reason, ...]
    more: int = 0

    @classmethod
    def from_wire(cls, told: Any) -> Round:
        """Read one round."""
        reasons = tuple(Reason.from_wire(each) for each in told["reasons"])
        return cls(told.get("time"), told.get("site"), reasons, int(told.get("more") or 0))


@dataclass(frozen=True)
class Explanation:
    """Why a job is where it is; `document` has all of it."""

    text: str
    advice: str
    rounds: tuple[Round, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_wire(cls, told: Any) -> Explanation:
        """Read the answer to job/why."""
        try:
            rounds = tuple(Round.from_wire(each) for each in told["rounds"])
            return cls(str(told["text"]), str(told["advice"]), rounds, dict(told))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StrangeAnswer(f"the answer to job/why is not understood: {error!r}") from error


@dataclass(frozen=True)
class Preview:
    """What would become of a job that is not submitted; `others` are possible besides the site."""

    runnable: bool
    site: str | None
    others: int
    expected_wait_s: float | None
    warnings: tuple[str, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_wire(cls, told: Any) -> Preview:
        """Read what is said of one job."""
        others = max(len(told["possible"]) - 1, 0) + int(told["more"])
        warnings = tuple(str(each["text"]) for each in told["warnings"])
        return cls(bool(told["runnable"]), told["site"], others, told["expectedWait"], warnings, dict(told))


@dataclass(frozen=True)
class Timeout:
    """How long jobs of a kind may stay in a state, or a pilot be silent (`heartbeat`), and what happens then."""

    state: str
    subject: str
    after_s: int
    action: str
    family: str
    code: int
    heartbeat: bool

    @classmethod
    def from_wire(cls, told: Any) -> Timeout:
        """Read one rule."""
        return cls(
            state=str(told["state"]),
            subject=str(told["subject"]),
            after_s=int(told["after_s"]),
            action=str(told["action"]),
            family=str(told["family"]),
            code=int(told["code"]),
            heartbeat=bool(told["heartbeat"]),
        )


@dataclass(frozen=True)
class ReplicaInfo:
    """One copy of a file."""

    endpoint: str
    url: str


@dataclass(frozen=True)
class FileInfo:
    """A file of a dataset and where copies of it are."""

    scope: str
    lfn: str
    guid: str
    size_bytes: int
    adler32: str
    replicas: tuple[ReplicaInfo, ...]

    @classmethod
    def from_wire(cls, told: Any) -> FileInfo:
        """Read one file."""
        return cls(
            scope=str(told["scope"]),
            lfn=str(told["lfn"]),
            guid=str(told.get("guid") or ""),
            size_bytes=int(told["fsize"]),
            adler32=str(told["checksum"]).removeprefix("ad:").lower(),
            replicas=tuple(ReplicaInfo(str(r["endpoint"]), str(r["url"])) for r in told["replicas"]),
        )


@dataclass(frozen=True)
class CallRoles:
    """Who may make a call: how far each role goes, and how far the caller does (`you`; None: not at all)."""

    call: str
    legacy: str
    allows: Mapping[str, str]
    you: str | None


@dataclass(frozen=True)
class Roles:
    """The table of calls and roles, and the caller's own roles with the jobs they hold for."""

    dn: str | None
    roles: Mapping[str, tuple[str, ...]]
    calls: tuple[CallRoles, ...]

    @classmethod
    def from_wire(cls, told: Any) -> Roles:
        """Read the table."""
        try:
            rows = told["calls"]
            calls = tuple(
                CallRoles(str(r["call"]), str(r["legacy"]), dict(r["allows"]), (r["you"] or {}).get("reach"))
                for r in rows
            )
            have = {str(role): tuple(map(str, scopes)) for role, scopes in told["you"]["roles"].items()}
            return cls(told["you"]["dn"], have, calls)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StrangeAnswer(f"the answer to system/get_roles is not understood: {error!r}") from error
