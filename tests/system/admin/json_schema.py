"""A small validator of JSON Schema. It knows the keywords that the API's description uses."""

import re
from typing import Any

_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip
_KEYWORDS = {
    "title", "description", "default", "$ref", "enum", "anyOf", "type", "properties", "required", "items",
    "additionalProperties", "minItems", "maxItems", "prefixItems",
}  # fmt: skip


def violations(value: Any, schema: Any, document: Any, where: str = "$") -> list[str]:
    """The violations of the schema by a value, each with its place."""
    if "$ref" in schema:
        target = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return violations(value, target, document, where)
    unknown = set(schema) - _KEYWORDS
    assert not unknown, f"the validator does not know {unknown}"
    if "anyOf" in schema:
        alternatives = [violations(value, one, document, where) for one in schema["anyOf"]]
        return (
            [] if not all(alternatives) else [f"{where}: none of {len(alternatives)} matches: {alternatives}"]
        )
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']}"]
    if "type" in schema:
        kind = schema["type"]
        number = kind in {"integer", "number"} and isinstance(value, bool)
        if number or not isinstance(value, _TYPES[kind]):
            return [f"{where}: {value!r} is not of type {kind}"]
    return _object_violations(value, schema, document, where) + _array_violations(
        value, schema, document, where
    )


def _object_violations(value: Any, schema: Any, document: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    properties = schema.get("properties", {})
    found = [f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    additional = schema.get("additionalProperties", not properties)
    for name, one in value.items():
        if name in properties:
            found += violations(one, properties[name], document, f"{where}.{name}")
        elif isinstance(additional, dict):
            found += violations(one, additional, document, f"{where}.{name}")
        elif not additional:
            found.append(f"{where}: {name} is not described")
    return found


def _array_violations(value: Any, schema: Any, document: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        return []
    found: list[str] = []
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        found.append(f"{where}: {len(value)} items")
    first = schema.get("prefixItems", [])
    for number, one in enumerate(value):
        one_schema = first[number] if number < len(first) else schema.get("items", {})
        if one_schema is not False:
            found += violations(one, one_schema, document, f"{where}[{number}]")
    return found


def path_of(url: str, paths: Any) -> str:
    """The path template of the description that a request's path matches."""
    if url in paths:  # a path without parameters takes precedence (OpenAPI 3.1, Paths Object)
        return url
    (found,) = [path for path in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), url)]
    return str(found)
