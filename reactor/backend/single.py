"""One server, or the primary that Sentinels name."""

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis

from reactor.backend.connect import (
    LINK_ERRORS,
    EventsState,
    close_client,
    ensure_events,
    lost_means_unavailable,
    open_sentinel,
)
from reactor.backend.interface import Loop, OnHealth, Runner, ignore_health
from reactor.backend.scripts import ScriptRunner, load_scripts
from reactor.backend.sentinels import Sentinels
from reactor.backend.subscription import Subscription
from reactor.backend.target import Target
from reactor.histogram import Histogram

log = structlog.get_logger()

ASK_SENTINELS_EVERY = 0.5
"""Seconds. A demoted primary keeps its subscribers and goes deaf, so nobody else would tell."""


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
    def times(self) -> Mapping[str, Histogram]:
        """Seconds from the asking to the answer, by the name of the script."""
        return self._scripts.times

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
        await close_client(self._data)
        await close_client(self._pubsub)


class SentinelBackend(SingleBackend):
    """The primary that Sentinels name: followed when they name another."""

    def __init__(self, target: Target, data: Redis, pubsub: Redis, *, departures_kept: int) -> None:
        super().__init__(target, data, pubsub, departures_kept=departures_kept)
        self._sentinel: Sentinels = open_sentinel(target)

    @property
    def loops(self) -> list[Loop]:
        """What has to run."""
        return [*super().loops, self._follow_primary]

    async def aclose(self) -> None:
        """Close all connections."""
        await super().aclose()
        await self._sentinel.aclose()

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
