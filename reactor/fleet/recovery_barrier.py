"""After Redis lost data: whether all nodes that were there have entered their members again.

Until then a member that is missing may only be one whose node has not spoken yet. Each node says in the
registry for which life of the server it has entered everything; nobody is waited for longer than a lease, for
who is not there by then would be judged lost.
"""

from hashlib import sha1
from time import monotonic

from reactor.fleet.lease import Lease
from reactor.fleet.registry import Registry


class RollCall:
    """One node's part in it.

    lease: seconds. floor: seconds that are waited at least where the server is the same as before, since
    there another node may not have noticed that something is lost.
    """

    def __init__(self, registry: Registry, node_lease: Lease, *, lease: float, floor: float) -> None:
        self._registry, self._node_lease = registry, node_lease
        self._lease, self._floor = lease, floor
        self._earliest = self._latest = 0.0
        self._open = False

    def be_present(self, run: str) -> None:
        """This node has nothing to enter in this life of the server."""
        self._node_lease.run_id = run
        self._node_lease.registered_in = sha1(run.encode(), usedforsecurity=False).hexdigest()[:12]

    async def answer(self, run: str, *, another: bool) -> None:
        """This node has entered its members again. another: the server is not the one before.

        Raises Unavailable.
        """
        now = monotonic()
        self._earliest, self._latest = now + (0.0 if another else self._floor), now + self._lease
        self._open, self._node_lease.barrier_passed = True, False
        self.be_present(run)
        await self._node_lease.renew()

    async def closed(self) -> bool:
        """Whether nobody has to be waited for any more; then ends by time count again.

        Raises Unavailable.
        """
        if self._open and await self._is_complete():
            self._open, self._node_lease.barrier_passed = False, True
            await self._node_lease.renew()
        return not self._open

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
