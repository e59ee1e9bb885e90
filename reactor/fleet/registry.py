"""The nodes of one namespace as Redis knows them: registry, leases, turns."""

from time import monotonic
from typing import NamedTuple

from reactor.backend.interface import Runner
from reactor.presence.keys import fleet_prefix, shard_prefix

NOWHERE = "-"
"""In place of the life of the server in which a node has entered its members: in none, as far as is known."""


class NodeRecord(NamedTuple):
    """A node in the registry: a counter that moves while it lives, and a few words about it for people.

    life: what names its process, whatever names it takes. entered_in: the life of the server in which it has
    entered all its members, as far as it is done; else NOWHERE.
    """

    counter: int
    life: str
    entered_in: str
    about: str


class Fleet:
    """Typed calls for the scripts that concern nodes. Each raises Unavailable when Redis did not answer."""

    def __init__(self, runner: Runner, namespace: str) -> None:
        self._runner = runner
        self._namespace = namespace
        self._prefix = fleet_prefix(namespace)
        self._ahead = 0.0

    def now(self) -> int:
        """Redis's time (ms since 1970), as last heard with a lease and counted on by a steady clock."""
        return int((monotonic() + self._ahead) * 1000)

    async def renew(
        self, node: str, record: NodeRecord, *, lease: int, first: bool
    ) -> dict[str, NodeRecord] | None:
        """Renew the lease (ms); the registry, or None where this node is not in it any more."""
        counter, *about = record
        reply = await self._runner.run(
            "lease", self._prefix, node, counter, lease, " ".join(about), int(first)
        )
        if reply[0] == b"lost":
            return None
        self._ahead = reply[1] / 1000 - monotonic()
        return _registry(reply[2])

    async def registry(self) -> dict[str, NodeRecord]:
        """The nodes that are alive, or not yet judged lost."""
        return _registry(await self._runner.run("registry", self._prefix))

    async def resign(self, node: str) -> None:
        """Take a node out of the registry."""
        await self._runner.run("resign", self._prefix, node)

    async def take_turn(self, job: str, node: str, *, milliseconds: int) -> bool:
        """Whether this node does the job for the next while."""
        taken: int = await self._runner.run("take_turn", self._prefix, job, node, milliseconds)
        return taken == 1

    async def report(self, node: str, report: bytes, *, milliseconds: int) -> None:
        """Tell how a node is; that is forgotten after a while."""
        await self._runner.run("report", self._prefix, node, report, milliseconds)

    async def reports(self) -> dict[str, bytes]:
        """What the nodes of the registry told of themselves last; empty where one told nothing lately."""
        flat = await self._runner.run("reports", self._prefix)
        return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}

    async def nodes_of_shard(self, shard: int) -> list[str]:
        """The nodes that the shard holds connections of."""
        nodes = await self._runner.run("shard_nodes", shard_prefix(self._namespace, shard))
        return [node.decode() for node in nodes]


def _registry(flat: list[bytes]) -> dict[str, NodeRecord]:
    return {flat[i].decode(): _record(flat[i + 1]) for i in range(0, len(flat), 2)}


def _record(value: bytes) -> NodeRecord:
    counter, *rest = value.decode().split(" ", 3)
    life, entered_in, about = rest if len(rest) == 3 else ("", NOWHERE, " ".join(rest))  # of an older version
    return NodeRecord(int(counter), life, entered_in, about)
