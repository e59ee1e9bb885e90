"""A node on one of the test servers, for the length of a block, and a bare client that speaks the wire."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reactor.node import Node, running
from reactor.settings import Settings
from tests.servers import Server

PATIENCE = 15.0
"""Seconds after which something that a test awaits is taken for lost."""


@asynccontextmanager
async def served(server: Server, **options: Any) -> AsyncIterator[Node]:
    """A node on the server, on any free port. Options are settings."""
    defaults: dict[str, Any] = {"redis_url": server.socket_url, "port": 0, "drain_seconds": 0}
    async with running(Settings(**(defaults | options))) as node:
        yield node


class RawClient:
    """Sends and receives JSON, and keeps all that it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []
        self._read = 0

    @classmethod
    @asynccontextmanager
    async def connect(cls, node: Node, **options: Any) -> AsyncIterator[Self]:
        async with connect(f"ws://127.0.0.1:{node.gateway.port}/ws", **options) as socket:
            yield cls(socket)

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of that type, with those fields; what came before it is only kept."""
        with anyio.fail_after(PATIENCE):
            while True:
                while self._read < len(self.heard):
                    message = self.heard[self._read]
                    self._read += 1
                    if message["type"] == kind and all(message.get(k) == v for k, v in fields.items()):
                        return message
                self.heard.append(json.loads(await self.socket.recv()))

    async def ask(self, kind: str, reply: str, **fields: Any) -> dict[str, Any]:
        await self.say(kind, **fields)
        return await self.hear(reply)

    async def join(self, room_id: str, user_id: str, **fields: Any) -> dict[str, Any]:
        return await self.ask("join_room", "room:joined", roomId=room_id, userId=user_id, **fields)

    async def closed(self) -> int:
        """Read on until the server closes; the close code."""
        with anyio.fail_after(PATIENCE):
            try:
                while True:
                    self.heard.append(json.loads(await self.socket.recv()))
            except ConnectionClosed:
                code = self.socket.close_code
                assert code is not None
                return code

    def vanish(self) -> None:
        """Cut the socket off without a word."""
        self.socket.transport.abort()
