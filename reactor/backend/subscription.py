"""One connection that listens to Redis channels, and says when it may have missed something.

redis-py's own PubSub subscribes again in silence after a lost link, and never notices a frozen one. What
was published in between is gone (https://redis.io/docs/latest/develop/pubsub/#delivery-semantics), so
whoever listens has to know: here every new subscription is reported as a gap, and a link that does not
answer for three seconds is dropped and made anew.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis
from redis.exceptions import MovedError

from reactor.backend.connect import LINK_ERRORS
from reactor.histogram import SECONDS, Histogram

log = structlog.get_logger()

PING_EVERY = 1.0
SILENCE_ALLOWED = 3.0
FIRST_RETRY, LONGEST_RETRY = 0.05, 1.0


class Subscription:
    """Listens to a changing set of channels over one connection. `serve` has to run.

    on_message(channel, payload) is called for each message, in order, and must not block.
    on_gap(first) is called after each completed subscription to all channels: messages before it may be lost.
    on_lost(reason) is called when the link is lost. sharded: channels live on their slot's node of a cluster
    (https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub). lags: where to note how long a ping took.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
        sharded: bool = False,
        lags: Histogram | None = None,
    ) -> None:
        self.lags = Histogram(SECONDS) if lags is None else lags
        self._redis = redis
        self._subscribe, self._unsubscribe = (
            ("SSUBSCRIBE", "SUNSUBSCRIBE") if sharded else ("SUBSCRIBE", "UNSUBSCRIBE")
        )
        self._on_message, self._on_gap, self._on_lost = on_message, on_gap, on_lost
        self._channels: dict[bytes, asyncio.Event] = {}
        self._connection: Any = None
        self._awaited = 0
        self._heard_at = 0.0
        self._pings: deque[float] = deque()
        self._gaps = 0
        self._retry = FIRST_RETRY
        self._outgoing = asyncio.Event()
        self._started = asyncio.Event()
        self._to_send: list[tuple[str, bytes]] = []

    @property
    def listening(self) -> bool:
        """Whether every channel asked for before the last (re)connection is subscribed to."""
        return self._connection is not None and self._awaited == 0

    async def subscribed(self) -> None:
        """Return once every channel asked for so far is confirmed."""
        await self._started.wait()
        for confirmed in list(self._channels.values()):
            await confirmed.wait()

    def want(self, channel: str) -> asyncio.Event:
        """Ask for a channel; the event is set while Redis has confirmed it."""
        name = channel.encode()
        confirmed = self._channels.get(name)
        if confirmed is None:
            confirmed = self._channels[name] = asyncio.Event()
            self._send(self._subscribe, name)
        return confirmed

    async def subscribe(self, channel: str) -> None:
        """Return once Redis has confirmed the channel; a lost link only makes that take longer."""
        await self.want(channel).wait()

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to the channel."""
        name = channel.encode()
        if self._channels.pop(name, None) is not None:
            self._send(self._unsubscribe, name)

    async def reconnect(self) -> None:
        """Drop the link, so that it is made anew."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen to these channels and to those asked for by `subscribe`.

        Connect again and again, until cancelled.
        """
        for channel in channels:
            self.want(channel)
        self._started.set()
        while True:
            connection: Any = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                with anyio.fail_after(SILENCE_ALLOWED):
                    await connection.connect()
                await self._listen(connection)
            except* LINK_ERRORS as errors:
                if self._connection is not None:
                    self._on_lost(str(errors.exceptions[0]) or type(errors.exceptions[0]).__name__)
            finally:
                self._connection = None
                for confirmed in self._channels.values():
                    confirmed.clear()
                with anyio.CancelScope(shield=True):
                    await connection.disconnect(nowait=True)
            await anyio.sleep(self._retry * random.uniform(0.5, 1.0))  # noqa: S311 - spreads them, keeps no secret
            self._retry = min(self._retry * 2, LONGEST_RETRY)

    async def _listen(self, connection: Any) -> None:
        self._to_send.clear()
        self._pings.clear()
        self._awaited = len(self._channels)
        self._heard_at = monotonic()
        # One command each: the channels of a sharded subscription may lie in many slots.
        commands = [(self._subscribe, name) for name in self._channels]
        # Whatever is asked for while these are being written is written behind them.
        self._connection = connection
        if commands:
            with anyio.fail_after(SILENCE_ALLOWED):
                await connection.send_packed_command(connection.pack_commands(commands))
        else:
            self._report_gap()
        async with anyio.create_task_group() as tasks:
            for work in (self._read, self._ping, self._write):
                tasks.start_soon(work, connection)

    async def _read(self, connection: Any) -> None:
        while True:
            try:
                reply = await connection.read_response(timeout=math.inf)
            except MovedError:
                continue  # the slot of a sharded channel has gone to another node; the topology says where
            self._heard_at = monotonic()
            kind = reply[0]
            if kind in (b"message", b"smessage"):
                self._on_message(reply[1], reply[2])
            elif kind == b"pong" and self._pings:
                self.lags.add(self._heard_at - self._pings.popleft())
            elif kind in (b"subscribe", b"ssubscribe"):
                if confirmed := self._channels.get(reply[1]):
                    confirmed.set()
                if self._awaited:
                    self._awaited -= 1
                    if self._awaited == 0:
                        self._report_gap()

    async def _ping(self, connection: Any) -> None:
        while True:
            await anyio.sleep(PING_EVERY)
            if monotonic() - self._heard_at > SILENCE_ALLOWED:
                log.warning("redis_link_frozen", seconds=SILENCE_ALLOWED)
                await connection.disconnect(nowait=True)
                return
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
        self._retry = FIRST_RETRY
        self._on_gap(self._gaps == 1)
