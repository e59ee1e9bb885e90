"""A WebSocket proxy between a client and a node that drops messages or closes the connection."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from reactor.protocol.closing import CloseCode
from reactor.server.node import Node
from tests.system.client.clients import url_of

Message = dict[str, Any]


class Interceptor:
    """Passes messages on, JSON only.

    Attributes:
        drop: Which of the server's messages to drop.
        close_code: The code with which to close instead of passing on a client's message, or None.
        received: The messages of clients, one list for each connection.

    """

    def __init__(self, node: Node) -> None:
        self.port = 0
        self.drop: Callable[[Message], bool] = lambda _: False
        self.close_code: Callable[[Message], int | None] = lambda _: None
        self.received: list[list[Message]] = []
        self._node = node
        self._clients: set[ServerConnection] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, node: Node) -> AsyncIterator[Self]:
        interceptor = cls(node)
        async with serve(interceptor._serve, "127.0.0.1", 0, ping_interval=None) as server:
            interceptor.port = next(iter(server.sockets)).getsockname()[1]
            yield interceptor

    async def close_all(self, code: int, reason: str = "") -> None:
        for client in list(self._clients):
            await client.close(code, reason)

    async def send(self, message: Message) -> None:
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
                if node.close_code == CloseCode.FORCE_LEAVE:
                    await client.close(node.close_code)
                tasks.cancel_scope.cancel()
        finally:
            self._clients.discard(client)

    async def _from_client(self, client: ServerConnection, node: ClientConnection) -> None:
        received: list[Message] = []
        self.received.append(received)
        try:
            async for text in client:
                received.append(message := json.loads(text))
                code = self.close_code(message)
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
                if not self.drop(json.loads(text)):
                    await client.send(text)
        except ConnectionClosed:
            return
