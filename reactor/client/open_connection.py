"""One open connection to the server: requests and their replies, heartbeats, and its end.

An `OpenConnection` lives from the opened WebSocket to its close; reconnector.py makes the next one. All
messages are sent through one queue, so that a cancelled task never leaves half a message behind and the order
is kept.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from random import random
from time import monotonic, time
from typing import NamedTuple

import anyio
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from reactor.client.status import Status
from reactor.errors import ForceLeave, NotJoined, ReactorError, Refused, RoomFull, Unavailable
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import codec_for
from reactor.protocol.messages import (
    ErrorMessage,
    MessageLimits,
    ProtocolError,
    RoomForceLeave,
    RoomLeft,
    ServerMessage,
)
from reactor.protocol.requests import Heartbeat, Request

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 25.0
"""Seconds between heartbeats until the server has sent its own interval."""

_RETRY_DELAY = 1.0
"""Seconds, and up to as much again at random, until a request that was one too many is sent again."""

_CLOCK_CHECK = 5.0
"""Longest sleep (s) between checks of the clocks: after a suspend of the machine a heartbeat is due."""

_UNREQUESTED = frozenset({"token_expired", "banned"})
"""Codes of errors that the server sends by itself, and that answer no request."""

_ERROR_CLASSES: dict[str, type[ReactorError]] = {
    "not_joined": NotJoined,
    "room_full": RoomFull,
    "unavailable": Unavailable,
}

_NAMES = {"userId": "user_id", "roomId": "room_id", "join_room": "join", "room:update": "update"}
_NAMES_ON_THE_WIRE = re.compile(rf'"?\b({"|".join(_NAMES)})\b"?')

_TRANSIENT = frozenset({"too_many_pending", "too_many_requests", "internal"})


_ALWAYS_ACCEPTED = 256
"""Bytes of a message that every server accepts: the lowest value of its setting `max_message`."""


class ConnectionLost(Exception):
    """The connection was lost, and with it the reply."""


class OpenRequest(NamedTuple):
    """A request that was sent and is not answered yet; `size` is that of its message in bytes."""

    room_id: str | None
    size: int
    reply: "asyncio.Future[ServerMessage | None]"


def refusal(message: ErrorMessage) -> ReactorError:
    """Return the exception for an `error` message, with the server's sentence in the words of this API."""
    sentence = _NAMES_ON_THE_WIRE.sub(lambda found: _NAMES[found[1]], message.message)
    if sentence.startswith("this server requires a token"):
        sentence = "the server requires a token: pass token to Client"
    known = _ERROR_CLASSES.get(message.code)
    if known is not None:
        return known(sentence)
    retry_after = None if message.retry_after is None else message.retry_after / 1000
    return Refused(sentence, message.code, retry_after, message.until)


def retry_delay(message: ErrorMessage, chance: float) -> float:
    """Return the seconds until a refused request is sent again: what the server says, or longer.

    chance: from 0 to 1, so that clients that were refused together do not come back together.
    """
    return max(_RETRY_DELAY, (message.retry_after or 0) / 1000) * (1.0 + chance)


def force_leave(message: RoomForceLeave) -> ForceLeave:
    """Return the exception for a `room:force-leave`."""
    return ForceLeave(message.message, message.room_id, message.reason, message.timestamp, message.until)


def is_transient(error: ReactorError) -> bool:
    """Return whether the same request may succeed a moment later."""
    return isinstance(error, Unavailable | NotJoined) or (
        isinstance(error, Refused) and error.code in _TRANSIENT
    )


def too_big(what: str, limit: int) -> Refused:
    """Return the exception for what exceeds a limit of the server."""
    return Refused(f"{what}, and the server takes at most {limit}: send less", "too_big")


