"""Generates the OpenAPI description of the admin API (https://spec.openapis.org/oas/v3.1.0)."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from reactor import __version__
from reactor.admin.routes import Operation
from reactor.admin.schemas import ErrorAnswer

_ERRORS = {
    400: "An id, the query or the body is invalid; `message` says which.",
    401: "The key is missing or wrong.",
    404: "It does not exist.",
    408: "The body did not arrive in time.",
    409: "The limit on their number is reached.",
    413: "The body is too large.",
    429: "Too many wrong keys; wait for the seconds in `Retry-After`.",
    503: "Redis does not answer; try again.",
}
_IDS = {"room": "the room's id, percent-encoded", "user": "the user's id, percent-encoded"}


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document."""
    kinds = list(dict.fromkeys(kind for each in operations for kind in (each.response, each.body) if kind))
    references, schemas = msgspec.json.schema_components(
        [*kinds, ErrorAnswer], ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip([*kinds, ErrorAnswer], references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {})
        path[operation.method.lower()] = _operation(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "reactor admin API",
            "version": __version__,
            "description": "For operators and back ends. Ids in paths are percent-encoded.",
        },
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _IDS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.about, "schema": {"type": query.type}}
        for query in operation.query
    ]
    responses = {"200": _response("Success.", schema_of[operation.response])}
    for status in sorted({400, 401, 429, 503, *operation.errors}):
        responses[str(status)] = _response(_ERRORS[status], schema_of[ErrorAnswer])
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__ if not operation.path.endswith("/count") else "count",
        "summary": operation.about,
        "parameters": parameters,
        "responses": responses,
    }
    if operation.body is not None:
        content = {"application/json": {"schema": schema_of[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _response(about: str, schema: Any) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}
