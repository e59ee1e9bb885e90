"""Sets of Redis servers for tests: a primary with replicas under Sentinels, and a Redis Cluster."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import key_slot

from reactor.presence.keys import shard_of, shard_prefix
from tests.support.servers import Server, find, free_port
from tests.support.waiting import until_blocking

CONF = Path(__file__).parents[2] / "redis-conf"
USER = "reactor:change-this-password"
"""Username and password of the nodes, from users.acl, with the rights given there and no more."""
QUICK = {"repl-ping-replica-period": "1"}
_IN_FILES = ("notify-keyspace-events", "save", "appendonly")
_CHANGED_BY_TESTS = ("notify-keyspace-events", "min-replicas-to-write", "cluster-require-full-coverage")


class SetServer(Server):
    """One server of a set. It has a configuration file, because Sentinel and CONFIG REWRITE rewrite it."""

    def __init__(
        self,
        kind: str,
        binary: Path,
        *,
        flags: str = "",
        text: str = "",
        config: dict[str, str] | None = None,
    ) -> None:
        super().__init__(kind, binary, config)
        for name in _IN_FILES:
            del self._config[name]
        (self.folder / "server.conf").write_text(text)
        program = self.folder / "run"
        program.write_text(f"#!/bin/sh\nexec '{binary}' server.conf {flags} \"$@\"\n")
        program.chmod(0o700)
        self._binary = program
        self._paused = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether it runs, and answers."""
        return self._watch is not None and self._watch.poll() is None and not self._paused

    def pause(self) -> None:
        super().pause()
        self._paused = True

    def resume(self) -> None:
        super().resume()
        self._paused = False

    def kill(self) -> None:
        """SIGKILL. It starts again without data."""
        super().kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def kill_saved(self) -> None:
        """SIGKILL after SAVE. It starts again with its present data."""
        self.control.save()
        super().kill()

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.control.info(section)
        return dict(found)

    @property
    def is_primary(self) -> bool:
        return bool(self.info("replication")["role"] == "master")

    def follows(self, primary: "SetServer") -> bool:
        """Whether it is a replica of the primary, and up to date."""
        seen = self.info("replication")
        return (seen["role"], seen.get("master_port"), seen.get("master_link_status")) == (
            "slave",
            primary.port,
            "up",
        )

    def reset(self) -> "SetServer":
        """Reset everything but its data and its role in the set."""
        self.start()
        self.resume()
        control = self.control
        control.execute_command("CLIENT", "UNPAUSE")
        if "aclfile" in self._config:
            control.execute_command("ACL", "SETUSER", "replica", "+psync")
        for name in _CHANGED_BY_TESTS:
            if name in self._settings:
                control.config_set(name, self._settings[name])
        control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        return self


class DataServer(SetServer):
    """A data server, configured from redis-conf/: standalone.conf, the file of its set, and users.acl."""

    def __init__(self, kind: str, binary: Path, file: str, config: dict[str, str]) -> None:
        text = f"include {CONF / 'standalone.conf'}\ninclude {CONF / file}\n"
        super().__init__(kind, binary, text=text, config={**QUICK, "aclfile": "users.acl", **config})
        (self.folder / "users.acl").write_text(open_users())

    def start(self) -> "DataServer":
        super().start()
        if self.kind == "valkey":  # as cluster.conf says
            rights = "~* +select +@write +cluster|syncslots"
            self.control.execute_command("ACL", "SETUSER", "replica", *rights.split())
        return self


def open_users() -> str:
    """The text of users.acl, with an administrator that needs no password."""
    users, closed = (CONF / "users.acl").read_text(), "user default on >change-this-password "
    assert closed in users
    return users.replace(closed, "user default on nopass ")


