"""Reads what came with a request, whatever its form: query, form fields, JSON, gzip with or without saying so."""

from __future__ import annotations

import json
import zlib
from typing import Any

from flask import Request

from pandaserver.errors import BadInput, TooLarge
from pandaserver.web.calls import Upload

_GZIP = b"\x1f\x8b"
_CHUNK = 64 * 1024


def read_parameters(request: Request, max_bytes: int) -> tuple[dict[str, Any], Upload | None]:
    """Give the parameters of a request, and the file if one came.

    Raises:
        TooLarge: the body is larger than `max_bytes`, before or after inflating.
        BadInput: it cannot be understood.
    """
    told = _plain(request.args.to_dict(flat=False))
    if request.method == "GET":
        return told, None
    if request.mimetype == "multipart/form-data":
        file = request.files.get("file")
        told |= _plain(request.form.to_dict(flat=False))
        return told, Upload(file.filename or "", file.stream) if file else None
    if request.content_length is not None and request.content_length > max_bytes:
        raise TooLarge(f"the request has {request.content_length} bytes, at most {max_bytes} are taken", field="body")
    if request.mimetype == "application/x-www-form-urlencoded" and not request.content_encoding:
        return told | _plain(request.form.to_dict(flat=False)), None
    return told | _object(_inflated(_body(request, max_bytes), max_bytes)), None


def _plain(fields: dict[str, list[str]]) -> dict[str, Any]:
    """Give single values; a field that came several times becomes a list."""
    return {name: found[0] if len(found) == 1 else found for name, found in fields.items()}


def _body(request: Request, max_bytes: int) -> bytes:
    body = request.stream.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise TooLarge(f"the request is larger than {max_bytes} bytes", field="body")
    return body


def _inflated(body: bytes, max_bytes: int) -> bytes:
    """Inflate what looks like gzip (pilots do not always say so), but no bombs."""
    if not body.startswith(_GZIP):
        return body
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadInput(f"the body looks like gzip and is damaged: {error}", field="body") from error
    if len(inflated) > max_bytes:
        raise TooLarge(f"the body becomes larger than {max_bytes} bytes when inflated", field="body")
    if not inflater.eof:
        raise BadInput("the body looks like gzip and ends too early", field="body")
    return inflated


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        start = body[:60].decode("utf-8", "replace")
        raise BadInput(f"the body is no JSON: {error}", field="body", value=start) from error
    if not isinstance(told, dict):
        raise BadInput(f"the body is JSON, but a {type(told).__name__}, not an object", field="body")
    return told
