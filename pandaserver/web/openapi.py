"""Writes the declared calls as an OpenAPI 3.1 document."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from pandaserver import __version__
from pandaserver.web import values
from pandaserver.web.calls import Call, Param
from pandaserver.web.dialects import V1
from pandaserver.web.roles import Role

_SCHEMAS: dict[Callable[[Any], Any], dict[str, Any]] = {
    values.text: {"type": "string"},
    values.whole_number: {"type": "integer"},
    values.job_ids: {"type": "array", "items": {"type": "integer"}},
}
_JSON = "application/json"
_ERROR = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "integer"},
        "field": {"type": ["string", "null"]},
        "value": {"type": ["string", "null"]},
        "request_id": {"type": "string"},
    },
}
_ENVELOPE = {
    "type": "object",
    "required": ["success", "message", "data"],
    "properties": {
        "success": {"type": "boolean"},
        "message": {"type": "string"},
        "data": {},
        "error": {"$ref": "#/components/schemas/Error"},
    },
}
_ANSWERS = {
    "200": "done, or refused: see `success`",
    "400": "the body cannot be read",
    "413": "the body is too large",
    "429": "too many requests; come again after Retry-After seconds",
}


def describe_calls(calls: Sequence[Call], url: str) -> dict[str, Any]:
    """Describe calls as /api/v1 serves them; who may make one stands in x-allows, as in the table of roles."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "PanDA", "version": __version__, "description": "A pilot-based workload manager."},
        "servers": [{"url": url}],
        "paths": {f"{V1}/{call.path}": _operations(call) for call in calls},
        "components": {
            "schemas": {"Answer": _ENVELOPE, "Error": _ERROR},
            "securitySchemes": {"certificate": {"type": "mutualTLS", "description": "a grid certificate or proxy"}},
        },
    }


def _operations(call: Call) -> dict[str, Any]:
    posted = _operation(call, "post") | {"requestBody": _body(call)}
    if call.writes:
        return {"post": posted}
    return {
        "get": _operation(call, "get") | {"parameters": [_in_query(param) for param in call.params]},
        "post": posted,
    }


def _operation(call: Call, method: str) -> dict[str, Any]:
    module, name = call.path.split("/")
    return {
        "operationId": f"{method}_{module}_{name}",
        "tags": [module],
        "summary": (inspect.getdoc(call.handler) or "").partition("\n")[0],
        "security": [{}] if Role.ANYONE in call.allows else [{"certificate": []}],
        "x-allows": {role.value: str(reach) for role, reach in call.allows.items()},
        "x-legacy": f"/server/panda/{call.legacy}",
        "responses": {status: _answer(words) for status, words in _ANSWERS.items()},
    }


def _answer(words: str) -> dict[str, Any]:
    return {"description": words, "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Answer"}}}}


def _in_query(param: Param) -> dict[str, Any]:
    return {"name": param.name, "in": "query", "required": param.required, "schema": _SCHEMAS.get(param.read, {})}


def _body(call: Call) -> dict[str, Any]:
    if call.takes_file:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        schema = {"type": "object", "required": ["file"], "properties": {"file": file}}
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    schema = {"type": "object"} | ({} if call.raw else _properties(call))
    return {"required": any(param.required for param in call.params), "content": {_JSON: {"schema": schema}}}


def _properties(call: Call) -> dict[str, Any]:
    """Give the schema of a body; other names of a parameter, for the other dialect, are taken too and not shown."""
    return {
        "properties": {param.name: _SCHEMAS.get(param.read, {}) for param in call.params},
        "required": [param.name for param in call.params if param.required],
    }
