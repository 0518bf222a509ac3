"""Everything that can be wrong, as one small tree: what, with which value, and what to do."""

from __future__ import annotations


class PandaError(Exception):
    """Root of all errors of the server; `field` and `value` name the culprit where there is one."""

    def __init__(self, message: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = None if value is None else shorten(str(value))


class ConfigError(PandaError):
    """The configuration is wrong."""


class BadInput(PandaError):
    """The request cannot be understood or is not sensible."""


class TooLarge(BadInput):
    """The request is larger than the server takes."""


class NotAuthenticated(PandaError):
    """The call needs a certificate, and none (or none that counts) was shown."""


class NotAllowed(PandaError):
    """The caller is known, and may not do this."""


class TooMany(PandaError):
    """The caller asked for more than its share; worth another try after some seconds."""

    def __init__(self, message: str, retry_after_s: int, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message, field=field, value=value)
        self.retry_after_s = retry_after_s


class NotFound(PandaError):
    """There is no such thing."""


class Conflict(PandaError):
    """The thing is not in a state that allows this."""


class InvalidTransition(Conflict):
    """A job may not go from its state to the one asked for."""


class StaleAttempt(Conflict):
    """A pilot speaks of an attempt that is not the current one."""


class UncertainCommit(PandaError):
    """The database went away while it was told to commit; the request may be repeated, with its key."""


class NotAvailable(PandaError):
    """Another service that is needed for the answer does not work now; the request may be repeated."""


class DDMError(PandaError):
    """The data management system could not do what it was asked; worth another try."""


class DDMFatal(DDMError):
    """Another try will not help: the data is not what it should be."""


class DDMUnknown(DDMFatal):
    """The data management system has no such file, dataset or endpoint."""


def shorten(text: str, length: int = 120) -> str:
    """Cut text for a message, telling that it was cut, with control characters made visible."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: length + 1])
    return shown if len(text) <= length else f"{shown[:length]}... ({len(text)} characters)"
