"""One open socket: requests and their answers, heartbeats, and the end of it.

A link lives from an open socket to its close and never returns; connection.py makes the next one. Whatever is
sent goes through one outbox, so that nobody who is cancelled leaves half a message behind, and order is kept.
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

from reactor.client.refusals import refusal
from reactor.protocol.codec import codec_for
from reactor.protocol.messages import ErrorMessage, ProtocolError, ServerMessage
from reactor.protocol.requests import Heartbeat, Request

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 25.0
"""Seconds between heartbeats until the server has named its own interval."""

_SLOWER = (1.0, 2.0)
"""Seconds, by chance, until what came too fast is said again."""

_LOOK = 5.0
"""Seconds between looks at the clocks: a machine that slept wakes up with a heartbeat that is due."""


class LinkLost(Exception):
    """The socket is gone, and the answer with it."""


class Link:
    """An open socket. `run` has to run for anything to happen.

    Attributes:
        interval: Seconds between heartbeats; `pace` changes it.
        degraded: Whether the server has said that it has no Redis.
        lost: Whether the socket is gone.
        opened_at: When it was opened, by the steady clock.

    """

    def __init__(
        self,
        socket: ClientConnection,
        on_message: Callable[["Link", ServerMessage], None],
        *,
        patience: float,
    ) -> None:
        """patience: seconds that a heartbeat may go unanswered before the link is held dead."""
        self.interval = HEARTBEAT_INTERVAL
        self.degraded = False
        self.lost = False
        self.opened_at = monotonic()
        self._socket = socket
        self._codec = codec_for(socket.subprotocol)
        self._on_message = on_message
        self._patience = patience
        self._ids = count(1)
        self._asked: dict[int, asyncio.Future[ServerMessage | None]] = {}
        self._outbox: deque[bytes] = deque()
        self._outgoing = asyncio.Event()
        self._pace_changed = asyncio.Event()
        self._beaten = (monotonic(), time())

    # What is said.

    def post(self, request: Request) -> None:
        """Send a request that nobody waits for."""
        if not self.lost:
            self._outbox.append(self._codec.encode(request))
            self._outgoing.set()

    async def ask(self, *requests: Request) -> list[ServerMessage]:
        """Send requests one behind the other, and return their answers.

        Raises:
            LinkLost: Before all were answered.
            ReactorError: The first one that was refused.

        """
        asked: list[int] = []
        try:
            futures = [self._send(request, asked) for request in requests]
            answers: list[ServerMessage] = []
            for request, future in zip(requests, futures, strict=True):
                answer = await future
                while isinstance(answer, ErrorMessage) and answer.code == "too_many_requests":
                    # It was not done, and may be said again.
                    await anyio.sleep(uniform(*_SLOWER))  # noqa: S311 - chance, no secret
                    answer = await self._send(request, asked)
                if answer is None:
                    raise LinkLost
                if isinstance(answer, ErrorMessage):
                    raise refusal(answer)
                answers.append(answer)
            return answers
        finally:
            for number in asked:
                self._asked.pop(number, None)

    def _send(self, request: Request, asked: list[int]) -> asyncio.Future[ServerMessage | None]:
        if self.lost:
            raise LinkLost
        number = next(self._ids)
        asked.append(number)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self.post(replace(request, id=number))
        return self._asked[number]

    def pace(self, interval: float) -> None:
        """Set the time between heartbeats, in seconds."""
        if interval != self.interval:
            self.interval = interval
            self._pace_changed.set()

    def beat_now(self) -> None:
        """Send a heartbeat ahead of its time."""
        self._beaten = (float("-inf"), float("-inf"))
        self._pace_changed.set()

    # Its life.

    @property
    def close_reason(self) -> str:
        """What the server said when it closed, if it did."""
        return self._socket.close_reason or ""

    async def run(self) -> int:
        """Serve the socket until it is gone; return the close code, 1006 when there was none."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                tasks.start_soon(self._beat)
                await self._read()
                tasks.cancel_scope.cancel()
        finally:
            self.lost = True
            self._outbox.clear()
            for future in self._asked.values():
                if not future.done():
                    future.set_result(None)
        return self._socket.close_code or 1006

    async def close(self, within: float) -> None:
        """Close in good order if that takes no longer than so many seconds, else at once."""
        with anyio.move_on_after(within):
            await self._socket.close()
        await self.abort()

    async def abort(self) -> None:
        """Cut the socket off."""
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
                self._take(payload)
            except ProtocolError as error:
                # A diff among them is missed like one that was lost: by the gap it leaves.
                log.warning("passed over: %s", error)
            except Exception:
                log.exception("a message from the server failed")

    def _take(self, payload: bytes) -> None:
        message = self._codec.decode_reply(payload)
        if message is None:
            return
        self._on_message(self, message)
        number = getattr(message, "id", None)
        if number is None:
            if isinstance(message, ErrorMessage):
                log.warning("the server refused something: %s (%s)", message.message, message.code)
            return
        future = self._asked.get(number)
        if future is not None and not future.done():
            future.set_result(message)

    async def _write(self) -> None:
        while True:
            await self._outgoing.wait()
            self._outgoing.clear()
            while self._outbox:
                payload = self._outbox.popleft()
                try:
                    await self._socket.send(payload, text=not self._codec.binary)
                except ConnectionClosed:
                    return

    # Heartbeats.

    async def _beat(self) -> None:
        while True:
            await self._until_due()
            self._beaten = (monotonic(), time())
            try:
                with anyio.fail_after(self._patience):
                    await self.ask(Heartbeat())
            except TimeoutError:
                if not await self._alive():
                    log.warning(
                        "no answer to a heartbeat in %g s: the connection is given up", self._patience
                    )
                    self._socket.transport.abort()
                    return
            except LinkLost:
                return

    async def _until_due(self) -> None:
        while True:
            self._pace_changed.clear()
            # The steady clock may stand still while the machine sleeps, and the other one be set back.
            passed = max(monotonic() - self._beaten[0], time() - self._beaten[1])
            if passed >= self.interval:
                return
            with anyio.move_on_after(min(self.interval - passed, _LOOK)):
                await self._pace_changed.wait()

    async def _alive(self) -> bool:
        """Whether the server is there and only has no Redis to take the heartbeat."""
        if not self.degraded:
            return False
        try:
            with anyio.fail_after(self._patience):
                await (await self._socket.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True
