"""The registry: every node of one namespace in Redis, and the scripts that act on nodes."""

from time import monotonic
from typing import NamedTuple

import msgspec

from reactor import __version__
from reactor.backend.interface import Runner
from reactor.errors import FormatMismatch
from reactor.presence.format import FORMATS, Format, format_objection
from reactor.presence.keys import Keyspace, raw_of, text_of

NOT_REGISTERED = "-"
"""`NodeRecord.registered_in` of a node that has not yet registered its members on the present server."""


class NodeRecord(NamedTuple):
    """A node's entry in the registry.

    counter: increases with each renewal of the lease; other nodes watch it.
    instance: identifies the process, and stays the same when the node takes another name.
    registered_in: the Redis run (see `RecoveryBarrier`) in which the node has registered all its members,
    or NOT_REGISTERED.
    about: host and process id, for operators.
    formats: the formats that it speaks and the number of shards, as in `1-2/16`; release: of this package.
    Both are filled in by `Registry.renew`.
    """

    counter: int
    instance: str
    registered_in: str
    about: str
    formats: str = ""
    release: str = ""

    @property
    def newest_format(self) -> int:
        """The newest format that the node speaks; 0 where the entry does not say."""
        newest = self.formats.partition("/")[0].partition("-")[2]
        return int(newest) if newest.isdecimal() else 0


class Registry:
    """Typed calls for the scripts that act on nodes. Each raises Unavailable when Redis did not answer.

    Attributes:
        formats: The formats that this node speaks.
        format_number: The one in which it is to write.

    """

    def __init__(self, runner: Runner, keys: Keyspace) -> None:
        self._runner = runner
        self.formats = FORMATS
        self.format_number = FORMATS.newest
        self._keys = keys
        self._prefix = keys.fleet
        self._offset = 0.0  # of Redis's clock from this process's steady clock (s)

    def now(self) -> int:
        """Return Redis's time (ms since 1970), extrapolated by the steady clock from the last renewal."""
        return int((monotonic() + self._offset) * 1000)

    async def renew(
        self, node: str, record: NodeRecord, *, lease_ms: int, first: bool, advance: bool = False
    ) -> dict[str, NodeRecord] | None:
        """Renew a node's lease and return the registry, or None where the node is no longer registered.

        first: add the node where it is missing. advance: whether the namespace may advance to the newest
        format of this release, if every registered node speaks it; `format_number` is then that.

        Raises FormatMismatch where the namespace has a format by now that this node cannot use.
        """
        shards, newest = len(self._keys.shards), self.formats.newest
        about = (
            f"{record.instance} {record.registered_in} {self.formats.oldest}-{newest}/{shards} "
            f"{__version__} {record.about}"
        )
        reply = await self._runner.run(
            "renew_lease", self._prefix, node, record.counter, lease_ms, about, int(first),
            self.format_number, shards, newest if advance else 0, __version__,
        )  # fmt: skip
        if reply[0] == b"lost":
            return None
        if reply[0] == b"format":
            raise FormatMismatch(self._objection(Format(reply[1], reply[2])))
        self._offset = reply[1] / 1000 - monotonic()
        self.format_number = reply[3]
        return _records(reply[2])

    def _objection(self, found: Format) -> str:
        shards = len(self._keys.shards)
        why = format_objection(found, self._keys.namespace, shards=shards, formats=self.formats)
        return f"{why or 'the format of the namespace has changed'}; this node stops."

    async def nodes(self) -> dict[str, NodeRecord]:
        """Return all registered nodes by name: those alive and those not yet judged lost."""
        return _records(await self._runner.run("list_nodes", self._prefix))

    async def deregister(self, node: str) -> None:
        """Remove a node from the registry."""
        await self._runner.run("resign", self._prefix, raw_of(node))

    async def acquire_leadership(self, job: str, node: str, *, ttl_ms: int) -> bool:
        """Acquire or renew the leadership of a job for ttl_ms; return whether the node is the leader."""
        taken: int = await self._runner.run("acquire_leadership", self._prefix, job, node, ttl_ms)
        return taken == 1

    async def report(self, node: str, report: bytes, *, ttl_ms: int) -> None:
        """Store a node's report, which expires after ttl_ms."""
        await self._runner.run("report", self._prefix, node, report, ttl_ms)

    async def reports(self) -> dict[str, tuple[bytes, int]]:
        """Return each registered node's report, empty where it has expired, and the ms until it expires."""
        flat = await self._runner.run("list_reports", self._prefix)
        return {text_of(flat[i]): (flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)}

    async def disconnect_user(self, user_id: str, message: str) -> int:
        """Ask every node to remove a user from the rooms that it has connections in; how many were asked."""
        request = msgspec.json.encode((user_id, message))
        asked: int = await self._runner.run("disconnect_user", self._prefix, request)
        return asked

    async def nodes_of_shard(self, shard: int) -> list[str]:
        """Return the names of the nodes whose connections the shard holds."""
        nodes = await self._runner.run("shard_nodes", self._keys.prefixes[shard])
        return list(map(text_of, nodes))


def _records(flat: list[bytes]) -> dict[str, NodeRecord]:
    return {text_of(flat[i]): _record(flat[i + 1]) for i in range(0, len(flat), 2)}


def _record(value: bytes) -> NodeRecord:
    counter, *rest = value.decode(errors="replace").split(" ", 5)
    if len(rest) != 5:  # written by another program
        rest = ["", NOT_REGISTERED, "", "", " ".join(rest)]
    instance, registered_in, formats, release, about = rest
    number = int(counter) if counter.isdecimal() else 0
    return NodeRecord(number, instance, registered_in, about, formats, release)
