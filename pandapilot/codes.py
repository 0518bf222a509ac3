"""The numbers by which the pilot tells what went wrong, so that operators find them in one place."""

from __future__ import annotations

import signal
from enum import IntEnum


class ErrorCode(IntEnum):
    """Why a job failed, as sent in pilotErrorCode; the numbers are those that PanDA operators know."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ErrorCode:
        """Attach the meaning to the number."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    NONE = 0, "no error"
    GENERAL = 1008, "general pilot error, or an invalid job definition"
    NO_LOCAL_SPACE = 1098, "not enough space on the local disk"
    STAGE_IN_FAILED = 1099, "an input file could not be copied"
    NO_REPLICA = 1100, "no storage known for an input file"
    INPUT_NOT_FOUND = 1103, "an input file does not exist on the storage"
    DIRECTORY_TOO_LARGE = 1104, "the job directory grew over its limit"
    STDOUT_TOO_LARGE = 1106, "the payload wrote too much to its standard output or error"
    SETUP_FAILED = 1110, "the payload could not be prepared"
    INTERNAL = 1112, "unexpected error inside the pilot"
    NO_OUTPUT_STORAGE = 1133, "no storage known for an output file"
    STAGE_OUT_FAILED = 1137, "an output file could not be copied to the storage"
    TRANSFORMATION_NOT_EXECUTABLE = 1143, "the transformation could not be made executable"
    KILLED_BY_SERVER = 1144, "killed on the server's command, or the lease on the job was lost"
    TRANSFORMATION_NOT_FOUND = 1146, "the transformation is not installed here"
    TRANSFORMATION_DOWNLOAD_FAILED = 1149, "the transformation could not be downloaded"
    LOOPING = 1150, "the payload touched no file for too long"
    OUTPUT_MISSING = 1165, "the payload did not write an output file"
    INPUT_CHECKSUM = 1171, "the adler32 checksum of an input file is wrong"
    INPUT_SIZE = 1175, "the size of an input file is wrong"
    LFN_TOO_LONG = 1190, "a file name is too long"
    OUTPUT_EMPTY = 1191, "an output file has no content"
    SIGNAL = 1200, "the pilot was stopped by a signal"
    SIGTERM = 1201, "the pilot was stopped by SIGTERM"
    SIGQUIT = 1202, "the pilot was stopped by SIGQUIT"
    SIGSEGV = 1203, "the pilot was stopped by SIGSEGV"
    SIGXCPU = 1204, "the pilot was stopped by SIGXCPU"
    SIGBUS = 1206, "the pilot was stopped by SIGBUS"
    SIGUSR1 = 1207, "the pilot was stopped by SIGUSR1"
    TIME_LIMIT = 1213, "the payload reached a time limit"
    MEMORY_LIMIT = 1235, "the payload used too much memory"
    PAYLOAD_FAILED = 1305, "the payload ended with an error"


class ExitCode(IntEnum):
    """How the pilot process ends; a pilot stopped by signal n ends with 128 + n instead."""

    OK = 0
    INTERNAL = 64
    NO_PROXY = 65
    NO_CA_DIRECTORY = 66
    TLS_FAILED = 67
    SERVER_UNREACHABLE = 68
    NOT_AUTHORISED = 69
    QUEUE_UNKNOWN = 70
    QUEUE_OFFLINE = 71
    BAD_ANSWER = 72
    NO_WORK_DIRECTORY = 73


# SIGSEGV and SIGBUS are left to the system: Python code that handles one caused by a real fault would spin for ever.
SIGNAL_CODES: dict[int, ErrorCode] = {
    signal.SIGTERM: ErrorCode.SIGTERM,
    signal.SIGINT: ErrorCode.SIGNAL,
    signal.SIGHUP: ErrorCode.SIGNAL,
    signal.SIGQUIT: ErrorCode.SIGQUIT,
    signal.SIGXCPU: ErrorCode.SIGXCPU,
    signal.SIGUSR1: ErrorCode.SIGUSR1,
}
