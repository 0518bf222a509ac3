"""How a call is declared: once, for both dialects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from pandaserver.config import Config
from pandaserver.dataservice.service import DataService
from pandaserver.errors import BadInput
from pandaserver.jobdispatcher.dispatcher import Dispatcher
from pandaserver.jobdispatcher.parking import ParkingLot
from pandaserver.model.share import Shares
from pandaserver.model.timeouts import Timeout
from pandaserver.taskbuffer.buffer import TaskBuffer
from pandaserver.userinterface.sandbox import SandboxStore
from pandaserver.userinterface.vault import Vault
from pandaserver.web.identity import Identity
from pandaserver.web.roles import BY_ANYONE, Grants, Permit, Role


@dataclass(frozen=True)
class Rooms:
    """The rooms of the server that calls knock at."""

    config: Config
    buffer: TaskBuffer
    dispatcher: Dispatcher
    data: DataService
    sandbox: SandboxStore
    vault: Vault
    parking: ParkingLot
    timeouts: tuple[Timeout, ...]
    shares: Shares


@dataclass(frozen=True)
class Upload:
    """A file that came with the request."""

    name: str
    stream: IO[bytes]


@dataclass(frozen=True)
class Caller:
    """Who calls, with what at hand."""

    rooms: Rooms
    identity: Identity | None
    environ: Mapping[str, Any] = field(default_factory=dict)
    upload: Upload | None = None
    client_key: str = ""
    permit: Permit = BY_ANYONE

    @property
    def known(self) -> Identity:
        """Give the identity of a caller whose role demanded one."""
        if self.identity is None:
            raise AssertionError("a call without role asks who the caller is")
        return self.identity

    @property
    def dn(self) -> str:
        """Give the DN of a caller whose role demanded one."""
        return self.known.dn


@dataclass(frozen=True)
class Param:
    """A named parameter; `read` makes a value of what came (text or JSON) and raises ValueError if it cannot."""

    name: str
    read: Callable[[Any], Any]
    required: bool = True
    default: Any = None
    also: tuple[str, ...] = ()  # other names, of the other dialect


@dataclass(frozen=True)
class Call:
    """A call: where it is in both dialects, who may make it, what does the work."""

    path: str  # module/method of /api/v1
    legacy: str  # method of /server/panda
    allows: Grants
    handler: Callable[..., Any]  # (caller, **parameters) -> plain data
    params: tuple[Param, ...] = ()
    writes: bool = False  # only by POST
    takes_file: bool = False  # and may be as large as a sandbox
    hermes: bool = False  # open to Rucio's hermes too, which sends JSON line by line: they become a list, `messages`
    raw: bool = False  # all that came is handed over as one dictionary `told`: pilots say more than we use
    legacy_answer: Callable[[Any], Any] = lambda data: data
    pickled: str = ""  # the parameter that clients of before 2013 send as a pickle, and its answer is one
    pickled_answer: Callable[[Any], Any] = lambda data: data

    @property
    def role(self) -> Role:
        """Give the role for which the call is made."""
        return next(iter(self.allows))

    def read(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Make the handler's arguments of what came.

        Raises:
            BadInput: naming the parameter that is unknown, missing or wrong.
        """
        if self.raw:
            return {"told": dict(told)}
        known = {name for p in self.params for name in (p.name, *p.also)}
        unknown = [name for name in told if name not in known]
        if unknown:
            text = (
                f"unknown parameter {unknown[0]}; {self.path} takes {', '.join(p.name for p in self.params) or 'none'}"
            )
            raise BadInput(text, field=unknown[0], value=told[unknown[0]])
        return {p.name: _read(p, told) for p in self.params}


def _read(param: Param, told: Mapping[str, Any]) -> Any:
    present = [name for name in (param.name, *param.also) if name in told]
    if not present:
        if param.required:
            raise BadInput(f"parameter {param.name} is missing", field=param.name)
        return param.default
    value = told[present[0]]
    if value in (None, "None") and not param.required:  # Python's None, which travels as text in query strings
        return param.default
    try:
        return param.read(value)
    except (ValueError, TypeError) as error:
        raise BadInput(f"parameter {present[0]}: {error}", field=present[0], value=value) from error
