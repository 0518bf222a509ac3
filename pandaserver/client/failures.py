"""What can go wrong for a user, each kind with the exit code that tells it to scripts."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How the `panda` command ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3


class ClientError(Exception):
    """Root of all errors of the client; `field` and `value` name the culprit where there is one."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.message, self.field, self.value = message, field, value


class Refused(ClientError):
    """The server understood and said no; `status` is the HTTP status that goes with it."""

    def __init__(self, message: str, *, status: int, field: str | None = None, value: object = None) -> None:
        super().__init__(message, field=field, value=value)
        self.status = status


class FileTrouble(ClientError):
    """A file on this machine, or the copy of one, is not as it should be."""


class JobsNotEnded(ClientError):
    """Jobs did not end in the time that was given."""


class WrongUse(ClientError):
    """The client was asked for something that makes no sense."""

    exit_code = ExitCode.USAGE


class NotAuthenticated(ClientError):
    """The proxy is missing, unusable or expired, or the server does not accept it."""

    exit_code = ExitCode.NO_SERVER


class Unreachable(ClientError):
    """No answer, or the server has trouble: worth another try."""

    exit_code = ExitCode.NO_SERVER


class NotTrusted(ClientError):
    """The server cannot prove that it is the one that was asked for."""

    exit_code = ExitCode.NO_SERVER


class StrangeAnswer(ClientError):
    """Something answers, and it is no PanDA server that this client understands."""

    exit_code = ExitCode.NO_SERVER
