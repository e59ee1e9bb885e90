"""The Redis behind everything, whatever its shape: one server, Sentinels with their primary, or a cluster.

A backend runs scripts where their shard lives, carries diffs and events, and tells when the server behind
a shard may be another one than before. All else in this package knows only this.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import anyio
import structlog
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from reactor.errors import ReactorError
from reactor.presence.connect import (
    LINK_ERRORS,
    EventsState,
    ensure_events,
    lost_means_unavailable,
    open_data,
    open_pubsub_client,
    open_sentinel,
)
from reactor.presence.scripts import ScriptRunner, load_scripts
from reactor.presence.subscription import Subscription
from reactor.presence.target import Target

log = structlog.get_logger()

ASK_SENTINELS_EVERY = 0.5
"""Seconds. A demoted primary keeps its subscribers and goes deaf, so nobody else would tell."""


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


class SingleBackend:
    """One server; or the primary that Sentinels name, asked for at each new connection."""

    def __init__(self, target: Target, data: Redis, pubsub: Redis, *, departures_kept: int) -> None:
        self._target, self._data, self._pubsub = target, data, pubsub
        self._subscriptions: list[Subscription] = []
        self._scripts = ScriptRunner(
            data, load_scripts(departures_kept=departures_kept), on_health=self._tell_health
        )
        self.runner: Runner = self._scripts
        self.on_health: OnHealth = ignore_health

    def _tell_health(self, healthy: bool, reason: str) -> None:
        self.on_health(healthy, reason)

    @property
    def healthy(self) -> bool:
        """Whether commands are taken."""
        return self._scripts.healthy

    @property
    def loops(self) -> list[Loop]:
        """What has to run."""
        return [self._scripts.serve]

    def channels(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> Subscription:
        """Diffs and wake-ups, over a connection of their own."""
        subscription = Subscription(self._pubsub, on_message=on_message, on_gap=on_gap, on_lost=on_lost)
        self._subscriptions.append(subscription)
        return subscription

    events = channels

    def client_of(self, _key: str) -> Redis:
        """The one client there is."""
        return self._data

    async def ensure_events(self) -> EventsState:
        """See that the server says when keys expire. Raises ReactorError."""
        return await ensure_events(self._data, self._target)

    async def run_id(self) -> str:
        """The server's run id (https://redis.io/docs/latest/commands/info/). Raises Unavailable."""
        with lost_means_unavailable():
            return str((await self._data.info("server"))["run_id"])

    async def aclose(self) -> None:
        """Close all connections."""
        await self._data.aclose()
        await self._pubsub.aclose()


class SentinelBackend(SingleBackend):
    """The primary that Sentinels name: followed when they name another."""

    def __init__(self, target: Target, data: Redis, pubsub: Redis, *, departures_kept: int) -> None:
        super().__init__(target, data, pubsub, departures_kept=departures_kept)
        self._sentinel: Sentinel = open_sentinel(target)

    @property
    def loops(self) -> list[Loop]:
        """What has to run."""
        return [*super().loops, self._follow_primary]

    async def _follow_primary(self) -> None:
        known: Any = None
        while True:
            try:
                primary = await self._sentinel.discover_master(self._target.master_name or "")
            except LINK_ERRORS:
                primary = known
            if known is not None and primary != known:
                log.warning("primary_changed", was=known, now=primary)
                await self._data.connection_pool.disconnect()
                for subscription in self._subscriptions:
                    await subscription.reconnect()
            known = primary
            await anyio.sleep(ASK_SENTINELS_EVERY)


async def open_backend(target: Target, *, departures_kept: int) -> Backend:
    """Connect to a Redis of whatever shape.

    Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with its mend.
    """
    if target.kind == "cluster":
        from reactor.presence.cluster import open_cluster  # noqa: PLC0415 - only a cluster needs it

        return await open_cluster(target, departures_kept=departures_kept)
    data = await open_data(target)
    try:
        pubsub = await open_pubsub_client(target)
    except ReactorError:
        await data.aclose()
        raise
    kind = SentinelBackend if target.kind == "sentinel" else SingleBackend
    return kind(target, data, pubsub, departures_kept=departures_kept)
