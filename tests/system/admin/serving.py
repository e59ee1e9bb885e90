"""Starts nodes with an admin port, and clients of that port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.servers import Server, free_port

KEY = "a-key-of-thirty-two-bytes-or-more"
BEARER = {"Authorization": f"Bearer {KEY}"}


def admin_client(node: Node, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{node.settings.admin_port}", **({"headers": BEARER} | options)
    )


@asynccontextmanager
async def admin_served(server: Server, **options: Any) -> AsyncIterator[tuple[Node, httpx.AsyncClient]]:
    """A node with an admin port, and a client with the key. Options are settings."""
    options = {"admin_port": free_port(), "admin_key": KEY} | options
    async with served(server, **options) as node, admin_client(node) as client:
        yield node, client


def encoded(identifier: str) -> str:
    return quote(identifier, safe="")


async def ok(client: httpx.AsyncClient, path: str, method: str = "GET", **options: Any) -> Any:
    """Send a request that must succeed; the decoded body of its response."""
    answer = await client.request(method, path, **options)
    assert answer.status_code == 200, (path, answer.status_code, answer.text)
    return answer.json()


async def rejected(
    client: httpx.AsyncClient, path: str, method: str = "GET", **options: Any
) -> tuple[int, str]:
    """Send a request that must be rejected with an error body; its status and code."""
    answer = await client.request(method, path, **options)
    error = answer.json()
    assert set(error) == {"code", "message"}, answer.text
    assert error["message"].endswith("."), error
    return answer.status_code, error["code"]
