"""Serves the cache: grid information to everybody, sandboxes to everybody who knows a name or to those who may.

Worker nodes fetch with what they have: nothing, a pilot's certificate, or the job token that came with their job.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Request, Response, request, send_from_directory
from werkzeug.exceptions import NotFound as NoSuchPage

from pandaserver.config import IdentitySection
from pandaserver.errors import BadInput, NotAllowed, NotAuthenticated, PandaError
from pandaserver.externalinterface import information
from pandaserver.taskbuffer.submissions import SandboxFile
from pandaserver.web import values
from pandaserver.web.access import HOW_TO_BE_KNOWN
from pandaserver.web.bearer import bearer_token
from pandaserver.web.dialects import Server, as_json, legacy_error
from pandaserver.web.identity import Identity
from pandaserver.web.roles import EVERYTHING, Role, scopes_of

JOB_HEADER, TOKEN_HEADER = "X-Job-Id", "X-Job-Token"


@dataclass(frozen=True)
class JobProof:
    """What the pilot of a job shows: the job's number and the token of its attempt."""

    job_id: int
    token: str


def cache_pages(server: Server) -> Blueprint:
    """Serve what lies below /cache/."""
    pages = Blueprint("cache", __name__, url_prefix="/cache")
    pages.register_error_handler(PandaError, legacy_error)
    directory: Path = server.rooms.config.cache.directory.absolute()
    buffer = server.rooms.buffer

    @pages.get("/schedconfig/<queue>.all.json")
    def queue_data(queue: str) -> Response:
        _count(server, request)
        return as_json(information.queue_data(information.queue(buffer, queue)))

    @pages.get("/ddmendpoints.json")
    def storage_data() -> Response:
        _count(server, request)
        endpoints = information.grid(buffer).endpoints
        return as_json({name: information.storage_data(endpoint) for name, endpoint in endpoints.items()})

    @pages.get("/<name>")
    def sandbox(name: str) -> Response:
        if name.startswith("."):  # files still being written
            raise NoSuchPage
        if server.rooms.config.cache.public:
            _count(server, request)
        else:
            _check_reader(server, name, request)
        return send_from_directory(directory, name, mimetype="application/octet-stream")

    return pages


def _count(server: Server, incoming: Request) -> None:
    """Let everybody read who does not ask too often; a certificate, even one that is no good here, is not looked at."""
    if incoming.environ.get("SSL_CLIENT_VERIFY") != "SUCCESS":
        server.door.let_read(None, address=incoming.remote_addr or "")


def _check_reader(server: Server, name: str, incoming: Request) -> None:
    """Let those read an uploaded file who may; what no user uploaded is for everybody.

    Raises:
        TooMany: somebody asks too often.
        NotAuthenticated, NotAllowed: they show nothing, or nothing that helps.
    """
    proof = job_proof(incoming)
    identity = None if proof else server.identity(incoming)
    server.door.let_read(identity, address=incoming.remote_addr or "")
    file = server.rooms.sandbox.find(name)
    if file is None:
        return
    if proof is not None:
        _check_job(server, proof, file)
    elif identity is None:
        text = f"/cache/{name} {HOW_TO_BE_KNOWN}; or the token of a job that uses it ({TOKEN_HEADER} and {JOB_HEADER})"
        raise NotAuthenticated(text, field="certificate")
    elif not _may_read(identity, file, server.rooms.config.identity):
        text = f"{identity.dn} has not uploaded {name} and is neither operator nor pilot; a pilot shows its job's token"
        raise NotAllowed(text, field="certificate", value=identity.dn)


def _may_read(identity: Identity, file: SandboxFile, configured: IdentitySection) -> bool:
    everywhere = EVERYTHING in scopes_of(identity, Role.PILOT, configured)  # pilots of a VO have the job's token
    return identity.dn == file.owner or everywhere or bool(scopes_of(identity, Role.OPERATOR, configured))


def _check_job(server: Server, proof: JobProof, file: SandboxFile) -> None:
    held = server.rooms.dispatcher.held_by(proof.job_id, proof.token)
    if held.job.owner != file.owner or not held.uses(file.name):
        text = f"job {proof.job_id} does not use {file.name}, or belongs to somebody else than whoever uploaded it"
        raise NotAllowed(text, field="jobToken", value=file.name)


def job_proof(incoming: Request) -> JobProof | None:
    """Take the proof out of a request that names a job; None where it names none.

    Raises:
        BadInput: it names a job and shows no token, or what it says cannot be read.
        NotAuthenticated: everybody could read it on the way.
    """
    told = incoming.headers.get(JOB_HEADER)
    if told is None:
        if TOKEN_HEADER in incoming.headers:
            raise BadInput(f"{TOKEN_HEADER} needs {JOB_HEADER}, the PandaID of its job", field=JOB_HEADER)
        return None
    token = incoming.headers.get(TOKEN_HEADER) or bearer_token(incoming.environ)
    if "SSL_CLIENT_VERIFY" not in incoming.environ:  # which front ends set on TLS connections and on no others
        raise NotAuthenticated(f"{TOKEN_HEADER} came without TLS; say https://", field=TOKEN_HEADER)
    if not token:
        text = f"{JOB_HEADER} needs the job's token, in {TOKEN_HEADER} or as Authorization: Bearer"
        raise BadInput(text, field=TOKEN_HEADER)
    try:
        return JobProof(values.whole_number(told), token)
    except ValueError as error:
        raise BadInput(f"{JOB_HEADER}: {error}", field=JOB_HEADER, value=told) from error
