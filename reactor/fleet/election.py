"""Leader election: of all nodes, one does a job at a time.

The leader holds a key in Redis with a TTL of LEADERSHIP_TTL_MS and renews it every RENEWAL_INTERVAL. When it
stops or dies, the key expires and the first node that asks next becomes the leader: within two seconds. Two
nodes can believe for a moment that they lead, so every job has to be safe to do twice.
"""

from collections.abc import Callable

import anyio

from reactor.errors import Unavailable
from reactor.fleet.registry import Registry

LEADERSHIP_TTL_MS = 1500
RENEWAL_INTERVAL = 0.5
"""Seconds between two attempts to acquire or renew the leadership."""


class LeaderElection:
    """Whether this node is the leader for one job. `serve` has to run.

    node: returns this node's current name. on_change(leading) is called when leadership is gained or lost.
    `led_elsewhere` says whether another node was the leader at the last attempt; it is False while Redis
    does not answer.
    """

    def __init__(
        self,
        registry: Registry,
        job: str,
        *,
        node: Callable[[], str],
        on_change: Callable[[bool], None],
    ) -> None:
        self._registry, self._job, self._node, self._on_change = registry, job, node, on_change
        self.leading = False
        self.led_elsewhere = False

    async def serve(self) -> None:
        """Acquire the leadership when it is free, and renew it, until cancelled."""
        while True:
            try:
                leading = await self._registry.acquire_leadership(
                    self._job, self._node(), ttl_ms=LEADERSHIP_TTL_MS
                )
                self.led_elsewhere = not leading
            except Unavailable:
                leading = self.led_elsewhere = False
            if leading != self.leading:
                self.leading = leading
                self._on_change(leading)
            await anyio.sleep(RENEWAL_INTERVAL)
