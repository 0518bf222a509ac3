"""The errors of the schedulers, all under one root so that callers can tell ours from accidents."""

from __future__ import annotations


class SchedulerError(Exception):
    """Something the scheduler itself found wrong."""


class ConfigError(SchedulerError):
    """The configuration cannot be used as it is; the text says where and what is allowed."""


class ServerUnknown(SchedulerError):
    """The PanDA server gave no usable answer, which is not the same as «no jobs»."""


class BatchUnknown(SchedulerError):
    """The batch system gave no usable answer, which is not the same as «no pilots»."""


class PilotNotKnown(SchedulerError):
    """The batch system remembers no pilot of this id."""
