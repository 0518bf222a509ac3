"""Reads what came with a request, whatever its form: query, form fields, JSON, gzip with or without saying so."""

from __future__ import annotations

import zlib
from typing import Any
from urllib.parse import parse_qs

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from pandaserver.errors import BadInput, TooLarge
from pandaserver.web import values
from pandaserver.web.calls import Upload

_GZIP = b"\x1f\x8b"
_FORM, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_MOST_FIELDS = 1000


def read_parameters(request: Request, max_bytes: int, *, lines: str = "") -> tuple[dict[str, Any], Upload | None]:
    """Give the parameters of a request of at most `max_bytes`, and the file if one came.

    With `lines` the body may be lines of JSON objects, which become a parameter of that name.

    Raises:
        TooLarge: the body is larger than `max_bytes`, before or after inflating.
        BadInput: it cannot be understood.
    """
    told = _plain(request.args.to_dict(flat=False))
    if request.method == "GET":
        return told, None
    request.max_content_length = max_bytes + 1  # bodies that do not tell their length are cut there, and seen below
    try:
        if request.mimetype == _MULTIPART:
            return _multipart(request, told)
        body = request.stream.read()
    except RequestEntityTooLarge as error:
        raise _too_large(max_bytes) from error
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    body = _inflated(body, max_bytes)
    is_form = request.mimetype == _FORM and not body.lstrip().startswith(b"{")  # curl -d calls everything a form
    if lines and not is_form and b"\n" in body.strip():
        return told | _lines(body, lines), None
    return told | (_form(body) if is_form else _object(body)), None


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request is too large: {max_bytes} bytes at most", field="body")


def _plain(fields: dict[str, list[str]]) -> dict[str, Any]:
    """Give single values; a field that came several times becomes a list."""
    return {name: found[0] if len(found) == 1 else found for name, found in fields.items()}


def _multipart(request: Request, told: dict[str, Any]) -> tuple[dict[str, Any], Upload | None]:
    request.max_form_memory_size = request.max_content_length
    file = request.files.get("file")
    told |= _plain(request.form.to_dict(flat=False))
    return told, Upload(file.filename or "", file.stream) if file else None


def _form(body: bytes) -> dict[str, Any]:
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise BadInput(f"the body is no form: {error}", field="body", value=_start(body)) from error
    return _plain(fields)


def _start(body: bytes) -> str:
    return body[:60].decode("utf-8", "replace")


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


def _lines(body: bytes, name: str) -> dict[str, Any]:
    """Read lines of objects, or one object over several lines."""
    try:
        return {name: [_object(line) for line in body.splitlines() if line.strip()]}
    except BadInput:
        return _object(body)


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        told = values.strict_json(body)
    except ValueError as error:
        raise BadInput(f"the body is no JSON: {error}", field="body", value=_start(body)) from error
    if not isinstance(told, dict):
        raise BadInput(f"the body is JSON, but a {type(told).__name__}, not an object", field="body")
    return told
