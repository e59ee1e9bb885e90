"""The rows of the table: each measures one kind of work on one server.

Every row is given a running server and the process id of its Redis; cost is processor time of the server's
own process, so that it hardly matters what else the machine does, nor how fast the load generator is.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from reactor.errors import ReactorError
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.gateway.clients import Client, Crowd, Dialect
from scripts.benchmarks.gateway.dialects import Reactor
from scripts.benchmarks.gateway.servers import Served, cpu_seconds
from scripts.benchmarks.server import Bench

ROOM_OF_ALL = "everyone"
HEARTBEAT_EVERY = 25.0


@dataclass(frozen=True)
class Sizes:
    """The sizes of the work; `QUICK` is small enough for a test."""

    connections: int = 200
    seconds: float = 3.0
    rounds: int = 3
    kept: int = 5000
    kept_seconds: float = 60.0
    storm: int = 5000
    room: int = 50
    one_room: int = 5000
    lone_joins: int = 20
    lists: int = 40


QUICK = Sizes(20, 0.3, 1, 60, 2.0, 60, 20, 60, 2, 3)


@dataclass
class Subject:
    """A server under test."""

    served: Served
    redis_pid: int | None
    dialect: Callable[[], Dialect]
    sizes: Sizes
    bench: Bench

    def crowd(self, room_size: int = 0, expected: int = 0) -> Crowd:
        """Create the clients for it."""
        return Crowd(self.served.port, self.dialect(), room_size, expected)

    def redis_cpu(self) -> float:
        """CPU seconds of its Redis; 0 if it runs elsewhere."""
        return cpu_seconds(self.redis_pid) if self.redis_pid else 0.0


class Meter:
    """CPU time of server and Redis, and seconds, since its creation."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._start = self._now()

    def _now(self) -> tuple[float, float, float]:
        return self._subject.served.cpu(), self._subject.redis_cpu(), time.perf_counter()

    def read(self) -> tuple[float, float, float]:
        """Return CPU seconds of server and Redis, and seconds, so far."""
        server, redis, clock = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return max(server, 1e-3), redis, clock


async def measure_heartbeats(subject: Subject) -> dict[str, Any]:
    """Measure heartbeats (or echoes) per CPU second: each client sends the next after the last reply."""
    sizes = subject.sizes
    crowd = subject.crowd()
    await _connect_and_join(crowd, sizes.connections, sizes.room)
    crowd.in_loop = True
    for client in crowd.clients:
        client.send(client.heartbeat)
    await asyncio.sleep(min(1.0, sizes.seconds))
    rates, walls, redis_costs = [], [], []
    for _ in range(sizes.rounds):
        meter, before = Meter(subject), crowd.acks
        await asyncio.sleep(sizes.seconds)
        server, redis, clock = meter.read()
        acks = crowd.acks - before
        rates.append(acks / server)
        walls.append(acks / clock)
        redis_costs.append(redis / max(acks, 1))
    crowd.in_loop = False
    await asyncio.sleep(0.2)
    _check_no_complaints(crowd)
    crowd.leave()
    return {
        "connections": sizes.connections,
        "per_cpu_second": statistics.median(rates),
        "per_second": statistics.median(walls),
        "redis_us_each": statistics.median(redis_costs) * 1e6,
        "rounds": rates,
    }


async def measure_kept(subject: Subject) -> dict[str, Any]:
    """Measure what joined clients cost: memory, and CPU time for their heartbeats.

    Clients of an echo server join nothing; the cost of their messages is the minimum for single messages.
    """
    sizes = subject.sizes
    base, redis_base = subject.served.resident(), await _redis_memory(subject.bench)
    crowd = subject.crowd(sizes.room, sizes.kept)
    if await _connect_and_join(crowd, sizes.kept, sizes.room):
        await crowd.complete_within(300)
    await asyncio.sleep(min(2.0, sizes.kept_seconds))
    memory = (subject.served.resident() - base) / sizes.kept
    redis_memory = (await _redis_memory(subject.bench) - redis_base) / sizes.kept
    crowd.messages.clear()
    meter, beats = Meter(subject), crowd.acks
    left = sizes.kept_seconds
    while left > 0:
        await crowd.send_heartbeats(min(left, HEARTBEAT_EVERY), share=min(1.0, left / HEARTBEAT_EVERY))
        left -= HEARTBEAT_EVERY
    server, redis, clock = meter.read()
    await asyncio.sleep(0.5)
    _check_no_complaints(crowd)
    result = {
        "connections": sizes.kept,
        "seconds": clock,
        "server_cpu_seconds": server,
        "redis_cpu_seconds": redis,
        "heartbeats": crowd.acks - beats,
        "ack_ms_p50": quantile(crowd.heartbeat_delays or [0.0], 0.5) * 1000,
        "ack_ms_p99": quantile(crowd.heartbeat_delays or [0.0], 0.99) * 1000,
        "other_messages": sum(crowd.messages.values()),
        "bytes_a_connection": memory,
        "redis_bytes_a_member": redis_memory,
    }
    crowd.leave()
    return result


