"""How many servers a load needs, and how large a Redis: computed from figures that were measured. PURE.

`capacity.json` beside this file holds the figures. `scripts/bench_capacity.py` writes it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reactor.presence.tags import CLUSTER_SHARDS, SHARDS

CORE_SHARE = 0.5
"""How much of a core is planned for: the other half is for bursts, and for the clients of a lost node."""

REDIS_CORE_SHARE = 0.5
"""The same of the one core on which a Redis executes commands."""

REDIS_MEMORY_SHARE = 0.6
"""How much of `maxmemory` the members fill: the rest is for logs, clients, and copies while it saves."""

BATCHES_A_SECOND = 10
"""A node sends the heartbeats of a shard every 100 ms."""

MEASURED_ROOM = 50
"""The size of the rooms in which joins were measured."""

LISTED_ROOM = 1000
"""Members of larger rooms are sent a count (setting `max_members_view`), merged for each room."""

SPARE_FILES = 200
"""Open files of a process for new connections that are being admitted, the log and the admin port."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the application's users do.

    users: connected at the same time, each with one connection. rooms_per_user, room_size: in how many rooms
    each is, and members of a room. heartbeat_interval, ttl: seconds. joins_per_second: of all users together,
    each followed by a departure some time. data: bytes of a member's name and data.
    """

    users: int
    rooms_per_user: int
    room_size: int
    heartbeat_interval: float
    joins_per_second: float
    data: int
    ttl: float


@dataclass(frozen=True, slots=True)
class Nodes:
    """Server processes: `workers` in all, of which one is a spare for the loss of another.

    decided_by: what their number follows from. cores: CPU that all of them use at this load. memory, open
    files and connections: of one of them, when one other is lost.
    """

    workers: int
    decided_by: str
    cores: float
    connections: int
    memory_bytes: int
    total_memory_bytes: int
    open_files: int


@dataclass(frozen=True, slots=True)
class RedisSize:
    """Redis: memory that members take, and `maxmemory` to plan for; cores, connections and primaries.

    primaries: 1 is a single server, or a Sentinel set; more is a cluster.
    """

    memory_bytes: int
    maxmemory_bytes: int
    cores: float
    primaries: int
    shards: int
    shards_per_primary: int
    connections: int


@dataclass(frozen=True, slots=True)
class Size:
    """The answer. Rates are per second; `all_return_seconds`: how long it takes to admit every user again."""

    load: Load
    memberships: int
    rooms: int
    heartbeats_per_second: float
    nodes: Nodes
    redis: RedisSize
    users_per_core: int
    users_per_gib: int
    all_return_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def size_of(load: Load, figures: Mapping[str, float]) -> Size:
    """Compute what a load needs. figures: value by name, as in `capacity.json`."""
    memberships = load.users * load.rooms_per_user
    heartbeats = load.users / load.heartbeat_interval
    by_connections = math.ceil(load.users / figures["largest_node"])
    needed = 1
    while _node_cores(load, figures, needed) > needed * CORE_SHARE:
        needed += 1
    workers = max(needed, by_connections) + 1
    cores = _node_cores(load, figures, workers)
    # With one of them lost, the others have all clients.
    connections = math.ceil(load.users / (workers - 1))
    memory = _node_memory(load, figures, connections)
    redis = _redis_size(load, figures, workers)
    join_us = _join_us(load, figures, workers)
    redis_join_us = figures["redis_join_us"] * load.rooms_per_user
    return Size(
        load=load,
        memberships=memberships,
        rooms=math.ceil(memberships / load.room_size),
        heartbeats_per_second=heartbeats,
        nodes=Nodes(
            workers=workers,
            decided_by="CPU" if needed >= by_connections else "connections",
            cores=cores,
            connections=connections,
            memory_bytes=memory,
            total_memory_bytes=memory * workers,
            open_files=math.ceil(figures["node_open_files"]) + connections + SPARE_FILES,
        ),
        redis=redis,
        users_per_core=round(load.users / cores * CORE_SHARE),
        users_per_gib=round(2**30 * load.users / (memory * workers)),
        all_return_seconds=max(
            load.users * load.rooms_per_user * join_us / 1e6 / (workers - 1),
            load.users * redis_join_us / 1e6 / redis.primaries,
        ),
    )


def _node_cores(load: Load, figures: Mapping[str, float], workers: int) -> float:
    """CPU of all nodes, in cores, with this number of workers."""
    heartbeats = load.users / load.heartbeat_interval * figures["heartbeat_us"]
    joins = load.joins_per_second * _join_us(load, figures, workers)
    deadlines = _deadlines_per_second(load) * figures["deadline_us"]
    return workers * figures["node_idle_core"] + (heartbeats + joins + deadlines) / 1e6


def _join_us(load: Load, figures: Mapping[str, float], workers: int) -> float:
    """Microseconds of all nodes together for a join and, later, its departure.

    The measured join is one into a room that fills up to 50, so it has 25 deliveries on average.
    """
    followers = min(workers, load.room_size)
    deliveries = 2 * min(load.room_size, LISTED_ROOM) - MEASURED_ROOM / 2
    return (
        figures["join_us"]
        + (followers - 1) * figures["follow_us"]
        + max(0.0, deliveries) * figures["delivery_us"]
    )


def _node_memory(load: Load, figures: Mapping[str, float], connections: int) -> int:
    """Bytes of a node with this number of connections."""
    a_connection = figures["connection_bytes"] + (load.rooms_per_user - 1) * figures["further_room_bytes"]
    # It holds the whole list of each room in which it has a member; at most every member of every room.
    members = min(
        load.users * load.rooms_per_user,
        connections * load.rooms_per_user * min(load.room_size, LISTED_ROOM),
    )
    data = members * load.data * figures["data_bytes"]
    return round(figures["node_bytes"] + connections * a_connection + data)


def _deadlines_per_second(load: Load) -> float:
    """How many noted deadlines move: each once in a TTL, when it passes and the key was refreshed."""
    return load.users * load.rooms_per_user / load.ttl


def _redis_size(load: Load, figures: Mapping[str, float], workers: int) -> RedisSize:
    memberships = load.users * load.rooms_per_user
    beyond = max(0, load.data - figures["redis_payload_bytes"])
    member = figures["redis_member_bytes"] + beyond * figures["redis_data_bytes"]
    memory = round(memberships * member)
    refreshes = memberships / load.heartbeat_interval
    batches = min(refreshes, workers * SHARDS * BATCHES_A_SECOND)
    used_us = (
        batches * figures["redis_heartbeat_us"]
        + (refreshes - batches) * figures["redis_member_us"]
        + load.joins_per_second * (figures["redis_join_us"] + figures["redis_departure_us"])
        + _deadlines_per_second(load) * figures["redis_deadline_us"]
    )
    cores = workers * figures["redis_node_core"] + used_us / 1e6
    primaries = min(CLUSTER_SHARDS, max(1, math.ceil(cores / REDIS_CORE_SHARE)))
    shards = SHARDS if primaries == 1 else CLUSTER_SHARDS
    return RedisSize(
        memory_bytes=memory,
        maxmemory_bytes=round(memory / REDIS_MEMORY_SHARE),
        cores=cores,
        primaries=primaries,
        shards=shards,
        shards_per_primary=math.ceil(shards / primaries),
        connections=workers * math.ceil(figures["redis_node_connections"]),
    )