class OpenConnection:
    """An open WebSocket. Nothing is sent or received until `run` runs.

    Attributes:
        interval: Seconds between heartbeats; set by `set_interval`.
        degraded: Whether the server has sent that it has no Redis.
        limits: What the server takes, in bytes; None until it has said so.
        lost: Whether the WebSocket is closed.
        answered: Whether the server has sent anything but errors.
        released: Whether it has ended a membership.
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
        self.limits: MessageLimits | None = None
        self.lost = False
        self.answered = False
        self.released = False
        self.opened_at = monotonic()
        self._socket = socket
        self._codec = codec_for(socket.subprotocol)
        self._on_message = on_message
        self._heartbeat_timeout = heartbeat_timeout
        self._ids = count(1)
        self._open_requests: dict[int, OpenRequest] = {}
        self._outbox: deque[bytes] = deque()
        self._outbox_filled = asyncio.Event()
        self._schedule_changed = asyncio.Event()
        self._last_heartbeat = (monotonic(), time())

    @property
    def status(self) -> Status:
        """The status of what is up to date on this connection."""
        return Status.DEGRADED if self.degraded else Status.CONNECTED

    # Sending.

    def post(self, request: Request) -> None:
        """Send a request without waiting for its reply."""
        if not self.lost:
            # With an id, so that an error in reply to it is not taken for the reply to another request.
            self._put(self._encode(replace(request, id=next(self._ids))))

    async def ask(self, *requests: Request) -> list[ServerMessage]:
        """Send requests directly one after the other, and return their replies.

        Raises:
            ConnectionLost: The connection was lost before all were answered.
            Refused: `too_big`: a request exceeds the server's limit, and none was sent; or the server closed
                the connection because of its size.
            ReactorError: The first refusal.

        """
        ids: list[int] = []
        try:
            opened = self._send(requests, ids)
            replies: list[ServerMessage] = []
            for request, future in zip(requests, opened, strict=True):
                reply = await future
                while isinstance(reply, ErrorMessage) and reply.code == "too_many_requests":
                    # The server did not process it, so it can be sent again.
                    await anyio.sleep(retry_delay(reply, random()))  # noqa: S311 - jitter, no secret
                    reply = await self._send((request,), ids)[0]
                if reply is None:
                    raise ConnectionLost
                if isinstance(reply, ErrorMessage):
                    raise refusal(reply)
                if isinstance(reply, RoomForceLeave):
                    raise force_leave(reply)
                replies.append(reply)
            return replies
        finally:
            for request_id in ids:
                self._open_requests.pop(request_id, None)

    def _send(
        self, requests: Iterable[Request], ids: list[int]
    ) -> list[asyncio.Future[ServerMessage | None]]:
        if self.lost:
            raise ConnectionLost
        numbered = [(next(self._ids), request) for request in requests]
        # All are encoded before the first is sent, so that one which cannot be sent leaves none half-done.
        payloads = [self._encode(replace(request, id=number)) for number, request in numbered]
        futures = []
        for (number, request), payload in zip(numbered, payloads, strict=True):
            future = asyncio.get_running_loop().create_future()
            room_id = getattr(request, "room_id", None)
            self._open_requests[number] = OpenRequest(room_id, len(payload), future)
            ids.append(number)
            futures.append(future)
            self._put(payload)
        return futures

    def _encode(self, request: Request) -> bytes:
        try:
            payload = self._codec.encode(request)
        except (ValueError, OverflowError, TypeError) as error:
            # An argument that only the encoder looks at: it concerns this request alone.
            raise Refused(f"the request cannot be encoded ({error})", "bad_request") from error
        if self.limits is not None and len(payload) > self.limits.message:
            raise too_big(f"the message takes {len(payload)} bytes", self.limits.message)
        return payload

    def _put(self, payload: bytes) -> None:
        self._outbox.append(payload)
        self._outbox_filled.set()

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
            if self._socket.close_code == CloseCode.TOO_BIG:
                self._refuse_largest()
            for request in self._open_requests.values():
                if not request.reply.done():
                    request.reply.set_result(None)
        return self._socket.close_code or 1006

    async def close(self, within: float) -> None:
        """Close with a handshake, and abort where that takes longer than `within` seconds."""
        with anyio.move_on_after(within):
            await self._socket.close()
        await self.abort()

    def drop(self) -> None:
        """Close the transport at once, without waiting until it is closed."""
        self._socket.transport.abort()

    async def abort(self) -> None:
        """Close the transport at once, and return when it is closed."""
        self.drop()
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
        self.answered = self.answered or not isinstance(message, ErrorMessage)
        self.released = self.released or isinstance(message, RoomForceLeave | RoomLeft)
        self._on_message(self, message)
        request = self._request_answered(message)
        if request is not None and not request.reply.done():
            request.reply.set_result(message)

    def _request_answered(self, message: ServerMessage) -> OpenRequest | None:
        request_id = getattr(message, "id", None)
        if request_id is not None:
            return self._open_requests.get(request_id)
        if not isinstance(message, ErrorMessage) or message.code in _UNREQUESTED:
            return None
        log.warning("the server sent an error without an id: %s (%s)", message.message, message.code)
        # The server could not read the id. It answers in order, so this answers the oldest open request.
        for request in self._open_requests.values():
            if message.room_id in (None, request.room_id) and not request.reply.done():
                return request
        return None

    def _refuse_largest(self) -> None:
        """Let the largest open request fail, which the server closed the connection for, and it alone.

        None may be that large: a proxy closes so for what the server has sent, too.
        """
        waiting = [request for request in self._open_requests.values() if not request.reply.done()]
        largest = max(waiting, key=lambda request: request.size, default=None)
        if largest is not None and largest.size > _ALWAYS_ACCEPTED:
            sentence = f"a message of {largest.size} bytes is more than the server takes: send less"
            largest.reply.set_result(ErrorMessage("too_big", sentence))

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
                    self.drop()
                    return
            except ConnectionLost:
                return
            except ReactorError as error:
                log.info("a heartbeat was refused: %s", error)

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
