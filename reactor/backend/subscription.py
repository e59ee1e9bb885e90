"""One Pub/Sub connection that reports every gap in what it received.

redis-py's own PubSub resubscribes silently after its connection broke, and does not notice a connection that
hangs. What was published in between is gone
(https://redis.io/docs/latest/develop/pubsub/#delivery-semantics), so the caller has to know: here every
resubscription is reported as a gap, and a connection that has not answered a ping for three seconds is
replaced.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Any

import anyio
import hiredis
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004 - as redis-py names it

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.backend.interface import ChannelCallbacks
from reactor.backend.outages import is_refusal
from reactor.histogram import SECONDS, Histogram

log = structlog.get_logger()

# Seconds.
PING_INTERVAL = 1.0
PING_TIMEOUT = 3.0
MIN_BACKOFF, MAX_BACKOFF = 0.05, 1.0

_READ_SIZE = 65536
_REFUSES_PINGS = ("LOADING", "BUSY", "MISCONF")
"""The first words of a server that will answer by itself later."""


class Subscription:
    """A changing set of channels over one connection. `serve` has to run.

    sharded: use SSUBSCRIBE (https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub).
    lags: a histogram for the seconds that pings take; without one the subscription makes its own.
    """

    def __init__(
        self,
        redis: Redis,
        callbacks: ChannelCallbacks,
        *,
        sharded: bool = False,
        lags: Histogram | None = None,
    ) -> None:
        self.lags = Histogram(SECONDS) if lags is None else lags
        self._redis = redis
        self._subscribe, self._unsubscribe = (
            ("SSUBSCRIBE", "SUNSUBSCRIBE") if sharded else ("SUBSCRIBE", "UNSUBSCRIBE")
        )
        self._on_message, self._on_gap = callbacks.on_message, callbacks.on_gap
        self._on_disconnect = callbacks.on_disconnect
        self._channels: dict[bytes, bool] = {}  # whether Redis has confirmed each
        # By channel, for those who wait: an event takes a kilobyte, and a node may follow a million users.
        self._awaited: dict[bytes, asyncio.Event] = {}
        self._connection: Any = None
        self._unconfirmed = 0
        self._last_reply_at = 0.0
        self._pings: deque[float] = deque()
        self._gaps = 0
        self._problem: Exception | None = None
        self._reported: str | None = None  # of the failures since the last gap
        self._backoff = MIN_BACKOFF
        self._outgoing = asyncio.Event()
        self._started = asyncio.Event()
        self._to_send: list[tuple[str, bytes]] = []

    @property
    def listening(self) -> bool:
        """Whether every channel requested before the last (re)connection is subscribed to."""
        return self._connection is not None and self._unconfirmed == 0

    @property
    def problem(self) -> Exception | None:
        """Why it does not listen: the error of the last attempt. None while it listens."""
        return None if self.listening else self._problem

    async def subscribed(self) -> None:
        """Return once every channel requested so far is confirmed."""
        await self._started.wait()
        for name in list(self._channels):
            await self._confirmed(name)

    def request(self, channel: str) -> None:
        """Add a channel."""
        name = channel.encode()
        if name not in self._channels:
            self._channels[name] = False
            self._send(self._subscribe, name)

    async def subscribe(self, channel: str) -> None:
        """Return once Redis has confirmed the channel, however often the connection breaks meanwhile."""
        self.request(channel)
        await self._confirmed(channel.encode())

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel."""
        name = channel.encode()
        self._awaited.pop(name, None)
        if self._channels.pop(name, None) is not None:
            self._send(self._unsubscribe, name)

    async def reconnect(self) -> None:
        """Close the connection; `serve` opens another one."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen to these channels and those added by `subscribe`, reconnecting, until cancelled."""
        for channel in channels:
            self.request(channel)
        self._started.set()
        while True:
            connection: Any = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                with anyio.fail_after(PING_TIMEOUT):
                    await connection.connect()
                await self._listen(connection)
            except* CONNECTION_ERRORS as errors:
                self._note_failure(errors.exceptions[0])
            finally:
                self._connection = None
                self._channels = dict.fromkeys(self._channels, False)
                with anyio.CancelScope(shield=True):
                    await connection.disconnect(nowait=True)
            await anyio.sleep(self._backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._backoff = min(self._backoff * 2, MAX_BACKOFF)

    def _note_failure(self, error: Exception) -> None:
        """Report that a connection broke, or that Redis refuses one: once, not with each attempt."""
        self._problem = error
        reason = str(error) or type(error).__name__
        refused = self._connection is not None or is_refusal(error)
        if refused and (self._reported is None or (is_refusal(error) and reason != self._reported)):
            self._reported = reason
            self._on_disconnect(reason)

    async def _confirmed(self, name: bytes) -> None:
        """Return once Redis has confirmed a channel."""
        if self._channels.get(name) is False:
            await self._awaited.setdefault(name, asyncio.Event()).wait()

    async def _listen(self, connection: Any) -> None:
        self._to_send.clear()
        self._pings.clear()
        self._unconfirmed = len(self._channels)
        self._last_reply_at = monotonic()
        # One command for each channel: SSUBSCRIBE takes only channels of one slot.
        commands = [(self._subscribe, name) for name in self._channels]
        # From here on `_send` queues commands, which are written after these.
        self._connection = connection
        if commands:
            with anyio.fail_after(PING_TIMEOUT):
                await connection.send_packed_command(connection.pack_commands(commands))
        else:
            self._report_gap()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, connection)
            tasks.start_soon(self._write, connection)
            tasks.start_soon(self._ping)

    async def _read(self, connection: Any) -> None:
        # redis-py's `read_response` adds half to the CPU time of a lone message (scripts/bench_diffs.py).
        stream, replies = connection._reader, hiredis.Reader()  # noqa: SLF001
        while data := await stream.read(_READ_SIZE):
            self._last_reply_at = monotonic()
            replies.feed(data)
            while (reply := replies.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    if not self._is_harmless(str(reply)):
                        raise ResponseError(str(reply))
                else:
                    self._on_reply(reply)
        raise ConnectionError("Redis closed the connection")

    def _is_harmless(self, error: str) -> bool:
        """Return whether nothing is lost by an error reply.

        MOVED: the slot of a sharded channel has moved; ClusterChannels follows it. A server that loads its
        data, runs a long script or cannot write to its disk refuses pings and keeps the subscription.
        """
        if error.startswith(_REFUSES_PINGS) and all(self._channels.values()):
            if self._pings:
                self._pings.popleft()
            return True
        return error.startswith("MOVED ")

    def _on_reply(self, reply: Any) -> None:
        kind = reply[0]
        if kind in (b"message", b"smessage"):
            self._on_message(reply[1], reply[2])
        elif kind == b"pong" and self._pings:
            self.lags.add(self._last_reply_at - self._pings.popleft())
        elif kind in (b"subscribe", b"ssubscribe"):
            if reply[1] in self._channels:
                self._channels[reply[1]] = True
                if awaited := self._awaited.pop(reply[1], None):
                    awaited.set()
            if self._unconfirmed:
                self._unconfirmed -= 1
                if self._unconfirmed == 0:
                    self._report_gap()

    async def _ping(self) -> None:
        while True:
            began = monotonic()
            await anyio.sleep(PING_INTERVAL)
            # While the event loop was blocked, replies may have arrived that nothing has read yet.
            self._last_reply_at += max(0.0, monotonic() - began - PING_INTERVAL)
            if monotonic() - self._last_reply_at > PING_TIMEOUT:
                raise TimeoutError(f"no answer to a ping for {PING_TIMEOUT:g} s")
            self._pings.append(monotonic())
            self._send("PING", b"")

    async def _write(self, connection: Any) -> None:
        while True:
            await self._outgoing.wait()
            self._outgoing.clear()
            commands, self._to_send = self._to_send, []
            packed = connection.pack_commands([(verb, name) if name else (verb,) for verb, name in commands])
            await connection.send_packed_command(packed)

    def _send(self, verb: str, channel: bytes) -> None:
        if self._connection is not None:
            self._to_send.append((verb, channel))
            self._outgoing.set()

    def _report_gap(self) -> None:
        self._gaps += 1
        self._problem = self._reported = None
        self._backoff = MIN_BACKOFF
        self._on_gap(self._gaps == 1)
