"""The OpenAPI description: it has every operation, and every response matches its schema."""

from typing import Any

import pytest

from reactor.admin.handlers import AdminHandlers
from reactor.admin.routes import operations
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.admin.json_schema import path_of, violations
from tests.system.admin.serving import KEY, admin_served, ok

REQUESTS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1/overview", None, 200),
    ("GET", "/v1/rooms", None, 200),
    ("GET", "/v1/rooms?limit=1", None, 200),
    ("GET", "/v1/rooms?limit=0", None, 400),
    ("GET", f"/v1/rooms?limit={'9' * 5000}", None, 400),
    ("GET", "/v1/rooms/lobby", None, 200),
    ("GET", "/v1/rooms/lobby/count", None, 200),
    ("GET", "/v1/rooms/lobby/members", None, 200),
    ("GET", "/v1/rooms/lobby/members?limit=1", None, 200),
    ("GET", "/v1/rooms/lobby/members/ann", None, 200),
    ("GET", "/v1/rooms/lobby/members/nobody", None, 404),
    ("POST", "/v1/rooms/lobby/messages", {"data": {"any": [None, 1, 2.5]}}, 200),
    ("POST", "/v1/rooms/lobby/messages", {}, 400),
    ("PUT", "/v1/rooms/lobby/settings", {"ttl": "10m", "max_members": 5, "message": "x"}, 200),
    ("GET", "/v1/rooms/lobby/settings", None, 200),
    ("DELETE", "/v1/rooms/lobby/settings", None, 200),
    ("DELETE", "/v1/rooms/lobby/settings", None, 404),
    ("DELETE", "/v1/rooms/lobby/members/ann?message=x", None, 200),
    ("DELETE", "/v1/rooms/lobby/members/ann", None, 404),
    ("GET", "/v1/users/ann", None, 200),
    ("POST", "/v1/users/query", {"userIds": ["ann", 7]}, 200),
    ("DELETE", "/v1/users/ann", None, 200),
    ("POST", "/v1/users/ann/disconnect?message=x", None, 200),
    ("POST", "/v1/users/zoe/revoke", None, 200),
    ("POST", "/v1/users/zoe/revoke?issuedBefore=1700000000000", None, 200),
    ("POST", "/v1/users/zoe/revoke?issuedBefore=yesterday", None, 400),
    ("POST", "/v1/bans", {"userId": "zoe", "roomId": "lobby", "for": "1h", "message": "x", "by": "y"}, 200),
    ("POST", "/v1/bans", {"userId": "zoe", "for": "10y"}, 400),
    ("GET", "/v1/bans?limit=1", None, 200),
    ("DELETE", "/v1/bans/zoe?room=lobby", None, 200),
    ("DELETE", "/v1/bans/zoe", None, 404),
    ("GET", "/v1/node", None, 200),
    ("PUT", "/v1/node/log-level", {"level": "warning"}, 200),
    ("PUT", "/v1/node/log-level", {"level": "loud"}, 400),
    ("PUT", "/v1/node/drain", None, 200),
    ("DELETE", "/v1/node/drain", None, 200),
    ("GET", "/v1/departures", None, 200),
    ("GET", "/v1/departures?room=lobby&since=1h&limit=5", None, 200),
]


async def test_every_response_matches_its_schema(bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, admin),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        document = await ok(admin, "/openapi.json")
        await ann.join("lobby", "ann", data={"n": 1})
        await bob.join("lobby", "bob")
        await bob.join("hall", "bob")
        await until(lambda: bundled_server.control.keys("{reactor:fleet}:report:*"))
        requested = set()
        for method, url, body, status in REQUESTS:
            answer = (
                await admin.request(method, url, json=body)
                if body is not None
                else await admin.request(method, url)
            )
            assert answer.status_code == status, (url, answer.text)
            path = path_of(url.partition("?")[0], document["paths"])
            operation = document["paths"][path][method.lower()]
            schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
            assert violations(answer.json(), schema, document) == [], url
            if body and status == 200:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert violations(body, schema, document) == [], url
            requested.add((method, path))
        assert requested == {(one.method, one.path) for one in operations(AdminHandlers(node))}


async def test_every_operation_is_described_and_no_other(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin):
        document = await ok(admin, "/openapi.json")
        described = {
            (method.upper(), path) for path, methods in document["paths"].items() for method in methods
        }
        assert described == {(one.method, one.path) for one in operations(AdminHandlers(node))}
        described_operations = [one for path in document["paths"].values() for one in path.values()]
        assert len({one["operationId"] for one in described_operations}) == len(described_operations)
        assert document["openapi"] == "3.1.0"
        assert KEY not in str(document)


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1, {"type": "string"}),
        (True, {"type": "integer"}),
        ({}, {"type": "object", "required": ["a"], "properties": {"a": {}}}),
        ({"b": 1}, {"type": "object", "properties": {"a": {}}}),
        ([1, "x"], {"type": "array", "items": {"type": "integer"}}),
        ("x", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    ],
)
def test_the_validator_finds_violations(value: Any, schema: Any) -> None:
    assert violations(value, schema, {})
