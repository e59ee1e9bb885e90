"""One server, or the primary that Sentinels name."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis

from reactor.backend.clients import (
    CONNECTION_ERRORS,
    EventsState,
    MemoryState,
    Sentinels,
    check_server,
    close_client,
    command_client,
    ensure_events,
    memory_state_of,
    open_sentinels,
    pubsub_client,
    run_id_of,
)
from reactor.backend.interface import ChannelCallbacks, LaneCounts, Loop, OnHealth, Runner, ignore_health
from reactor.backend.scripts import ScriptRunner, ScriptSources, load_scripts
from reactor.backend.subscription import Subscription
from reactor.backend.target import Target
from reactor.histogram import Histogram

log = structlog.get_logger()

SENTINEL_POLL_INTERVAL = 0.5
"""Seconds. A demoted primary keeps its Pub/Sub connections open and sends nothing more over them, so only the
Sentinels report that it was replaced."""


class SingleBackend:
    """One server."""

    def __init__(self, target: Target, sources: ScriptSources) -> None:
        self._target = target
        self._commands, self._pubsub = command_client(target), pubsub_client(target)
        self._subscriptions: list[Subscription] = []
        self._scripts = ScriptRunner(self._commands, load_scripts(sources), on_health=self._report_health)
        self.runner: Runner = self._scripts
        self.on_health: OnHealth = ignore_health

    def _report_health(self, healthy: bool, reason: str) -> None:
        self.on_health(healthy, reason)

    @property
    def healthy(self) -> bool:
        """Whether the server takes commands."""
        return self._scripts.healthy

    @property
    def times(self) -> Mapping[str, Histogram]:
        """Seconds that calls took, the wait in the queue included, by script name."""
        return self._scripts.times

    @property
    def lanes(self) -> Mapping[str, LaneCounts]:
        """How many calls wait for the server, and how many were refused, by lane."""
        return self._scripts.lanes

    @property
    def refusals(self) -> Counter[str]:
        """How many calls Redis refused, by script name."""
        return self._scripts.refusals

    @property
    def loops(self) -> list[Loop]:
        """Background tasks; the caller runs each of them."""
        return [self._scripts.serve]

    async def connect(self) -> None:
        """Check that the server answers and can be used; see `Backend`."""
        await check_server(self._target, self._commands)

    def channels(self, callbacks: ChannelCallbacks) -> Subscription:
        """A new set of channels, over its own connection."""
        subscription = Subscription(self._pubsub, callbacks)
        self._subscriptions.append(subscription)
        return subscription

    events = channels

    def client_of(self, _key: str) -> Redis:
        """The client of the one server."""
        return self._commands

    async def ensure_events(self, *, manage: bool) -> EventsState:
        """Make the server publish `expired` events. Raises ReactorError."""
        return await ensure_events(self._commands, self._target, manage=manage)

    async def memory_state(self) -> MemoryState:
        """What the server does when its memory is full. Raises Unavailable."""
        return await memory_state_of(self._commands)

    async def run_id(self) -> str:
        """The server's run id (https://redis.io/docs/latest/commands/info/). Raises Unavailable."""
        return await run_id_of(self._commands)

    async def aclose(self) -> None:
        """Close all connections."""
        await close_client(self._commands)
        await close_client(self._pubsub)


class SentinelBackend(SingleBackend):
    """The primary that Sentinels name; every connection is replaced when they name another one."""

    def __init__(self, target: Target, sources: ScriptSources) -> None:
        super().__init__(target, sources)
        self._sentinels: Sentinels = open_sentinels(target)

    @property
    def loops(self) -> list[Loop]:
        """Background tasks; the caller runs each of them."""
        return [*super().loops, self._follow_primary]

    async def aclose(self) -> None:
        """Close all connections."""
        await super().aclose()
        await self._sentinels.aclose()

    async def _follow_primary(self) -> None:
        known: Any = None
        while True:
            try:
                primary = await self._sentinels.discover_master(self._target.master_name or "")
            except CONNECTION_ERRORS:
                primary = known
            if known is not None and primary != known:
                log.warning("primary_changed", old=known, new=primary)
                await self._commands.connection_pool.disconnect()
                for subscription in self._subscriptions:
                    await subscription.reconnect()
            known = primary
            await anyio.sleep(SENTINEL_POLL_INTERVAL)
