"""What error codes mean and what to do about them, for whoever sees one for the first time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pandaserver.model.codes import ErrorFamily

F = ErrorFamily


@dataclass(frozen=True)
class Meaning:
    """A code in words."""

    text: str
    remedy: str


UNKNOWN = Meaning("no description of this code", "Read the diagnostic and the log of the job.")
_PAYLOAD = Meaning(
    "the user's program ended with this error", "Look at the end of the payload's output in the log; the user repairs."
)


def meaning(family: ErrorFamily, code: int) -> Meaning:
    """Explain a code; those of payloads are the users' own."""
    if family is F.PAYLOAD:
        return _PAYLOAD
    return MEANINGS.get((family, code), UNKNOWN)


def _pilot(codes: Iterable[int], text: str, remedy: str) -> dict[tuple[ErrorFamily, int], Meaning]:
    return {(F.PILOT, code): Meaning(text, remedy) for code in codes}


_SITE_STORAGE = "If many jobs of the site have it: check the site's storage, put the queue to brokeroff meanwhile."
_NEW_INPUT = "Compare the copy with the catalogue; declare the copy bad and let it be copied again."
_ASK_MORE = "Ask for more in the submission, or find what grows in the payload."
_SITE_SOFTWARE = "Check the site's software area and the release the job asks for."
_USER_CODE = "The user checks the transformation's name and the uploaded sandbox."
_RETRY = "One of them is chance, a retry helps; many at one site or node are the site's problem."
_SIGNAL = "The batch system or an operator of the site ended the pilot; look for pre-emption or limits there."

MEANINGS: dict[tuple[ErrorFamily, int], Meaning] = {
    **_pilot([1008], "general error, or a job description the pilot cannot use", "Read the pilot's log."),
    **_pilot([1098], "not enough disk on the worker node", "Tell the site which node; ask for disk in the submission."),
    **_pilot([1099], "an input file could not be copied to the node", _SITE_STORAGE),
    **_pilot(
        [1100], "no storage is known for an input file", "Check the replicas of the input and the site's storage."
    ),
    **_pilot([1103], "an input file is not where the catalogue says", _NEW_INPUT),
    **_pilot([1104], "the work directory grew over its limit", _ASK_MORE),
    **_pilot([1106], "the payload printed too much", "The user makes the program talk less, or into a file."),
    **_pilot([1109], "the node's platform does not fit the job", _SITE_SOFTWARE),
    **_pilot([1110], "the payload could not be prepared", _SITE_SOFTWARE),
    **_pilot([1111, 1112], "unexpected error inside the pilot", "A mistake in the pilot: keep the log and report it."),
    **_pilot([1116, 1117], "data of the queue are missing or wrong", "Compare the queue in the server's sites file."),
    **_pilot([1124], "an output file is larger than allowed", "Write smaller files or split the job."),
    **_pilot([1133], "no storage is known for an output file", "Check the queue's endpoint and the destination."),
    **_pilot([1134, 1137, 1152], "an output file could not be copied to the storage", _SITE_STORAGE),
    **_pilot([1139, 1141, 1172], "an output file arrived with the wrong size or checksum", _SITE_STORAGE),
    **_pilot([1143, 1146, 1149], "the transformation could not be had or started", _USER_CODE),
    **_pilot([1144], "killed by the server, or its lease was lost", "Look who asked for it in the history below."),
    **_pilot([1145, 1171, 1175], "an input file has the wrong size or checksum", _NEW_INPUT),
    **_pilot(
        [1150], "the payload did nothing visible for too long", "The user looks for an endless loop or a dead server."
    ),
    **_pilot([1151, 1182], "copying an input took too long", _SITE_STORAGE),
    **_pilot([1163, 1177], "no valid proxy on the node", "Renew the pilot's proxy; check the schedulers."),
    **_pilot(
        [1165, 1187, 1210], "the payload did not write an output it promised", "The user compares names of outputs."
    ),
    **_pilot([1168], "the inputs are larger than the node's disk", "Split the job, or ask for more disk."),
    **_pilot([1186, 1211, 1244], "software is missing at the site", _SITE_SOFTWARE),
    **_pilot([1190], "a file name is too long", "The user shortens the name."),
    **_pilot([1191], "an output file is empty", "The user finds out why nothing was written."),
    **_pilot([1195], "a command took too long", _RETRY),
    **_pilot([1199], "a directory could not be made", "Tell the site which node: its disk is full or read-only."),
    **_pilot(range(1200, 1208), "the pilot was stopped by a signal", _SIGNAL),
    **_pilot([1212, 1223, 1235], "the payload used too much memory", _ASK_MORE),
    **_pilot([1213], "the payload reached a time limit", _ASK_MORE),
    **_pilot(
        [1305], "the payload ended with an error", "Read the end of the payload's output in the log; the user repairs."
    ),
    (F.SUBMISSION, 1): Meaning("the batch system did not know the pilot", _RETRY),
    (F.SUBMISSION, 2): Meaning("the pilot was gone before it asked for a job", _RETRY),
    (F.DDM, 100): Meaning("the data service could not prepare the inputs", "See the diagnostic; check the catalogue."),
    (F.DDM, 200): Meaning(
        "outputs could not be registered", "Compare what the pilot stored with the catalogue; check the site's storage."
    ),
    (F.DDM, 201): Meaning("outputs could not be sent on to where they shall end", "Check that the endpoint exists."),
    (F.DDM, 205): Meaning(
        "size or checksum of an output are not what the pilot announced",
        "What lies at the storage is damaged, or somebody else wrote it: look at the storage and the node.",
    ),
    (F.DDM, 206): Meaning(
        "the pilot stored at an endpoint that is not known", "Compare the queue's endpoints with the sites file."
    ),
    (F.BROKERAGE, 100): Meaning(
        "no site can take the job", "The brokerage reasons name each site and why; the user asks for less or waits."
    ),
    (F.DISPATCHER, 100): Meaning(
        "the pilot fell silent and its lease ended",
        "One: the node died. Many at a site: ask the site (power, network).",
    ),
    (F.DISPATCHER, 101): Meaning("a lost job could not be recovered", _RETRY),
    (F.DISPATCHER, 102): Meaning("a pilot took the job and never started it", _RETRY),
    (F.DISPATCHER, 103): Meaning(
        "the server could not finish the job in time", "See the work queue on the server page; outputs may be late."
    ),
    (F.DISPATCHER, 104): Meaning("outputs did not arrive in time", "See the transfers to the destination."),
    (F.DISPATCHER, 105): Meaning("the job stayed too long in one state", "The history below tells where it hung."),
    (F.TASKBUFFER, 100): Meaning("killed as asked, or because an upstream job failed", "Nothing, if it was you."),
    (F.TASKBUFFER, 101): Meaning("a transfer took too long", "See the transfers to the destination."),
    (F.TASKBUFFER, 102): Meaning(
        "waited too long and was given up", "The reasons say why no site took it; submit again."
    ),
    (F.TASKBUFFER, 103): Meaning("aborted by the server", "Read the diagnostic."),
    (F.TASKBUFFER, 105): Meaning("sent back to the brokerage", "Nothing: another site is chosen."),
}