class ServerSet(ABC):
    """A set of servers. `servers` are those with data; some may be down.

    Every method blocks until its effect is visible: on an event loop, call it in a thread.
    """

    url: str
    servers: list[SetServer]

    def __init__(self, kind: str, _binary: Path) -> None:
        self.kind = kind

    @abstractmethod
    def start(self) -> Self:
        """Start all servers and wait until the set is complete."""

    @abstractmethod
    def everything(self) -> list[SetServer]:
        """All processes of the set."""

    @abstractmethod
    def primaries(self) -> list[SetServer]:
        """The servers that take writes."""

    @abstractmethod
    def primary_of(self, room_id: str) -> SetServer:
        """The primary of the room's shard, once all servers agree."""

    @abstractmethod
    def failover(self, room_id: str) -> SetServer:
        """Fail the room's primary over without loss; the new primary."""

    @abstractmethod
    def promoted(self, old: SetServer, room_id: str) -> SetServer:
        """Wait until all agree on another primary for the room; the new primary."""

    @abstractmethod
    def _repair(self) -> None:
        """Undo changes that the set would take long to undo by itself."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Whether everything is up, agreed upon and replicated."""

    @property
    def admin_url(self) -> str:
        """The URL with the rights of an administrator, for a node that sets notify-keyspace-events."""
        return self.url.replace(f"{USER}@", "")

    def stop(self) -> None:
        for server in self.everything():
            server.stop()

    def wait_whole(self) -> None:
        until_blocking(self.is_whole, what="the set is whole")

    def kill_primary(self, room_id: str) -> SetServer:
        """SIGKILL to the room's primary; the killed server."""
        primary = self.primary_of(room_id)
        primary.kill()
        return primary

    def restart(self, server: SetServer) -> None:
        """Start a killed server again on its former address, and wait until the set is complete."""
        server.start()
        self.wait_whole()

    def reset(self) -> Self:
        """Make the set complete, empty and configured as at the start. The roles may stay as they are."""
        for server in self.everything():
            server.reset()
        self._repair()
        self.wait_whole()
        for primary in self.primaries():
            primary.control.flushall()
        for server in self.servers:
            server.control.script_flush()
        return self

    @contextmanager
    def unreplicated(self, primary: SetServer) -> Iterator[None]:
        """Let no write of a primary reach its replicas, so that a failover in the block loses it."""
        primary.control.config_set("min-replicas-to-write", 0)
        primary.control.execute_command("ACL", "SETUSER", "replica", "-psync")
        primary.control.execute_command("CLIENT", "KILL", "TYPE", "replica")
        until_blocking(
            lambda: primary.info("replication")["connected_slaves"] == 0, what="its replicas are cut off"
        )
        try:
            yield
        finally:
            if primary.alive:
                primary.control.execute_command("ACL", "SETUSER", "replica", "+psync")


class RunningSets:
    """The running sets of one process, each started at its first use."""

    def __init__(self) -> None:
        self._started: dict[tuple[type[ServerSet], str], ServerSet] = {}

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Self]:
        """Stop all sets at the end of the block."""
        sets = cls()
        try:
            yield sets
        finally:
            for server_set in sets._started.values():
                server_set.stop()

    def get(self, set_type: type[ServerSet], kind: str) -> ServerSet:
        """A running set; blocks while it starts. Raises LookupError if the machine lacks the server."""
        if (set_type, kind) not in self._started:
            binary, missing = find(kind)
            if binary is None:
                raise LookupError(missing)
            self._started[set_type, kind] = set_type(kind, binary)
            self._started[set_type, kind].start()
        return self._started[set_type, kind]


# Sentinel: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/

DOWN_AFTER = 1.0
"""Seconds without an answer after which Sentinels consider the primary down."""

_NAME = "main"


