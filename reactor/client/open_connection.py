"""One open connection to the server: requests and their replies, heartbeats, and its end.

An `OpenConnection` lives from the opened WebSocket to its close; reconnector.py makes the next one. All
messages are sent through one queue, so that a cancelled task never leaves half a message behind and the order
is kept.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import count
from random import uniform
from time import monotonic, time

import anyio
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from reactor.errors import NotJoined, ReactorError, Refused, RoomFull, Unavailable
from reactor.protocol.codec import codec_for
from reactor.protocol.messages import ErrorMessage, ProtocolError, ServerMessage
from reactor.protocol.requests import Heartbeat, Request

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 25.0
"""Seconds between heartbeats until the server has sent its own interval."""

_RATE_LIMIT_DELAY = (1.0, 2.0)
"""Seconds, drawn at random, until a request that was refused as one too many is sent again."""

_CLOCK_CHECK = 5.0
"""Longest sleep (s) between checks of the clocks: after a suspend of the machine a heartbeat is due."""

_ERROR_CLASSES: dict[str, type[ReactorError]] = {
    "not_joined": NotJoined,
    "room_full": RoomFull,
    "unavailable": Unavailable,
}

_TRANSIENT = frozenset({"too_many_pending", "too_many_requests", "internal"})


class ConnectionLost(Exception):
    """The connection was lost, and with it the reply."""


def refusal(message: ErrorMessage) -> ReactorError:
    """Return the exception for an `error` message, with the server's sentence."""
    known = _ERROR_CLASSES.get(message.code)
    return known(message.message) if known is not None else Refused(message.message, message.code)


def is_transient(error: ReactorError) -> bool:
    """Return whether the same request may succeed a moment later."""
    return isinstance(error, Unavailable | NotJoined) or (
        isinstance(error, Refused) and error.code in _TRANSIENT
    )


