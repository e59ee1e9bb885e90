"""A WebSocket proxy between clients and a node that loses connections at chosen messages."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import anyio
import anyio.lowlevel
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from reactor.server.node import Node
from tests.system.client.clients import url_of


class Lossy:
    """Passes messages on, JSON only, and hides the server's limits from its clients.

    Attributes:
        fuse: Messages, in either direction, until all connections are aborted.
        passes_last: Whether the message that burns the fuse arrives.
        refuse: Whether new connections are aborted.

    """

    def __init__(self, node: Node) -> None:
        self.port = 0
        self.fuse = math.inf
        self.passes_last = True
        self.refuse = False
        self._node = node
        self._open: set[ServerConnection | ClientConnection] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, node: Node) -> AsyncIterator[Self]:
        line = cls(node)
        async with serve(line._serve, "127.0.0.1", 0, ping_interval=None, close_timeout=1) as server:
            line.port = next(iter(server.sockets)).getsockname()[1]
            yield line
            line.cut()

    def cut(self) -> None:
        """Abort all connections."""
        self.fuse = math.inf
        for connection in self._open:
            connection.transport.abort()

    async def _serve(self, client: ServerConnection) -> None:
        if self.refuse:
            client.transport.abort()
            return
        try:
            async with (
                connect(url_of(self._node), ping_interval=None) as node,
                anyio.create_task_group() as tasks,
            ):
                pair: set[ServerConnection | ClientConnection] = {client, node}
                self._open |= pair
                tasks.start_soon(self._pass_on, client, node)
                await self._pass_on(node, client)
                tasks.cancel_scope.cancel()
                self._open -= pair
        finally:
            client.transport.abort()

    async def _pass_on(
        self, source: ServerConnection | ClientConnection, target: ServerConnection | ClientConnection
    ) -> None:
        try:
            async for text in source:
                self.fuse -= 1
                if self.fuse > 0 or self.passes_last:
                    message = json.loads(text)
                    message.pop("limits", None)
                    await target.send(json.dumps(message))
                if self.fuse <= 0:
                    await anyio.lowlevel.checkpoint()
                    self.cut()
        except ConnectionClosed:
            pass
        target.transport.abort()
