"""What this node knows about the other nodes: which of them are alive, and what to do with lost ones.

Each renewal of the lease (`Lease`) brings the registry, in which every live node increases its counter a few
times a lease. A node is judged lost when its counter has not moved for a whole lease by this node's steady
clock while Redis answered all the time. If Redis or this node was away, every node looks dead, so all
observations before that are discarded: an outage of Redis never makes a node lost.

Every node judges every other one. Detaching a lost node's members is idempotent, so several nodes may do it
at once, and one that dies half-way is completed by another, or by the sweep. It takes a call for each room of
the lost node, so it has a task of its own: if renewals waited for it, this node would be judged lost next.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from reactor.errors import Unavailable
from reactor.fleet.registry import NodeRecord, Registry
from reactor.presence.attachment import Terms
from reactor.presence.rows import room_from
from reactor.presence.store import Store, each
from reactor.tasks import Spawner

log = structlog.get_logger()

MAX_RENEWAL_GAP = 0.6
"""As a share of the lease. A longer gap between two of this node's own renewals (every third of a lease)
means that at least one of them failed or was late."""


class LivePeers:
    """The instances of all live nodes. One counts as gone when the registry was without it for a whole lease.

    lease: seconds. A registry that Redis has lost fills again only little by little, and until then no
    instance is forgotten.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._missing_since: dict[str, float] = {}
        self._observed_at = 0.0
        self.instances: set[str] = set()

    def observe(self, registry: Mapping[str, NodeRecord], now: float) -> None:
        """Take in the registry as it is. now: steady clock (s)."""
        if now - self._observed_at > self._lease * MAX_RENEWAL_GAP:
            self._missing_since.clear()
        self._observed_at = now
        registered = {record.instance for record in registry.values()}
        self.instances |= registered
        missing = self.instances - registered
        self._missing_since = {instance: self._missing_since.get(instance, now) for instance in missing}
        self.instances -= {
            instance for instance, since in self._missing_since.items() if now - since > self._lease
        }


class FailureDetector:
    """Judges which nodes are lost, and detaches the members of those.

    lease: seconds. policy: the terms of a room, for the disconnect grace of its members. tasks: where members
    are detached.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        tasks: Spawner,
        *,
        lease: float,
        policy: Callable[[str], Terms],
    ) -> None:
        self._store, self._registry, self._tasks = store, registry, tasks
        self._lease, self._policy = lease, policy
        self._observed_at = 0.0
        self._counters: dict[str, tuple[int, float]] = {}
        self._judged_lost: set[str] = set()
        self._detaching: set[str] = set()  # of these, those whose members are being detached
        self.on_detached: Callable[[], None] = lambda: None
        """Called after all connections of a lost node were detached."""

    def check(self, registry: Mapping[str, NodeRecord], *, own_name: str, now: float) -> None:
        """Compare the registry with earlier ones, and begin to detach the members of nodes that are lost.

        now: steady clock (s). Where Redis does not answer meanwhile, a later call begins again.
        """
        if now - self._observed_at > self._lease * MAX_RENEWAL_GAP:
            self._counters.clear()
        self._observed_at = now
        lost: list[str] = []
        for node, record in registry.items():
            counter, since = self._counters.get(node, (None, now))
            if counter != record.counter:
                self._counters[node] = (record.counter, now)
            elif node != own_name and now - since > self._lease:
                lost.append(node)
        for node in self._counters.keys() - registry.keys():
            del self._counters[node]
        self._judged_lost &= registry.keys()
        for node in lost:
            if node not in self._judged_lost:
                log.warning("node_lost", node=node, about=registry[node].about)
            if node not in self._detaching:
                self._detaching.add(node)
                self._tasks.start_soon(self._detach_lost, node)
        self._judged_lost.update(lost)

    async def _detach_lost(self, node: str) -> None:
        try:
            with suppress(Unavailable):
                await self.detach_node(node)
        finally:
            self._detaching.discard(node)

    async def detach_node(self, node: str) -> None:
        """Detach all connections of a node from their members, and remove it from the registry.

        For a member without any other connection the disconnect grace begins. Idempotent. Raises Unavailable.
        """
        await each(self._store.keys.shards, lambda shard: self._detach_in_shard(shard, node))
        await self._registry.deregister(node)
        self._counters.pop(node, None)
        self.on_detached()

    async def detach_unregistered(self, shard: int) -> None:
        """Detach the nodes that the shard knows and the registry does not: a failover can bring them back.

        Raises Unavailable.
        """
        nodes = await self._registry.nodes_of_shard(shard)
        if not nodes:
            return
        registry = await self._registry.nodes()
        for node in nodes:
            if node not in registry:
                await self._detach_in_shard(shard, node)

    async def _detach_in_shard(self, shard: int, node: str) -> None:
        while rooms := await self._store.fence_node(shard, node):
            for room in rooms:
                terms = self._policy(room_from(room))
                await self._store.detach_node(
                    shard, node, room, grace=terms.grace, away_grace=terms.away_grace
                )
