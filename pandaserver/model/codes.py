"""Error codes by owner, numbered as PanDA always numbered them, so that operators' habits keep working."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ErrorFamily(StrEnum):
    """Who says that something went wrong; each family has its own code and diagnostic on the wire."""

    PILOT = "pilot"
    PAYLOAD = "exe"
    SUBMISSION = "sup"
    DDM = "ddm"
    BROKERAGE = "brokerage"
    DISPATCHER = "jobDispatcher"
    TASKBUFFER = "taskBuffer"


class DDMError(IntEnum):
    """Codes of the data service."""

    SETUP = 100
    ADDER = 200
    SUBSCRIPTION = 201
    CHECKSUM = 205  # size or checksum are not what was announced
    ENDPOINT = 206


class BrokerageError(IntEnum):
    """Codes of the brokerage."""

    NO_SITE = 100


class DispatcherError(IntEnum):
    """Codes of the dispatcher and the watchdog."""

    HEARTBEAT = 100
    RECOVERY = 101
    SENT_TIMEOUT = 102
    HOLDING = 103
    TRANSFERRING = 104
    OTHER_TIMEOUT = 105


class TaskBufferError(IntEnum):
    """Codes of the queue itself."""

    KILL = 100
    TRANSFER_TIMEOUT = 101
    EXPIRED = 102
    ABORTED = 103
    REASSIGNED = 105


@dataclass(frozen=True)
class JobError:
    """One thing that went wrong with one attempt of a job."""

    family: ErrorFamily
    code: int
    diagnostic: str


DIAGNOSTIC_LENGTH: dict[ErrorFamily, int] = {  # characters kept, as in PanDA's own schema
    ErrorFamily.PILOT: 500,
    ErrorFamily.PAYLOAD: 500,
    ErrorFamily.DDM: 500,
    ErrorFamily.TASKBUFFER: 300,
    ErrorFamily.DISPATCHER: 250,
    ErrorFamily.BROKERAGE: 250,
    ErrorFamily.SUBMISSION: 250,
}
