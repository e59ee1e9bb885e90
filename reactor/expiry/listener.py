"""Receives Redis's `expired` events and passes our members on to the reaper.

What it is for. Redis publishes an event when it deletes an expired key
(https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/). The event of a presence key is the
normal trigger of a departure.

What triggers it. Each event of the database in use. Every node receives every event, but one claim is
enough: while another node is known to lead the pacemaker, that node claims, and this one only remembers the
names for as long as it takes to notice that the leader is gone. `claim_deferred` then claims them.

What it guarantees. Keys of other applications are discarded by their first bytes, and never touched. The
listener never waits for Redis, since Redis disconnects a subscriber that reads too slowly. It may miss events
(after a lost connection, pub/sub does not repeat them) and may pass on an event that is forged or late: the
claim checks the facts in Redis, and the pacemaker and the sweep find what was missed.
"""

from collections import defaultdict
from collections.abc import Callable
from time import monotonic

import structlog

from reactor.backend.interface import Backend, ChannelCallbacks
from reactor.expiry.deadlines import RecentNames
from reactor.expiry.reaper import Reaper
from reactor.histogram import Histogram
from reactor.presence.keys import ExpiredKeys, Keyspace

log = structlog.get_logger()


class Listener:
    """The subscription to the `expired` events of one database. `serve` has to run.

    on_gap(first) is called whenever events may have been missed: at the start (first), and after each lost
    connection. led_elsewhere: whether another node is known to claim what both receive.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        keys: Keyspace,
        reaper: Reaper,
        on_gap: Callable[[bool], None],
        led_elsewhere: Callable[[], bool] = lambda: False,
    ) -> None:
        self.channel = f"__keyevent@{keys.database}__:expired"
        self.received = 0
        self.confirmed = False
        """Whether any event has arrived, also of a key of another program: Redis publishes them."""
        self._keys = ExpiredKeys(keys)
        self._reaper = reaper
        self._on_gap = on_gap
        self._led_elsewhere = led_elsewhere
        self._deferred: dict[int, RecentNames] = defaultdict(RecentNames)
        self._subscription = backend.events(
            ChannelCallbacks(self._on_event, self._on_subscribed, self._on_lost)
        )

    @property
    def listening(self) -> bool:
        """Whether the subscription is confirmed and its connection open."""
        return self._subscription.listening

    @property
    def problem(self) -> Exception | None:
        """Why it does not listen: the error of the last attempt."""
        return self._subscription.problem

    @property
    def lags(self) -> Histogram:
        """Round trips of a ping on the connection (s); see `Subscription`."""
        return self._subscription.lags

    async def subscribed(self) -> None:
        """Return once Redis has confirmed the subscription."""
        await self._subscription.subscribed()

    def claim_deferred(self) -> None:
        """Claim what was left to the leader, which may have died before it did."""
        for shard, deferred in self._deferred.items():
            self._reaper.enqueue(shard, deferred.drain(monotonic()), "event")

    async def serve(self) -> None:
        """Listen until cancelled."""
        await self._subscription.serve([self.channel])

    def _on_event(self, _channel: bytes, key: bytes) -> None:
        self.confirmed = True
        if (found := self._keys.parse(key)) is not None:
            self.received += 1
            shard, suffix = found
            if self._led_elsewhere():
                self._deferred[shard].add(suffix, monotonic())
            else:
                self._reaper.enqueue(shard, (suffix,), "event")

    def _on_subscribed(self, first: bool) -> None:
        if not first:
            log.warning("expired_events_resubscribed", channel=self.channel)
        self._on_gap(first)

    def _on_lost(self, reason: str) -> None:
        log.warning("expired_events_disconnected", channel=self.channel, reason=reason)
