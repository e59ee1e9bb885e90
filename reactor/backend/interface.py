"""The Redis behind everything, whatever its shape: one server, Sentinels with their primary, or a cluster.

A backend runs scripts where their shard lives, carries diffs and events, and tells when the server behind
a shard may be another one than before. All else in this package knows only this.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from redis.asyncio import Redis

from reactor.backend.connect import EventsState
from reactor.histogram import Histogram

Loop = Callable[[], Coroutine[Any, Any, None]]
OnHealth = Callable[[bool, str], None]


def ignore_health(_healthy: bool, _reason: str) -> None:
    """For whoever asks once: each call says by itself when Redis does not answer."""


class Runner(Protocol):
    """Runs scripts."""

    async def run(self, name: str, prefix: str, *args: str | bytes | int | float) -> Any:
        """Run a transition on the shard that `prefix` names; its raw reply. Raises Unavailable."""


class Channels(Protocol):
    """Listens to channels; see `Subscription`."""

    @property
    def listening(self) -> bool:
        """Whether what was subscribed to is heard."""
        ...

    @property
    def lags(self) -> Histogram:
        """Seconds that a ping takes there and back, behind all that is to be read before its answer."""
        ...

    async def subscribed(self) -> None:
        """Return once every channel asked for so far is confirmed."""

    async def subscribe(self, channel: str) -> None:
        """Return once the channel is confirmed."""

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to the channel."""

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen until cancelled."""


class Backend(Protocol):
    """A Redis in use. Everything in `loops` has to run for anything to be answered.

    on_health(healthy, reason), where it is set, is called when Redis stops taking commands or takes them
    again.
    """

    on_health: OnHealth

    @property
    def runner(self) -> Runner:
        """What runs scripts."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether commands are taken."""
        ...

    @property
    def times(self) -> Mapping[str, Histogram]:
        """Seconds from the asking to the answer, by the name of the script."""
        ...

    @property
    def loops(self) -> list[Loop]:
        """What has to run."""
        ...

    def channels(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> Channels:
        """Diffs and wake-ups, each from the server that its shard lives on."""
        ...

    def events(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> Channels:
        """Events, each from all servers that expire keys."""
        ...

    def client_of(self, key: str, /) -> Redis:
        """The client of the server that has the key."""
        ...

    async def ensure_events(self) -> EventsState:
        """See that every server that expires keys says so. Raises ReactorError."""
        ...

    async def run_id(self) -> str:
        """A name of the servers' present life: another one, and data may be lost. Raises Unavailable."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
