"""A WebSocket client that sends and receives plain JSON, independent of the client library."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reactor.server.node import Node
from tests.support.nodes import NodeProcess
from tests.support.waiting import PATIENCE, Changes, describe

Message = dict[str, Any]


class RawClient:
    """Sends and receives JSON. `received` keeps every message that it received, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.received: list[Message] = []
        self._read = 0
        self._asked = 0
        self._changes = Changes()
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = [asyncio.create_task(self._listen())]

    @classmethod
    @asynccontextmanager
    async def connect(cls, node: Node | NodeProcess, **options: Any) -> AsyncIterator[Self]:
        port = node.port if isinstance(node, NodeProcess) else node.gateway.port
        options = {"ping_interval": None, "close_timeout": 1.0, "max_queue": None} | options
        async with connect(f"ws://127.0.0.1:{port}/ws", **options) as socket:
            client = cls(socket)
            try:
                yield client
            finally:
                for task in client._tasks:
                    task.cancel()
                await asyncio.gather(*client._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            async for payload in self.socket:
                self.received.append(json.loads(payload))
                self._changes.notify()
        finally:
            self._ended.set()
            self._changes.notify()

    # Sending.

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def ask(self, kind: str, reply: str, **fields: Any) -> Message:
        """Send a request and wait for its reply; messages received meanwhile stay available to `receive`."""
        start = len(self.received)
        await self.send(kind, **fields)
        return await self.has_received(reply, start)

    async def answer(self, kind: str, **fields: Any) -> Message:
        """Send a request with an id of its own, and wait for the message that carries this id."""
        self._asked += 1
        start, request_id = len(self.received), f"request {self._asked}"
        await self.send(kind, id=request_id, **fields)
        await self.until(lambda: any(message.get("id") == request_id for message in self.received[start:]))
        return next(message for message in self.received[start:] if message.get("id") == request_id)

    async def join(self, room_id: str | int, user_id: str | int, **fields: Any) -> Message:
        return await self.ask("join_room", "room:joined", roomId=room_id, userId=user_id, **fields)

    async def barrier(self) -> None:
        """Return when the server has processed what was sent before, except for replies that need Redis."""
        start = len(self.received)
        await self.socket.send("{")
        await self.has_received("error", start, code="bad_json")

    def start_heartbeats(self, every: float = 0.2) -> Self:
        """Send heartbeats for all rooms in the background, every `every` seconds."""
        self._tasks.append(asyncio.create_task(self._send_heartbeats(every)))
        return self

    def stop_heartbeats(self) -> None:
        """Stop sending heartbeats."""
        for task in self._tasks[1:]:
            task.cancel()
        del self._tasks[1:]

    async def _send_heartbeats(self, every: float) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.send("room:heartbeat")
                await asyncio.sleep(every)

    # Receiving.

    async def receive(self, kind: str, **fields: Any) -> Message:
        """The next message of that type, with those fields; the messages before it are only kept."""
        return await self.receive_next(
            lambda message: _is(message, kind, fields), f"{kind} {fields} received"
        )

    async def has_received(self, kind: str, start: int = 0, **fields: Any) -> Message:
        """The first message of that type, with those fields, from `start` on; waits for it if need be."""
        found: Message = await self.until(
            lambda: next((message for message in self.received[start:] if _is(message, kind, fields)), None),
            f"{kind} {fields} received",
        )
        return found

    async def receive_next(self, wanted: Callable[[Message], bool], what: str = "") -> Message:
        """The next message that satisfies `wanted`; the messages before it are only kept."""

        def found() -> Message | None:
            while self._read < len(self.received):
                message = self.received[self._read]
                self._read += 1
                if wanted(message):
                    return message
            return None

        message: Message = await self.until(found, what or describe(wanted))
        return message

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """The first true value of a condition on the messages received; fails when the connection closes."""

        def checked() -> Any:
            value = condition()
            assert value or self.open, f"closed with {self.socket.close_code} after {self.received[-5:]}"
            return value

        def failed() -> str:
            return f"{what or describe(condition)}; received last: {self.received[-5:]}"

        return await self._changes.until(checked, what=failed)

    async def receive_departure_of(self, user_id: str) -> str:
        """Wait for the diff with the departure of the user; its reason."""
        diff = await self.receive_next(lambda message: user_id in [left for left, _ in departures([message])])
        return next(reason for left, reason in departures([diff]) if left == user_id)

    async def receive_departures(self, number: int) -> None:
        """Wait until this many departures have been received in all."""
        await self.until(lambda: len(departures(self.received)) >= number)

    async def closed(self) -> int:
        """Wait until the socket is closed; the close code."""
        with anyio.fail_after(PATIENCE):
            await self._ended.wait()
        code = self.socket.close_code
        assert code is not None
        return code

    @property
    def open(self) -> bool:
        return not self._ended.is_set()

    def of(self, *kinds: str) -> list[Message]:
        """The messages of these types received so far."""
        return [message for message in self.received if message["type"] in kinds]

    def vanish(self) -> None:
        """Abort the TCP connection, without a close frame."""
        self.stop_heartbeats()
        self.socket.transport.abort()


def _is(message: Message, kind: str, fields: Message) -> bool:
    return message["type"] == kind and all(message.get(key) == value for key, value in fields.items())


def departures(received: Iterable[Message], room_id: str | None = None) -> list[tuple[str, str]]:
    """The departures in these messages: user and reason, in order."""
    return [
        (left["userId"], left["reason"])
        for message in received
        if message["type"] == "room:diff" and room_id in (None, message["roomId"])
        for left in message["left"]
    ]
