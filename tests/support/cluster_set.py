"""A Redis Cluster for tests.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import redis
from redis.crc import key_slot

from tests.support import servers
from tests.support.certificates import write_certificate
from tests.support.keyspace import shard_of, shard_prefix
from tests.support.server_sets import USER, DataServer, ServerSet, SetServer
from tests.support.servers import free_port
from tests.support.waiting import until_blocking

NODE_TIMEOUT = 1.5
"""Seconds without an answer after which the nodes consider a node down."""

SLOTS = 16384


class ClusterSet(ServerSet):
    """Three primaries with a replica each.

    FURTHER: configuration of every server in addition, which a running server cannot take.
    """

    FURTHER: ClassVar[dict[str, str]] = {}

    def __init__(self, kind: str, binary: Path) -> None:
        super().__init__(kind, binary)
        config = {
            "cluster-node-timeout": f"{NODE_TIMEOUT * 1000:.0f}",
            "cluster-allow-replica-migration": "no",  # tests rely on the primary of each replica
            **self.FURTHER,
        }
        self.servers = [
            DataServer(kind, binary, "cluster.conf", {**config, "cluster-port": str(free_port())})
            for _ in range(6)
        ]
        self.url = f"redis+cluster://{USER}@{','.join(server.address for server in self.servers[:3])}"
        self._by_id: dict[str, SetServer] = {}

    def start(self) -> Self:
        edges = [0, SLOTS // 3, SLOTS * 2 // 3, SLOTS]
        for i, server in enumerate(self.servers):
            server.start()
            self._by_id[_cluster(server, "MYID")] = server
            _cluster(server, "SET-CONFIG-EPOCH", i + 1)
            if i < 3:
                _cluster(server, "ADDSLOTSRANGE", edges[i], edges[i + 1] - 1)
        for server in self.servers:
            for other in self.servers:
                _cluster(server, "MEET", "127.0.0.1", other.port, other._config["cluster-port"])
        until_blocking(self._all_met, what="all nodes know each other")
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            _cluster(replica, "REPLICATE", self._id(primary))
        self.wait_whole()
        return self

    def everything(self) -> list[SetServer]:
        return self.servers

    def primaries(self) -> list[SetServer]:
        return [self._by_id[node.id] for node in _nodes(self._living()[0]) if node.slots]

    def primary_of(self, room_id: str) -> SetServer:
        return self.owner_of(slot_of(room_id))

    def owner_of(self, slot: int) -> SetServer:
        """The primary that owns a slot, once all running servers agree."""
        found: SetServer = until_blocking(
            lambda: self._agreed(slot), what=f"the cluster agrees on who has slot {slot}"
        )
        return found

    def replica_of(self, primary: SetServer) -> SetServer:
        """A running replica of a primary."""
        return next(server for server in self._living() if not server.is_primary and server.follows(primary))

    def failover(self, room_id: str) -> SetServer:
        old = self.primary_of(room_id)
        _cluster(self.replica_of(old), "FAILOVER")
        return self.promoted(old, room_id)

    def promoted(self, old: SetServer, room_id: str) -> SetServer:
        slot = slot_of(room_id)
        found: SetServer = until_blocking(
            lambda: (new := self._agreed(slot)) is not old and new, what="another primary"
        )
        return found

    def is_whole(self) -> bool:
        if not all(server.alive and _is_ok(server) for server in self.servers) or not self._all_met():
            return False
        primaries = self.primaries()
        return (
            len(primaries) == 3
            and all(self._agreed(slot) for slot in range(0, SLOTS, SLOTS // 64))
            and all(
                any(server.follows(primary) for server in self.servers if server not in primaries)
                for primary in primaries
            )
        )

    def another_primary(self, than: SetServer) -> SetServer:
        """A primary other than the given one."""
        return next(server for server in self.primaries() if server is not than)

    # Resharding.

    def move_slot(self, slot: int, to: SetServer, *, atomic: bool = False) -> None:
        """Move a slot with its keys: key by key, or atomically where the servers can (Valkey 9)."""
        source = self.owner_of(slot)
        if atomic:
            _cluster(source, "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self._id(to))
        else:
            self.begin_move(slot, to)
            while self.move_keys(slot, to):
                pass
            self.end_move(slot, to)
        until_blocking(lambda: self._agreed(slot) is to, what=f"slot {slot} has moved")

    def begin_move(self, slot: int, to: SetServer) -> None:
        """Begin to move a slot; from here on its keys may be on either server."""
        source = self.owner_of(slot)
        _cluster(to, "SETSLOT", slot, "IMPORTING", self._id(source))
        _cluster(source, "SETSLOT", slot, "MIGRATING", self._id(to))

    def move_keys(self, slot: int, to: SetServer, most: int = 10) -> int:
        """Move up to `most` keys of a slot that is being moved; the number moved."""
        source = self.owner_of(slot)
        keys = _cluster(source, "GETKEYSINSLOT", slot, most)
        if keys:
            source.control.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, to: SetServer) -> None:
        """Assign the slot to the new server, once all its keys have been moved."""
        source = self.owner_of(slot)
        for server in (to, source, *(one for one in self.primaries() if one not in (to, source))):
            _cluster(server, "SETSLOT", slot, "NODE", self._id(to))

    def ranges_of(self, server: SetServer, *, without: Collection[int] = ()) -> list[tuple[int, int]]:
        """The slots of a server in ranges, which leave out some slots."""
        slots = {
            slot
            for node in _nodes(server)
            if node.id == self._id(server)
            for first, last in node.slots
            for slot in range(first, last + 1)
            if slot not in without
        }
        return _ranges(slots)

    def move_ranges(
        self, ranges: Sequence[tuple[int, int]], source: SetServer, to: SetServer, *, atomic: bool
    ) -> None:
        """Move ranges of slots with their keys: key by key, or all at once."""
        slots = [slot for first, last in ranges for slot in range(first, last + 1)]
        if atomic:
            words = [slot for pair in ranges for slot in pair]
            _cluster(source, "MIGRATESLOTS", "SLOTSRANGE", *words, "NODE", self._id(to))
        else:
            counts = _pipelined(source, [("COUNTKEYSINSLOT", slot) for slot in slots])
            filled = [slot for slot, keys in zip(slots, counts, strict=True) if keys]
            for slot in filled:
                self.move_slot(slot, to)
            # For each empty slot SETSLOT would write the configuration of every server to disk.
            edges = [edge for pair in _ranges({*slots} - {*filled}) for edge in pair]
            for server in (source, *(one for one in self.servers if one is not source)):
                if server.is_primary:
                    _cluster(server, "DELSLOTSRANGE", *edges)
            _cluster(to, "ADDSLOTSRANGE", *edges)
        until_blocking(
            lambda: all(self._agreed(slot) is to for pair in ranges for slot in pair), what="the slots moved"
        )

    def cancelled_move(self, slot: int, source: SetServer, to: SetServer) -> None:
        """Begin to move a slot atomically, and cancel it before it is complete."""
        source.control.execute_command("DEBUG", "SLOTMIGRATION", "PREVENT-PAUSE", 1)
        try:
            _cluster(source, "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self._id(to))
            _cluster(source, "CANCELSLOTMIGRATIONS")
        finally:
            source.control.execute_command("DEBUG", "SLOTMIGRATION", "PREVENT-PAUSE", 0)
        assert self.owner_of(slot) is source

    def _repair(self) -> None:
        for server in self.servers:
            for slot in re.findall(r"\[(\d+)-[<>]-", _cluster(server, "NODES")):
                _cluster(server, "SETSLOT", slot, "STABLE")

    # The view of the cluster's nodes.

    def _id(self, server: SetServer) -> str:
        return next(found for found, one in self._by_id.items() if one is server)

    def _living(self) -> list[SetServer]:
        return [server for server in self.servers if server.alive]

    def _agreed(self, slot: int) -> SetServer | None:
        named = {
            node.id
            for server in self._living()
            for node in _nodes(server)
            if any(first <= slot <= last for first, last in node.slots)
        }
        found = self._by_id[named.pop()] if len(named) == 1 else None
        return found if found is not None and found.alive and found.is_primary and _is_ok(found) else None

    def _all_met(self) -> bool:
        return all(
            {node.id for node in _nodes(server) if node.connected} == self._by_id.keys()
            for server in self.servers
        )


class DatabasesClusterSet(ClusterSet):
    """A cluster with several databases (https://valkey.io/topics/cluster-spec/), on Valkey 9 and later."""

    FURTHER: ClassVar[dict[str, str]] = {"cluster-databases": "4"}

    def start(self) -> Self:
        if not servers.is_valkey(self.kind, 9):
            raise LookupError("only Valkey 9 and later have clusters with several databases")
        return super().start()


class TlsClusterSet(ClusterSet):
    """A cluster with TLS alone, for its servers among themselves too, and certificates that have no IP.

    So clients have to be given the servers' hostname.
    """

    HOST = "localhost"

    def __init__(self, kind: str, binary: Path) -> None:
        super().__init__(kind, binary)
        self._folder = self.servers[0].folder
        cert, key = write_certificate(self._folder, "servers", host=self.HOST)
        for server in self.servers:
            server._config |= {
                "port": "0",
                "tls-port": str(server.port),
                "tls-cert-file": str(cert),
                "tls-key-file": str(key),
                "tls-ca-cert-file": str(cert),
                "tls-auth-clients": "no",
                "tls-cluster": "yes",
                "tls-replication": "yes",
                "cluster-announce-hostname": self.HOST,
                "cluster-preferred-endpoint-type": "hostname",
            }
        url = self.url.replace("redis+", "rediss+").replace("127.0.0.1", self.HOST)
        self.url = f"{url}?ssl_ca_certs={cert}"

    def start(self) -> Self:
        try:
            self.servers[0].start()
        except redis.RedisError:
            raise LookupError(f"{self.kind} is built without TLS") from None
        return super().start()


@dataclass
class _Node:
    """A line of CLUSTER NODES (https://redis.io/docs/latest/commands/cluster-nodes/)."""

    id: str
    connected: bool
    slots: list[tuple[int, int]]


def slot_of(room_id: str) -> int:
    """The slot of all keys of a room."""
    return int(key_slot(shard_prefix("reactor", shard_of(room_id)).encode()))


def _nodes(server: SetServer) -> list[_Node]:
    found = []
    for line in _cluster(server, "NODES").splitlines():
        node_id, _, flags, _, _, _, _, link, *ranges = line.split()
        slots = [text.partition("-") for text in ranges if not text.startswith("[")]
        fine = link == "connected" and not re.search("fail|handshake|noaddr", flags)
        found.append(_Node(node_id, fine, [(int(first), int(last or first)) for first, _, last in slots]))
    return found


def _is_ok(server: SetServer) -> bool:
    return "cluster_state:ok" in _cluster(server, "INFO")


def _ranges(slots: Collection[int]) -> list[tuple[int, int]]:
    starts = sorted(slot for slot in slots if slot - 1 not in slots)
    ends = sorted(slot for slot in slots if slot + 1 not in slots)
    return list(zip(starts, ends, strict=True))


def _pipelined(server: SetServer, calls: Sequence[tuple[str | int, ...]]) -> list[Any]:
    """The replies to many CLUSTER commands."""
    pipeline = server.control.pipeline(transaction=False)
    for words in calls:
        pipeline.execute_command("CLUSTER", *words)
    return list(pipeline.execute())


def _cluster(server: SetServer, *words: str | int) -> Any:
    return server.control.execute_command("CLUSTER", *words)
