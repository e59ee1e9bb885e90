"""The description of the admin API for programs (https://spec.openapis.org/oas/v3.1.0)."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from reactor import __version__
from reactor.admin.answers import ErrorAnswer
from reactor.admin.routes import Endpoint

_REFUSALS = {
    400: "An id, the query or the body is wrong; the sentence says what.",
    401: "There is no key, or a wrong one.",
    404: "It is not there.",
    408: "The body came too slowly.",
    409: "There are as many as there may be.",
    413: "The body is too large.",
    429: "Too many wrong keys; `Retry-After` says for how long.",
    503: "Redis does not answer; try again.",
}
_IDS = {"room": "the room's id, percent-encoded", "user": "the user's id, percent-encoded"}


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document."""
    kinds = list(dict.fromkeys(kind for one in endpoints for kind in (one.answer, one.body) if kind))
    references, schemas = msgspec.json.schema_components(
        [*kinds, ErrorAnswer], ref_template="#/components/schemas/{name}"
    )
    known = dict(zip([*kinds, ErrorAnswer], references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, known)
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


def _operation(one: Endpoint, known: dict[Any, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _IDS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", one.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.about, "schema": {"type": query.type}}
        for query in one.query
    ]
    responses = {"200": _response("As asked.", known[one.answer])}
    for status in sorted({400, 401, 429, 503, *one.refusals}):
        responses[str(status)] = _response(_REFUSALS[status], known[ErrorAnswer])
    operation: dict[str, Any] = {
        "operationId": one.handler.__name__ if not one.path.endswith("/count") else "count",
        "summary": one.about,
        "parameters": parameters,
        "responses": responses,
    }
    if one.body is not None:
        content = {"application/json": {"schema": known[one.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _response(about: str, schema: Any) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}
