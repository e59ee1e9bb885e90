"""A Redis Cluster for tests.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from redis.crc import key_slot

from tests.support.keyspace import shard_of, shard_prefix
from tests.support.server_sets import USER, DataServer, ServerSet, SetServer
from tests.support.servers import free_port
from tests.support.waiting import until_blocking

NODE_TIMEOUT = 1.5
"""Seconds without an answer after which the nodes consider a node down."""

SLOTS = 16384


class ClusterSet(ServerSet):
    """Three primaries with a replica each."""

    def __init__(self, kind: str, binary: Path) -> None:
        super().__init__(kind, binary)
        config = {
            "cluster-node-timeout": f"{NODE_TIMEOUT * 1000:.0f}",
            "cluster-allow-replica-migration": "no",  # tests rely on the primary of each replica
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


def _cluster(server: SetServer, *words: str | int) -> Any:
    return server.control.execute_command("CLUSTER", *words)
