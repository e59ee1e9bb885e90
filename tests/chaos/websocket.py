"""A minimal WebSocket client (RFC 6455), cheap enough for hundreds in one process.

It masks with zeros, so that masking costs nothing, and passes on the payload of every text frame.
"""

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Self

OPEN_WITHIN = 3.0

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Refused(OSError):
    """The opening handshake failed."""


class WebSocket(asyncio.Protocol):
    """One connection. Calls `on_message(payload)` for each message and `on_closed(code)` once."""

    def __init__(self, on_message: Callable[[bytes], None], on_closed: Callable[[int], None]) -> None:
        self._on_message, self._on_closed = on_message, on_closed
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: Any = None
        self._buffer = bytearray()
        self._code = 1006
        self._head_read = False
        self.muted = False
        self.open = False

    @classmethod
    async def connect(
        cls, port: int, on_message: Callable[[bytes], None], on_closed: Callable[[int], None],
        headers: Mapping[str, str] | None = None,
    ) -> Self:  # fmt: skip
        """Connect and complete the handshake. Raises OSError if the server does not answer in time."""
        loop = asyncio.get_running_loop()
        websocket = cls(on_message, on_closed)
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                await loop.create_connection(lambda: websocket, "127.0.0.1", port)
                key = b64encode(os.urandom(16)).decode()
                request = (
                    f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                    f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                    + "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
                    + "\r\n"
                )
                websocket._transport.write(request.encode())
                await websocket._opened
        except TimeoutError as error:
            websocket.abort()
            raise Refused("no answer to the opening handshake") from error
        return websocket

    def send(self, payload: bytes) -> None:
        """Send a text frame, unless the connection is closed or muted."""
        if self.open and not self.muted:
            self._frame(_TEXT, payload)

    def close(self) -> None:
        """Send a close frame."""
        if self.open and not self.muted:
            self._frame(_CLOSE, (1000).to_bytes(2, "big"))

    def abort(self) -> None:
        """Abort the TCP connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    def mute(self) -> None:
        """Keep the connection open, but neither read nor send any more, as a half-open connection."""
        self.muted = True
        self._transport.pause_reading()

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        else:
            head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        self._transport.write(head + b"\0\0\0\0" + payload)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._head_read:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            status = bytes(self._buffer[:12])
            del self._buffer[: end + 4]
            self._head_read = True
            if status != b"HTTP/1.1 101":
                if not self._opened.done():
                    self._opened.set_exception(Refused(status.decode(errors="replace")))
                self.abort()
                return
            self.open = True
            if not self._opened.done():
                self._opened.set_result(None)
        self._read_frames()

    def _read_frames(self) -> None:
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < start + size:
                break
            opcode, payload = buffer[at] & 15, bytes(buffer[start : start + size])
            at = start + size
            if opcode == _TEXT:
                self._on_message(payload)
            elif opcode == _PING:
                self._frame(_PONG, payload)
            elif opcode == _CLOSE:
                self._code = int.from_bytes(payload[:2], "big") if payload else 1005
                self._frame(_CLOSE, payload[:2])
                self.open = False
                self._transport.close()
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.open = self._head_read, False
        if not self._opened.done():
            self._opened.set_exception(Refused("closed in the opening handshake"))
            self._opened.exception()
        if was_open:
            self._on_closed(self._code)
