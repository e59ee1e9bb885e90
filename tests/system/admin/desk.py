"""A node with its admin port, and a client of that port which has the key."""

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
async def desk(server: Server, **options: Any) -> AsyncIterator[tuple[Node, httpx.AsyncClient]]:
    """Options are settings."""
    options = {"admin_port": free_port(), "admin_key": KEY} | options
    async with served(server, **options) as node, admin_client(node) as client:
        yield node, client


def encoded(identifier: str) -> str:
    return quote(identifier, safe="")


async def ok(client: httpx.AsyncClient, path: str, method: str = "GET", **options: Any) -> Any:
    """Ask, and see that all is well; the answer."""
    answer = await client.request(method, path, **options)
    assert answer.status_code == 200, (path, answer.status_code, answer.text)
    return answer.json()


async def refused(
    client: httpx.AsyncClient, path: str, method: str = "GET", **options: Any
) -> tuple[int, str]:
    """Ask, and see that the refusal has its form; its status and code."""
    answer = await client.request(method, path, **options)
    problem = answer.json()
    assert set(problem) == {"code", "message"}, answer.text
    assert problem["message"].endswith("."), problem
    return answer.status_code, problem["code"]
