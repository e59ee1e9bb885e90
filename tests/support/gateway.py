"""A gateway without Redis on a real port, and a client that sends arbitrary bytes to it."""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from reactor.gateway.connection import Connection
from reactor.gateway.server import Gateway
from reactor.protocol.intents import Authenticate, Intent, Refresh
from reactor.protocol.messages import HeartbeatAck
from reactor.settings import Settings
from tests.support.waiting import PATIENCE, Changes


class Recorder:
    """A handler that acknowledges heartbeats at once and records everything that the gateway calls."""

    def __init__(self) -> None:
        self._changes = Changes()
        self.opened_: list[Connection] = []
        self.closed_: list[Connection] = []
        self.intents: list[Intent] = []
        self.is_ready = (True, "ready")
        self.act: Callable[[Connection, Intent], None] = self.acknowledge

    def opened(self, connection: Connection) -> None:
        connection.socket_id = f"s{len(self.opened_)}"
        self.opened_.append(connection)
        self._changes.notify()

    def intent(self, connection: Connection, intent: Intent) -> None:
        self.intents.append(intent)
        self.act(connection, intent)
        self._changes.notify()

    def admits_token(self, connection: Connection, intent: Authenticate) -> bool:
        return True

    def charge_reading(self, connection: Connection, payload: bytes, seconds: float) -> None:
        pass

    def admits(self, connection: Connection, payload: bytes) -> bool:
        return True

    def drained(self, connection: Connection) -> None:
        pass

    def closed(self, connection: Connection) -> None:
        self.closed_.append(connection)
        self._changes.notify()

    def ready(self) -> tuple[bool, str]:
        return self.is_ready

    def acknowledge(self, connection: Connection, intent: Intent) -> None:
        if isinstance(intent, Refresh):
            connection.send(HeartbeatAck(1, intent.room_id, intent.id))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition on what the gateway has called is true."""
        await self._changes.until(condition)


class Served:
    def __init__(self, gateway: Gateway, handler: Any) -> None:
        self.gateway = gateway
        self.handler = handler
        self.port = gateway.port
        self.url = f"ws://127.0.0.1:{gateway.port}/ws"

    async def raw(self, *, handshake: bool = True, **headers: str) -> "Raw":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Raw(reader, writer)
        if handshake:
            await client.shake_hands(**headers)
        return client


@asynccontextmanager
async def serving(
    handler: Any = None, *, gateway: type[Gateway] = Gateway, **settings: Any
) -> AsyncIterator[Served]:
    handler = handler or Recorder()
    # A bystander sends faster than the default limit allows; the limit has tests of its own.
    server = gateway(Settings(**{"port": 0, "messages_per_second": 0} | settings), handler)
    await server.start()
    try:
        yield Served(server, handler)
    finally:
        await server.stop()
        assert not server.connections


def request(path: str = "/ws", method: str = "GET", **headers: str) -> bytes:
    lines = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode()


def client_frame(opcode: int, data: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin).serialize(mask=mask)


def text(message: Any) -> bytes:
    return client_frame(Opcode.TEXT, msgspec.json.encode(message))


BELOW_DEFAULT = 4.5
"""Seconds: enough for any short time-out that a test sets, and less than the default of 5 s."""

HEARTBEAT = {"type": "room:heartbeat", "id": 7}


class Raw:
    """A client that reads and writes raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def shake_hands(self, **headers: str) -> bytes:
        self.writer.write(request(**headers))
        async with asyncio.timeout(PATIENCE):
            response = await self.reader.readuntil(b"\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 101 "), response
        return response

    def write(self, *data: bytes | bytearray) -> None:
        self.writer.write(b"".join(data))

    async def frame(self) -> tuple[int, bytes]:
        """The next whole frame from the server: opcode and payload; (-1, b"") at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            try:
                head = await self._exactly(2)
                assert head[0] & 0x80
                assert not head[1] & 0x80
                size = head[1]
                if size == 126:
                    size = int.from_bytes(await self._exactly(2))
                elif size == 127:
                    size = int.from_bytes(await self._exactly(8))
                return head[0] & 0x0F, await self._exactly(size)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return -1, b""

    async def _exactly(self, size: int) -> bytes:
        """Read so many bytes, also those that had arrived when the connection was reset.

        The server resets a connection that it closes while data of the client is unread. The stream raises
        that in place of a close frame before it, if this process handles both before the test reads.
        """
        try:
            return await self.reader.readexactly(size)
        except ConnectionResetError:
            arrived: bytearray = self.reader._buffer  # type: ignore[attr-defined]
            if len(arrived) < size:
                raise
            data = bytes(arrived[:size])
            del arrived[:size]
            return data

    async def message(self) -> Any:
        opcode, data = await self.frame()
        assert opcode == Opcode.TEXT, (opcode, data)
        return msgspec.json.decode(data)

    async def close_code(self) -> int:
        """The code of the next close frame, after any other frames; 1006 when the stream ends without one."""
        while True:
            opcode, data = await self.frame()
            if opcode == Opcode.CLOSE:
                return int.from_bytes(data[:2]) if data else 1005
            if opcode == -1:
                return 1006

    async def ended(self) -> bool:
        """Wait for the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            try:
                await self.reader.read()
            except ConnectionResetError:
                return True
            return self.reader.at_eof()


@asynccontextmanager
async def bystander(served: Served, within: float = 1.0) -> AsyncIterator[None]:
    """A client that sends heartbeats during the block.

    Between sending one and its acknowledgement this process, which also runs the gateway, may use at most
    `within` seconds of CPU time; a busy machine does not count.
    """
    acked = 0
    changes = Changes()

    async def beat() -> None:
        nonlocal acked
        async with connect(served.url, compression=None) as socket:
            while True:
                await socket.send(msgspec.json.encode({"type": "room:heartbeat", "id": acked}), text=True)
                began = time.process_time()
                async with asyncio.timeout(PATIENCE):
                    ack = msgspec.json.decode(await socket.recv())
                assert time.process_time() - began < within
                assert ack == {"type": "room:heartbeat:ack", "id": acked, "timestamp": 1}
                acked += 1
                changes.notify()
                await asyncio.sleep(0.002)

    async def until_acked(count: int) -> None:
        await changes.until(lambda: acked >= count or task.done())
        if task.done():
            await task  # raises what ended it

    task = asyncio.create_task(beat())
    task.add_done_callback(lambda _: changes.notify())
    try:
        await until_acked(2)
        yield
        await until_acked(acked + 2)
    finally:
        task.cancel()
        await asyncio.wait([task])
