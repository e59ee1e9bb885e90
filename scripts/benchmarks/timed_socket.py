"""A small WebSocket client that takes the time of each message before it is processed."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self, cast

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from reactor.errors import ReactorError

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

OnMessage = Callable[[dict[str, Any], float], None]
"""Called with a message that is not a reply, and the time when it was read (seconds, `time.time()`)."""

REPLY_WITHIN = 30.0


class Socket(asyncio.Protocol):
    """One connection, made by `Socket.open`. closed: when the node's close frame, or its end, was read."""

    def __init__(self, url: str, on_message: OnMessage) -> None:
        self._parser = ClientProtocol(parse_uri(url))
        self._on_message = on_message
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._requests = 0
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()

    @classmethod
    async def open(cls, port: int, on_message: OnMessage, host: str = "127.0.0.1") -> Self:
        """Connect to a node on this machine."""
        loop = asyncio.get_running_loop()
        url = f"ws://{host}:{port}/ws"
        _, protocol = await loop.create_connection(lambda: cls(url, on_message), host, port)
        await asyncio.wait_for(protocol._opened, REPLY_WITHIN)  # noqa: SLF001 - the class's own
        return protocol

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request; return its reply. Raises ReactorError for an `error` or a lost connection."""
        self._requests += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[self._requests] = future
        self.send({**message, "id": self._requests})
        reply = await asyncio.wait_for(future, REPLY_WITHIN)
        if reply["type"] == "error":
            raise ReactorError(f"{message['type']}: {reply['code']}, {reply['message']}")
        return reply

    def send(self, message: dict[str, Any]) -> None:
        """Send a message without a reply, unless the connection is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._parser.send_text(_encode(message))
            self._write()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the opening handshake."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser.send_request(self._parser.connect())
        self._write()

    def data_received(self, data: bytes) -> None:
        """Read messages, and answer pings."""
        at = time.time()
        self._parser.receive_data(data)
        for event in self._parser.events_received():
            if isinstance(event, Response):
                self._handshake_done()
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._message(_decode(event.data), at)
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE and not self.closed.done():
                self.closed.set_result(at)
        self._write()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fail the pending requests."""
        if not self.closed.done():
            self.closed.set_result(time.time())
        waiting: list[asyncio.Future[Any]] = [self._opened, *self._replies.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(ReactorError("the node closed the connection"))
                future.exception()  # it may have no waiter any more

    def _handshake_done(self) -> None:
        if self._opened.done():
            return
        if (error := self._parser.handshake_exc) is None:
            self._opened.set_result(None)
        else:
            self._opened.set_exception(error)

    def _message(self, message: dict[str, Any], at: float) -> None:
        if (number := message.get("id")) is None:
            self._on_message(message, at)
        elif (future := self._replies.pop(number, None)) is not None and not future.done():
            future.set_result(message)

    def _write(self) -> None:
        for data in self._parser.data_to_send():
            if self._transport is None or self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