class OpenConnection:
    """An open WebSocket. Nothing is sent or received until `run` runs.

    Attributes:
        interval: Seconds between heartbeats; set by `set_interval`.
        degraded: Whether the server has sent that it has no Redis.
        lost: Whether the WebSocket is closed.
        opened_at: When it was opened, by the monotonic clock.

    """

    def __init__(
        self,
        socket: ClientConnection,
        on_message: Callable[["OpenConnection", ServerMessage], None],
        *,
        heartbeat_timeout: float,
    ) -> None:
        """heartbeat_timeout: seconds without a reply to a heartbeat until the connection is given up."""
        self.interval = HEARTBEAT_INTERVAL
        self.degraded = False
        self.lost = False
        self.opened_at = monotonic()
        self._socket = socket
        self._codec = codec_for(socket.subprotocol)
        self._on_message = on_message
        self._heartbeat_timeout = heartbeat_timeout
        self._ids = count(1)
        self._pending: dict[int, asyncio.Future[ServerMessage | None]] = {}
        self._outbox: deque[bytes] = deque()
        self._outbox_filled = asyncio.Event()
        self._schedule_changed = asyncio.Event()
        self._last_heartbeat = (monotonic(), time())

    # Sending.

    def post(self, request: Request) -> None:
        """Send a request without waiting for its reply."""
        if not self.lost:
            self._outbox.append(self._codec.encode(request))
            self._outbox_filled.set()

    async def ask(self, *requests: Request) -> list[ServerMessage]:
        """Send requests directly one after the other, and return their replies.

        Raises:
            ConnectionLost: The connection was lost before all were answered.
            ReactorError: The first refusal.

        """
        ids: list[int] = []
        try:
            futures = [self._send(request, ids) for request in requests]
            replies: list[ServerMessage] = []
            for request, future in zip(requests, futures, strict=True):
                reply = await future
                while isinstance(reply, ErrorMessage) and reply.code == "too_many_requests":
                    # The server did not process it, so it can be sent again.
                    await anyio.sleep(uniform(*_RATE_LIMIT_DELAY))  # noqa: S311 - jitter, not a secret
                    reply = await self._send(request, ids)
                if reply is None:
                    raise ConnectionLost
                if isinstance(reply, ErrorMessage):
                    raise refusal(reply)
                replies.append(reply)
            return replies
        finally:
            for request_id in ids:
                self._pending.pop(request_id, None)

    def _send(self, request: Request, ids: list[int]) -> asyncio.Future[ServerMessage | None]:
        if self.lost:
            raise ConnectionLost
        request_id = next(self._ids)
        ids.append(request_id)
        self._pending[request_id] = asyncio.get_running_loop().create_future()
        self.post(replace(request, id=request_id))
        return self._pending[request_id]

    def set_interval(self, interval: float) -> None:
        """Set the time between heartbeats (s)."""
        if interval != self.interval:
            self.interval = interval
            self._schedule_changed.set()

    def heartbeat_now(self) -> None:
        """Send a heartbeat before it is due."""
        self._last_heartbeat = (float("-inf"), float("-inf"))
        self._schedule_changed.set()

    # Life cycle.

    @property
    def close_reason(self) -> str:
        """The server's reason for the close, or ""."""
        return self._socket.close_reason or ""

    async def run(self) -> int:
        """Send, receive and keep alive until the WebSocket is closed; return the close code, 1006 if none."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                tasks.start_soon(self._send_heartbeats)
                await self._read()
                tasks.cancel_scope.cancel()
        finally:
            self.lost = True
            self._outbox.clear()
            for future in self._pending.values():
                if not future.done():
                    future.set_result(None)
        return self._socket.close_code or 1006

    async def close(self, within: float) -> None:
        """Close with a handshake that takes at most so many seconds; then abort."""
        with anyio.move_on_after(within):
            await self._socket.close()
        await self.abort()

    async def abort(self) -> None:
        """Close the transport at once."""
        self._socket.transport.abort()
        with anyio.CancelScope(shield=True):
            await self._socket.wait_closed()

    async def _read(self) -> None:
        while True:
            try:
                payload = await self._socket.recv(decode=False)
            except ConnectionClosed:
                return
            try:
                self._receive(payload)
            except ProtocolError as error:
                # A diff that is skipped shows as a gap, as a lost one does.
                log.warning("message skipped: %s", error)
            except Exception:
                log.exception("handling a message from the server failed")

    def _receive(self, payload: bytes) -> None:
        message = self._codec.decode_reply(payload)
        if message is None:
            return
        self._on_message(self, message)
        request_id = getattr(message, "id", None)
        if request_id is None:
            if isinstance(message, ErrorMessage):
                log.warning("the server sent an error: %s (%s)", message.message, message.code)
            return
        future = self._pending.get(request_id)
        if future is not None and not future.done():
            future.set_result(message)

    async def _write(self) -> None:
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled.clear()
            while self._outbox:
                payload = self._outbox.popleft()
                try:
                    await self._socket.send(payload, text=not self._codec.binary)
                except ConnectionClosed:
                    return

    # Heartbeats.

    async def _send_heartbeats(self) -> None:
        while True:
            await self._wait_until_due()
            self._last_heartbeat = (monotonic(), time())
            try:
                with anyio.fail_after(self._heartbeat_timeout):
                    await self.ask(Heartbeat())
            except TimeoutError:
                if not await self._degraded_but_alive():
                    log.warning(
                        "no reply to a heartbeat in %g s: closing the connection", self._heartbeat_timeout
                    )
                    self._socket.transport.abort()
                    return
            except ConnectionLost:
                return

    async def _wait_until_due(self) -> None:
        while True:
            self._schedule_changed.clear()
            # The monotonic clock may stop while the machine is suspended, and the wall clock may be set back.
            passed = max(monotonic() - self._last_heartbeat[0], time() - self._last_heartbeat[1])
            if passed >= self.interval:
                return
            with anyio.move_on_after(min(self.interval - passed, _CLOCK_CHECK)):
                await self._schedule_changed.wait()

    async def _degraded_but_alive(self) -> bool:
        """Return whether the server is reachable and only lacks Redis to accept the heartbeat."""
        if not self.degraded:
            return False
        try:
            with anyio.fail_after(self._heartbeat_timeout):
                await (await self._socket.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True
