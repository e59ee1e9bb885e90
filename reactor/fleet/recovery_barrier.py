"""The barrier at which nodes wait for each other after Redis lost data, until all have registered again.

Before that, a member that is missing in Redis may only be one whose node has not registered it yet. Each node
publishes in the registry for which run of the server it has registered everything. No node is waited for
longer than a lease: one that has not come by then is judged lost in any case.
"""

from hashlib import sha1
from time import monotonic

from reactor.fleet.lease import Lease
from reactor.fleet.registry import Registry


class RecoveryBarrier:
    """This node's part in it.

    lease: seconds. floor: seconds that are waited at least where the server is the same as before, since
    another node may not have noticed the loss yet.
    """

    def __init__(self, registry: Registry, node_lease: Lease, *, lease: float, floor: float) -> None:
        self._registry, self._node_lease = registry, node_lease
        self._lease, self._floor = lease, floor
        self._earliest = self._latest = 0.0
        self._waiting = False

    def note_registered(self, run_id: str) -> None:
        """Note that this node has registered everything in this run of the server."""
        self._node_lease.run_id = run_id
        self._node_lease.registered_in = sha1(run_id.encode(), usedforsecurity=False).hexdigest()[:12]

    async def arrive(self, run_id: str, *, same_server: bool) -> None:
        """Publish that this node has registered everything, and begin to wait for the others.

        Raises Unavailable; then it can be called again.
        """
        now = monotonic()
        self._earliest, self._latest = now + (self._floor if same_server else 0.0), now + self._lease
        self._waiting, self._node_lease.barrier_passed = True, False
        self.note_registered(run_id)
        await self._node_lease.renew()

    async def passed(self) -> bool:
        """Return whether no other node has to be waited for. Then members may expire again.

        Raises Unavailable; then it can be called again.
        """
        if self._waiting and await self._is_complete():
            self._waiting, self._node_lease.barrier_passed = False, True
            await self._node_lease.renew()
        return not self._waiting

    async def _is_complete(self) -> bool:
        now = monotonic()
        if now >= self._latest:
            return True
        if now < self._earliest:
            return False
        registry = await self._registry.nodes()
        registered_in = {record.instance: record.registered_in for record in registry.values()}
        return all(
            registered_in.get(instance) == self._node_lease.registered_in
            for instance in self._node_lease.live_peers
        )
