"""Stands between a client and a node as a WebSocket of its own, and meddles with what is said."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from reactor.server.node import Node
from tests.system.client.people import url_of

Message = dict[str, Any]


class Meddler:
    """Passes messages on, JSON only.

    Set `swallow`: which of the server's messages get lost. Set `hang_up`: with which code to close in place
    of passing on a client's message. `heard` holds what clients have said, connection by connection.
    """

    def __init__(self, node: Node) -> None:
        self.port = 0
        self.swallow: Callable[[Message], bool] = lambda _: False
        self.hang_up: Callable[[Message], int | None] = lambda _: None
        self.heard: list[list[Message]] = []
        self._node = node
        self._clients: set[ServerConnection] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, node: Node) -> AsyncIterator[Self]:
        meddler = cls(node)
        async with serve(meddler._serve, "127.0.0.1", 0, ping_interval=None) as server:
            meddler.port = next(iter(server.sockets)).getsockname()[1]
            yield meddler

    async def close_all(self, code: int, reason: str = "") -> None:
        for client in list(self._clients):
            await client.close(code, reason)

    async def say(self, message: Message) -> None:
        """Send every client a message that no node sent."""
        for client in list(self._clients):
            await client.send(json.dumps(message))

    async def _serve(self, client: ServerConnection) -> None:
        self._clients.add(client)
        try:
            async with (
                connect(url_of(self._node), ping_interval=None) as node,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self._from_client, client, node)
                await self._from_node(client, node)
                tasks.cancel_scope.cancel()
        finally:
            self._clients.discard(client)

    async def _from_client(self, client: ServerConnection, node: ClientConnection) -> None:
        said: list[Message] = []
        self.heard.append(said)
        try:
            async for text in client:
                said.append(message := json.loads(text))
                code = self.hang_up(message)
                if code is not None:
                    await client.close(code)
                    break
                await node.send(text)
        except ConnectionClosed:
            pass
        node.transport.abort()

    async def _from_node(self, client: ServerConnection, node: ClientConnection) -> None:
        try:
            async for text in node:
                if not self.swallow(json.loads(text)):
                    await client.send(text)
        except ConnectionClosed:
            return
