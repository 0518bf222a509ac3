"""Writes the declared calls as an OpenAPI 3.1 document."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pandaserver import __version__
from pandaserver.web import schemas, values
from pandaserver.web.cache import JOB_HEADER, TOKEN_HEADER
from pandaserver.web.calls import Call, Param
from pandaserver.web.dialects import V1
from pandaserver.web.roles import Role

_BY_READER: dict[Callable[[Any], Any], Mapping[str, Any]] = {
    values.text: {"type": "string", "pattern": r"^[^\u0000]*$"},
    values.whole_number: schemas.ID,
    values.job_ids: schemas.IDS,
    values.objects: {"type": "array", "items": {"type": "object"}},
}
_JSON = "application/json"
_ERROR = {
    "type": "object",
    "required": ["status", "field", "value", "request_id"],
    "properties": {
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "field": {"type": ["string", "null"]},
        "value": {"type": ["string", "null"]},
        "request_id": {"type": "string"},
    },
    "additionalProperties": False,
}
_REFUSAL = {
    "type": "object",
    "required": ["success", "message", "data", "error"],
    "properties": {
        "success": {"const": False},
        "message": {"type": "string", "minLength": 1},
        "data": {"type": "null"},
        "error": {"$ref": "#/components/schemas/Error"},
    },
    "additionalProperties": False,
}
_REFUSED = {
    "400": "the body cannot be read",
    "413": "the body is too large",
    "429": "too many requests; come again after Retry-After seconds",
    "503": "the database or another service does not answer now; the request may be repeated, with its key",
}
_REQUEST_ID = {"X-Request-ID": {"description": "stands on the lines of the log, too", "schema": {"type": "string"}}}
_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a request repeated with its key is not a second one",
    "schema": {"type": "string", "maxLength": 64, "pattern": "^[!-~]*$"},
}
_WAYS: dict[str, dict[str, Any]] = {
    "certificate": {"type": "mutualTLS", "description": "a grid certificate or proxy, with or without VOMS attributes"},
    "token": {"type": "http", "scheme": "bearer", "description": "of an issuer that the server trusts (WLCG, OIDC)"},
    "jobToken": {
        "type": "apiKey",
        "in": "header",
        "name": TOKEN_HEADER,
        "description": f"of a live attempt, with its PandaID in {JOB_HEADER}",
    },
}
_KNOWN: list[dict[str, list[str]]] = [{"certificate": []}, {"token": []}]


def describe_calls(calls: Sequence[Call], url: str) -> dict[str, Any]:
    """Describe calls as /api/v1 serves them; who may make one stands in x-allows, as in the table of roles."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "PanDA", "version": __version__, "description": "A pilot-based workload manager."},
        "servers": [{"url": url}],
        "paths": {f"{V1}/{call.path}": _operations(call) for call in calls} | {"/cache/{name}": {"get": _sandbox()}},
        "components": {"schemas": {"Refusal": _REFUSAL, "Error": _ERROR}, "securitySchemes": _WAYS},
    }


def _operations(call: Call) -> dict[str, Any]:
    posted = _operation(call, "post") | {"requestBody": _body(call)}
    if call.writes:
        return {"post": posted | ({"parameters": [_KEY]} if call.path == "job/submit" else {})}
    return {
        "get": _operation(call, "get") | {"parameters": [_in_query(call, param) for param in call.params]},
        "post": posted,
    }


def _operation(call: Call, method: str) -> dict[str, Any]:
    module, name = call.path.split("/")
    return {
        "operationId": f"{method}_{module}_{name}",
        "tags": [module],
        "summary": (inspect.getdoc(call.handler) or "").partition("\n")[0],
        "security": [{}, *_KNOWN] if Role.ANYONE in call.allows else _KNOWN,
        "x-allows": {role.value: str(reach) for role, reach in call.allows.items()},
        "x-legacy": f"/server/panda/{call.legacy}",
        "responses": {"200": _good(call)} | {status: _refused(status, words) for status, words in _REFUSED.items()},
    }


def _good(call: Call) -> dict[str, Any]:
    done = {
        "type": "object",
        "required": ["success", "message", "data"],
        "properties": {
            "success": {"const": True},
            "message": {"type": "string"},
            "data": schemas.ANSWERS.get(call.path, {}),
        },
        "additionalProperties": False,
    }
    either = {"oneOf": [done, {"$ref": "#/components/schemas/Refusal"}]}
    return _answer("done, or refused: see `success`, and `error` for why", either) | {"headers": _REQUEST_ID}


def _refused(status: str, words: str) -> dict[str, Any]:
    headers = _REQUEST_ID | (_RETRY_AFTER if status == "429" else {})
    return _answer(words, {"$ref": "#/components/schemas/Refusal"}) | {"headers": headers}


def _answer(words: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {_JSON: {"schema": schema}}}


def _in_query(call: Call, param: Param) -> dict[str, Any]:
    return {"name": param.name, "in": "query", "required": param.required, "schema": _schema(call, param)}


def _schema(call: Call, param: Param) -> Mapping[str, Any]:
    told = schemas.PARAMETERS.get(call.path, {}).get(param.name)
    return _BY_READER.get(param.read, {}) if told is None else told


def _body(call: Call) -> dict[str, Any]:
    if call.takes_file:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        schema = {"type": "object", "required": ["file"], "properties": {"file": file}, "additionalProperties": False}
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    schema = _raw(call) if call.raw else _properties(call)
    return {"required": bool(schema["required"]), "content": {_JSON: {"schema": {"type": "object"} | schema}}}


def _raw(call: Call) -> dict[str, Any]:
    return {
        "properties": schemas.PARAMETERS.get(call.path, {}),
        "required": schemas.REQUIRED.get(call.path, []),
    }


def _properties(call: Call) -> dict[str, Any]:
    """Give the schema of a body; other names of a parameter, for the other dialect, are taken too and not shown."""
    return {
        "properties": {param.name: _schema(call, param) for param in call.params},
        "required": [param.name for param in call.params if param.required],
        "additionalProperties": False,
    }


def _sandbox() -> dict[str, Any]:
    """Describe how sandboxes are fetched; whether that needs somebody known is the configuration's to say."""
    refused = {
        "401": "nobody is known",
        "403": "somebody else's",
        "404": "there is no such file",
        "400": "wrong headers",
    }
    told = {"type": "object", "required": ["message"]}
    found = {"application/octet-stream": {"schema": {"type": "string"}}}
    number = {"name": JOB_HEADER, "in": "header", "description": "the PandaID", "schema": {"type": "integer"}}
    return {
        "operationId": "get_cache",
        "tags": ["cache"],
        "summary": "Fetch a sandbox.",
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}, number],
        "security": [{}, *_KNOWN, {"jobToken": []}],
        "responses": {"200": {"description": "the file", "content": found}}
        | {status: _answer(words, told) for status, words in refused.items()}
        | {"429": _answer(_REFUSED["429"], told) | {"headers": _RETRY_AFTER}},
    }
