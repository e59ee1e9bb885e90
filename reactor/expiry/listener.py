"""Hears Redis say that a key expired (https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/).

It reads, filters and hands on, and never waits for Redis: a listener that falls behind is cut off by the
server. Foreign keys are dropped on their first bytes. Whatever it cannot have heard, the sweep makes
good.

Every node hears every event, and one claim is enough: the pacemaker's node makes it, and the others keep the
name for as long as it takes to find out that this node is gone.
"""

from collections.abc import Callable
from time import monotonic

import structlog

from reactor.backend.interface import Backend
from reactor.expiry.deadlines import Recent
from reactor.expiry.reaper import Reaper
from reactor.histogram import Histogram
from reactor.presence.keys import SHARDS, ExpiredKeys

log = structlog.get_logger()


class Listener:
    """The subscription to `expired` events of one database. `serve` has to run.

    on_gap(first) is called whenever events may have been missed: at the start, and after each lost link.
    left_to_another: whether another node is known to claim what both hear; `take_over` when it did not.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        namespace: str,
        database: int,
        reaper: Reaper,
        on_gap: Callable[[bool], None],
        left_to_another: Callable[[], bool] = lambda: False,
    ) -> None:
        self.channel = f"__keyevent@{database}__:expired"
        self.heard = 0
        self._keys = ExpiredKeys(namespace)
        self._reaper = reaper
        self._on_gap = on_gap
        self._left_to_another = left_to_another
        self._passed_on = [Recent() for _ in range(SHARDS)]
        self._subscription = backend.events(self._on_event, self._on_subscribed, self._on_lost)

    @property
    def listening(self) -> bool:
        """Whether events reach us, as far as the link is concerned."""
        return self._subscription.listening

    @property
    def lags(self) -> Histogram:
        """Seconds that a ping takes there and back on the link; see `Subscription`."""
        return self._subscription.lags

    async def subscribed(self) -> None:
        """Return once Redis has confirmed the subscription."""
        await self._subscription.subscribed()

    def take_over(self) -> None:
        """Claim what was left to another node, which may have died over it."""
        for shard, passed_on in enumerate(self._passed_on):
            self._reaper.found_gone(shard, passed_on.take(monotonic()), "event")

    async def serve(self) -> None:
        """Listen until cancelled."""
        await self._subscription.serve([self.channel])

    def _on_event(self, _channel: bytes, key: bytes) -> None:
        if (found := self._keys.parse(key)) is not None:
            self.heard += 1
            shard, suffix = found
            if self._left_to_another():
                self._passed_on[shard].add(suffix, monotonic())
            else:
                self._reaper.found_gone(shard, (suffix,), "event")

    def _on_subscribed(self, first: bool) -> None:
        if not first:
            log.warning("events_resubscribed", channel=self.channel)
        self._on_gap(first)

    def _on_lost(self, reason: str) -> None:
        log.warning("events_lost", channel=self.channel, reason=reason)