async def measure_storm(subject: Subject) -> dict[str, Any]:
    """Clients connect and join rooms of 50, 200 at a time, until each has the whole list of its room.

    Twice: room after room, as people come to an event, and all rooms at once, as after a restart. At once is
    dearer, since the changes of a room are too far apart to be sent together.
    """
    rooms = subject.sizes.storm // subject.sizes.room
    return {
        "in_turn": await _storm(subject, lambda number: f"turn-{number // subject.sizes.room}"),
        "at_once": await _storm(subject, lambda number: f"once-{number % rooms}"),
    }


async def _storm(subject: Subject, room_of: Callable[[int], str]) -> dict[str, Any]:
    sizes = subject.sizes
    crowd = subject.crowd(sizes.room, sizes.storm)
    meter = Meter(subject)
    await crowd.each(((number, room_of(number)) for number in range(sizes.storm)), crowd.join)
    await crowd.complete_within(300)
    server, redis, clock = meter.read()
    _check_no_complaints(crowd)
    crowd.leave()
    await asyncio.sleep(min(2.0, sizes.kept_seconds))
    return {
        "clients": sizes.storm,
        "joins_per_cpu_second": sizes.storm / server,
        "joins_per_second": sizes.storm / clock,
        "redis_us_a_join": redis / sizes.storm * 1e6,
    }


async def measure_one_room(subject: Subject) -> dict[str, Any]:
    """Clients fill one room, 200 at a time, each with the whole list; then single joins, then lists."""
    sizes = subject.sizes
    crowd = subject.crowd(sizes.one_room, sizes.one_room)
    crowd.skims = True
    meter, load = Meter(subject), time.process_time()
    await crowd.each(((number, ROOM_OF_ALL) for number in range(sizes.one_room)), crowd.join)
    await crowd.complete_within(600)
    server, redis, clock = meter.read()
    _check_no_complaints(crowd)
    result: dict[str, Any] = {
        "members": sizes.one_room,
        "seconds": clock,
        "server_cpu_seconds": server,
        "redis_cpu_seconds": redis,
        "load_cpu_seconds": time.process_time() - load,
        "member_events": crowd.events,
        "events_per_cpu_second": crowd.events / server,
        "megabytes": crowd.bytes / 1e6,
    }
    await asyncio.sleep(1.0)
    result["lone"] = await _lone_joins(subject, crowd)
    if isinstance(crowd.dialect, Reactor):
        result["list"] = await _lists(subject, crowd)
    crowd.leave()
    return result


async def _lone_joins(subject: Subject, crowd: Crowd) -> dict[str, Any]:
    """Measure a single join: its cost, and when the last client has received it."""
    sizes = subject.sizes
    rates, delays, parts = [], [], []
    members = list(crowd.clients)
    for number in range(sizes.lone_joins):
        crowd.room_size = sizes.one_room + number + 1
        crowd.complete.clear()
        crowd.all_complete.clear()
        crowd.expected = len(members) + number
        joiner = await crowd.connect(10**6 + number, ROOM_OF_ALL)
        await asyncio.sleep(0.1)
        before, meter = crowd.events, Meter(subject)
        asked = time.perf_counter()
        joiner.send(crowd.dialect.join(joiner))
        crowd.expected += 1
        await crowd.complete_within(60)
        await asyncio.sleep(0.1)
        server, _, _ = meter.read()
        rates.append((crowd.events - before, server))
        delays.append(max(client.notified_at for client in members) - asked)
        if isinstance(crowd.dialect, Reactor):
            parts.append((await subject.served.status())["join_seconds"])
    events, cpu = (sum(column) for column in zip(*rates, strict=True))
    return {
        "joins": sizes.lone_joins,
        "deliveries": events,
        "deliveries_per_cpu_second": events / cpu,
        "last_client_ms_p50": quantile(delays, 0.5) * 1000,
        "last_client_ms_p99": quantile(delays, 0.99) * 1000,
        "server_part_ms_p50": quantile(parts, 0.5) * 1000 if parts else None,
    }


async def _lists(subject: Subject, crowd: Crowd) -> dict[str, Any]:
    """Measure repeated requests for the list of members."""
    asker: Client = crowd.clients[0]
    meter = Meter(subject)
    took = [
        await crowd.ask(asker, b'{"type":"room:members","roomId":"everyone"}')
        for _ in range(subject.sizes.lists)
    ]
    server, _, _ = meter.read()
    return {
        "members": crowd.room_size,
        "ms_p50": quantile(took, 0.5) * 1000,
        "ms_p99": quantile(took, 0.99) * 1000,
        "server_cpu_ms": server / subject.sizes.lists * 1000,
    }


async def _connect_and_join(crowd: Crowd, clients: int, room: int) -> bool:
    """Connect clients, and join them to rooms of that size; return whether the server has rooms."""
    joins = crowd.dialect.has_rooms
    places = ((number, f"room-{number // room}") for number in range(clients))
    await crowd.each(places, crowd.join if joins else crowd.connect)
    return joins


def _check_no_complaints(crowd: Crowd) -> None:
    if crowd.unexpected or crowd.closed:
        raise ReactorError(f"not all went well: {crowd.unexpected[:3]}, closed: {crowd.closed[:3]}")


async def _redis_memory(bench: Bench) -> int:
    return int((await bench.redis.info("memory"))["used_memory"])


ROWS: dict[str, Callable[[Subject], Awaitable[dict[str, Any]]]] = {
    "heartbeats": measure_heartbeats,
    "kept": measure_kept,
    "storm": measure_storm,
    "one_room": measure_one_room,
}
