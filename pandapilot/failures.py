"""The exceptions of the pilot, on one page: what can stop a call, a job or the whole pilot."""

from __future__ import annotations

import signal

from pandapilot.codes import ErrorCode, ExitCode


class PilotError(Exception):
    """The root of all errors that the pilot raises itself."""


class CannotWork(PilotError):
    """The pilot itself has to end; the exit code tells why."""

    def __init__(self, exit_code: ExitCode, message: str) -> None:
        """Keep the exit code beside the message for people."""
        super().__init__(message)
        self.exit_code = exit_code


class ServerUnreachable(PilotError):
    """The server gave no usable answer this time; the same call may be repeated."""


class TlsFailed(ServerUnreachable):
    """TLS broke off; certain means that one side does not accept the certificate of the other."""

    def __init__(self, message: str, *, certain: bool) -> None:
        """Keep whether repeating is no use."""
        super().__init__(message)
        self.certain = certain


class ServerRefused(PilotError):
    """The server answered that it will not do what was asked; repeating the call unchanged is no use."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status beside the words of the server."""
        super().__init__(f"HTTP status {status}: {message}")
        self.status = status


class NotAuthorised(ServerRefused):
    """The server does not let this identity do what was asked."""


class JobFailure(PilotError):
    """This job has failed and shall be reported so."""

    def __init__(self, code: ErrorCode, diagnosis: str) -> None:
        """Keep the code for operators beside the diagnosis for people."""
        super().__init__(diagnosis)
        self.code = code
        self.diagnosis = diagnosis


class AttemptStale(PilotError):
    """The server says that this attempt is no longer ours: nothing of it may be stored or reported."""


class LeaseExpired(PilotError):
    """No update got through for the lease time, so the server may have given the job to another pilot."""


class Interrupted(PilotError):
    """The pilot received a signal and has to end."""

    def __init__(self, number: int) -> None:
        """Keep the number of the signal."""
        super().__init__(f"the pilot was stopped by {signal.Signals(number).name}")
        self.number = number
