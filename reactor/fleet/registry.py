"""The registry: every node of one namespace in Redis, and the scripts that act on nodes."""

from time import monotonic
from typing import NamedTuple

from reactor.backend.interface import Runner
from reactor.presence.keys import fleet_prefix, shard_prefix

NOT_REGISTERED = "-"
"""`NodeRecord.registered_in` of a node that has not yet registered its members on the present server."""


class NodeRecord(NamedTuple):
    """A node's entry in the registry.

    counter: increases with each renewal of the lease; other nodes watch it.
    instance: identifies the process, and stays the same when the node takes another name.
    registered_in: the Redis run (see `RecoveryBarrier`) in which the node has registered all its members,
    or NOT_REGISTERED.
    about: host and process id, for operators.
    """

    counter: int
    instance: str
    registered_in: str
    about: str


class Registry:
    """Typed calls for the scripts that act on nodes. Each raises Unavailable when Redis did not answer."""

    def __init__(self, runner: Runner, namespace: str) -> None:
        self._runner = runner
        self._namespace = namespace
        self._prefix = fleet_prefix(namespace)
        self._offset = 0.0  # of Redis's clock from this process's steady clock (s)

    def now(self) -> int:
        """Return Redis's time (ms since 1970), extrapolated by the steady clock from the last renewal."""
        return int((monotonic() + self._offset) * 1000)

    async def renew(
        self, node: str, record: NodeRecord, *, lease_ms: int, first: bool
    ) -> dict[str, NodeRecord] | None:
        """Renew a node's lease and return the registry, or None where the node is no longer registered.

        first: add the node where it is missing.
        """
        counter, *about = record
        reply = await self._runner.run(
            "renew_lease", self._prefix, node, counter, lease_ms, " ".join(about), int(first)
        )
        if reply[0] == b"lost":
            return None
        self._offset = reply[1] / 1000 - monotonic()
        return _records(reply[2])

    async def nodes(self) -> dict[str, NodeRecord]:
        """Return all registered nodes by name: those alive and those not yet judged lost."""
        return _records(await self._runner.run("list_nodes", self._prefix))

    async def deregister(self, node: str) -> None:
        """Remove a node from the registry."""
        await self._runner.run("resign", self._prefix, node)

    async def acquire_leadership(self, job: str, node: str, *, ttl_ms: int) -> bool:
        """Acquire or renew the leadership of a job for ttl_ms; return whether the node is the leader."""
        taken: int = await self._runner.run("acquire_leadership", self._prefix, job, node, ttl_ms)
        return taken == 1

    async def report(self, node: str, report: bytes, *, ttl_ms: int) -> None:
        """Store a node's report, which expires after ttl_ms."""
        await self._runner.run("report", self._prefix, node, report, ttl_ms)

    async def reports(self) -> dict[str, bytes]:
        """Return the report of each registered node by name; empty where it has expired."""
        flat = await self._runner.run("list_reports", self._prefix)
        return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}

    async def nodes_of_shard(self, shard: int) -> list[str]:
        """Return the names of the nodes whose connections the shard holds."""
        nodes = await self._runner.run("shard_nodes", shard_prefix(self._namespace, shard))
        return [node.decode() for node in nodes]


def _records(flat: list[bytes]) -> dict[str, NodeRecord]:
    return {flat[i].decode(): _record(flat[i + 1]) for i in range(0, len(flat), 2)}


def _record(value: bytes) -> NodeRecord:
    counter, *rest = value.decode().split(" ", 3)
    if len(rest) != 3:  # written by a version that stored only `about`
        rest = ["", NOT_REGISTERED, " ".join(rest)]
    return NodeRecord(int(counter), *rest)
