"""The contract between one Redis, whatever its shape, and the code above it.

A backend runs scripts on the server that has their shard, carries Pub/Sub messages and `expired` events, and
reports a gap whenever messages may have been lost or a shard may have moved to another server.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis

from reactor.backend.clients import EventsState, MemoryState
from reactor.errors import Unavailable
from reactor.histogram import Histogram

Loop = Callable[[], Coroutine[Any, Any, None]]
OnHealth = Callable[[bool, str], None]


@dataclass(frozen=True, slots=True)
class LaneCounts:
    """The calls of a lane that wait now, and those that were refused since the start; see `ScriptRunner`."""

    waiting: int = 0
    refused: int = 0


def ignore_health(_healthy: bool, _reason: str) -> None:
    """An OnHealth for short-lived users, for whom the Unavailable of each call is enough."""


class Runner(Protocol):
    """Runs scripts."""

    async def run(self, name: str, prefix: str, *args: str | bytes | int | float) -> Any:
        """Run the script `name` on the shard whose key prefix is `prefix`; its raw reply.

        Raises Unavailable: the script may or may not have run.
        """


class Stopping(Unavailable):
    """The server is shutting down, so it sends no further command; nothing has failed."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class NotPermitted(Unavailable):
    """The Redis user may not call a script, or not for these keys; commands in it are another matter.

    reply: Redis's words. prefix: of the keys for which the call was.
    """

    def __init__(self, message: str, reply: str, prefix: str) -> None:
        super().__init__(message)
        self.reply, self.prefix = reply, prefix


class RedisFull(Unavailable):
    """Redis has reached its `maxmemory` and evicts nothing, so it refuses what adds data.

    prefix: of the keys for which the call was.
    """

    def __init__(self, reply: str, prefix: str) -> None:
        super().__init__(f"Redis is full: {reply}")
        self.prefix = prefix


@dataclass(frozen=True, slots=True)
class ChannelCallbacks:
    """What channels call. None of the functions may block.

    on_message(channel, payload): for each message, in order. on_gap(first): each time all channels have been
    (re)subscribed to; messages published before may be lost. on_disconnect(reason): a connection broke; again
    where Redis refuses another one, for a new reason.
    on_moved(channels): these are served by another primary of a cluster now; theirs alone may be lost.
    """

    on_message: Callable[[bytes, bytes], None]
    on_gap: Callable[[bool], None]
    on_disconnect: Callable[[str], None]
    on_moved: Callable[[frozenset[str]], None] = lambda _channels: None


class Channels(Protocol):
    """A changing set of subscribed channels; see `Subscription`."""

    @property
    def listening(self) -> bool:
        """Whether all channels are subscribed to on live connections."""
        ...

    @property
    def problem(self) -> Exception | None:
        """Why they are not: the error of the last attempt. None where they are, and before the first one."""
        ...

    @property
    def lags(self) -> Histogram:
        """Seconds from a ping to its answer, which queues behind all messages before it."""
        ...

    async def subscribed(self) -> None:
        """Return once every channel requested so far is confirmed by Redis."""

    async def subscribe(self, channel: str) -> None:
        """Add a channel; return once Redis has confirmed it."""

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel."""

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen to these channels and to those added later; reconnect as needed. Runs until cancelled."""


class Backend(Protocol):
    """A Redis in use. Run every coroutine of `loops` for as long as it is used.

    on_health(healthy, reason) is called when Redis stops taking commands, when the reason for that changes,
    and when it takes them again.
    """

    on_health: OnHealth

    @property
    def runner(self) -> Runner:
        """Runs scripts."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether Redis takes commands."""
        ...

    @property
    def times(self) -> Mapping[str, Histogram]:
        """Seconds that calls took, the wait in the queue included, by script name."""
        ...

    @property
    def lanes(self) -> Mapping[str, LaneCounts]:
        """How many calls wait for Redis, and how many were refused since too many waited, by lane."""
        ...

    @property
    def refusals(self) -> Counter[str]:
        """How many calls Redis refused, by script name."""
        ...

    @property
    def loops(self) -> list[Loop]:
        """Background tasks; the caller runs each of them."""
        ...

    async def connect(self) -> None:
        """Check that Redis answers and can be used. May be called again until it does.

        Raises RedisUnreachable where waiting helps; RedisMisconfigured or RedisTooOld where it does not.
        """

    def channels(self, callbacks: ChannelCallbacks, /) -> Channels:
        """A new set of channels of shards, each read from the server that has the shard."""
        ...

    def events(self, callbacks: ChannelCallbacks, /) -> Channels:
        """The same, with each channel read from every server that expires keys."""
        ...

    def client_of(self, key: str, /) -> Redis:
        """The client of the server that has the key. Raises Unavailable while no server has it."""
        ...

    async def ensure_events(self, *, manage: bool) -> EventsState:
        """Make every server publish `expired` events; the worst state found. Raises ReactorError.

        manage: whether to change a server's configuration for that.
        """
        ...

    async def memory_state(self) -> MemoryState:
        """What the servers do when their memory is full; of several, one that evicts. Raises Unavailable."""
        ...

    async def run_id(self) -> str:
        """An id of the servers' current run; if it differs, data may be lost. Raises Unavailable."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