class Sentinel(SetServer):
    """One of three Sentinels that monitor one primary."""

    def __init__(self, kind: str, binary: Path, primary: SetServer) -> None:
        text = (CONF / "sentinel.conf").read_text()
        for line, quick in (
            ("port 26379", ""),
            ("monitor main 127.0.0.1 6379", f"monitor {_NAME} 127.0.0.1 {primary.port}"),
            ("down-after-milliseconds main 5000", f"down-after-milliseconds {_NAME} {DOWN_AFTER * 1000:.0f}"),
            ("failover-timeout main 30000", f"failover-timeout {_NAME} 3000"),
        ):
            assert text.count(line) == 1
            text = text.replace(line, quick)
        super().__init__(kind, binary, flags="--sentinel", text=text)
        self._settings = {"": ""}  # a Sentinel has no CONFIG GET

    def start(self) -> "Sentinel":
        started = not self.alive
        super().start()
        if started:
            # With the default periods it would notice a returned replica only after 10 s, and with one ping
            # a second consider a new primary down.
            self.control.execute_command("SENTINEL", "DEBUG", "info-period", "1000", "ping-period", "200")
        return self

    def reset(self) -> "Sentinel":
        self.start()
        self.resume()
        return self

    def ask(self, command: str) -> Any:
        return self.control.execute_command("SENTINEL", command, _NAME)

    def sees_all(self) -> bool:
        """Whether it knows the primary, two replicas and two other Sentinels, and considers them all up."""
        primary = _pairs(self.ask("MASTER"))
        if (primary["flags"], primary["num-slaves"], primary["num-other-sentinels"]) != ("master", "2", "2"):
            return False
        replicas = [_pairs(one) for one in self.ask("REPLICAS")]
        return all(
            (one["flags"], one["role-reported"], one["master-link-status"]) == ("slave", "slave", "ok")
            for one in replicas
        ) and not any(re.search("s_down|disconnected", _pairs(one)["flags"]) for one in self.ask("SENTINELS"))


class SentinelSet(ServerSet):
    """A primary, two replicas and three Sentinels."""

    def __init__(self, kind: str, binary: Path) -> None:
        super().__init__(kind, binary)
        self.servers = [DataServer(kind, binary, "replicated.conf", {}) for _ in range(3)]
        self.sentinels = [Sentinel(kind, binary, self.servers[0]) for _ in range(3)]
        self.url = f"redis+sentinel://{USER}@{','.join(one.address for one in self.sentinels)}/{_NAME}/0"

    def start(self) -> Self:
        for server in self.servers:
            server.start()
        for replica in self.servers[1:]:
            replica.control.replicaof("127.0.0.1", str(self.servers[0].port))
            replica.control.config_rewrite()
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_whole()
        return self

    def everything(self) -> list[SetServer]:
        return [*self.servers, *self.sentinels]

    @property
    def primary(self) -> SetServer:
        """The primary, once all Sentinels agree on a server that is up."""
        found: SetServer = until_blocking(self._agreed, what="the Sentinels agree on a primary")
        return found

    def primaries(self) -> list[SetServer]:
        return [self.primary]

    def primary_of(self, room_id: str = "") -> SetServer:
        return self.primary

    def failover(self, room_id: str = "") -> SetServer:
        old = self.primary
        until_blocking(self._takes_order, what="a Sentinel begins the failover")
        return self.promoted(old)

    def promoted(self, old: SetServer, room_id: str = "") -> SetServer:
        found: SetServer = until_blocking(
            lambda: (new := self._agreed()) is not old and new, what="another primary"
        )
        return found

    def is_whole(self) -> bool:
        primary = self._agreed() if all(one.alive for one in self.everything()) else None
        return (
            primary is not None
            and all(server.follows(primary) for server in self.servers if server is not primary)
            and all(sentinel.sees_all() for sentinel in self.sentinels)
        )

    def _agreed(self) -> SetServer | None:
        named = {tuple(one.ask("GET-MASTER-ADDR-BY-NAME")) for one in self.sentinels if one.alive}
        if len(named) != 1:
            return None
        ((_, port),) = named
        found = next(server for server in self.servers if server.port == int(port))
        return found if found.alive and found.is_primary else None

    def _takes_order(self) -> bool:
        try:
            self.sentinels[0].ask("FAILOVER")
        except redis.ResponseError:
            return False  # a failover is in progress, or it knows no suitable replica yet
        return True

    def _repair(self) -> None:
        primary = self.primary
        for server in self.servers:
            if server is not primary and not server.follows(primary):
                server.control.replicaof("127.0.0.1", str(primary.port))


def _pairs(flat: Any) -> dict[str, str]:
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


# Cluster: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

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
