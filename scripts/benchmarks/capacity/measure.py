"""Measures what a node and a member hold: memory, open files, connections to Redis; and idle CPU."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.counters import cpu
from scripts.benchmarks.gateway.clients import Client, Crowd
from scripts.benchmarks.gateway.dialects import Reactor
from scripts.benchmarks.gateway.servers import Served, pinned_redis, reactor_server
from scripts.benchmarks.server import Bench

ROOM = 50
FURTHER_ROOMS = 3
DATA = 1000
"""Bytes of data of a member, where the effect of data is measured."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `QUICK` is small enough for a test."""

    connections: int = 4000
    idle_seconds: float = 20.0
    settle_seconds: float = 2.0


QUICK = Sizes(60, 0.5, 0.3)


async def measure_holdings(program: Path | None, sizes: Sizes) -> dict[str, Any]:
    """Measure one node and its Redis: first without clients, then with more and more that they hold."""
    async with pinned_redis(None, program) as (bench, _), reactor_server(bench) as served:
        result: dict[str, Any] = {
            "connections": sizes.connections,
            "node": await _without_clients(bench, served, sizes.idle_seconds),
        }
        # The first connections fill memory that the interpreter has already.
        first = await _crowd(served, range(100_000, 100_000 + min(200, sizes.connections)), "first")
        await asyncio.sleep(sizes.settle_seconds)
        before = await _held(bench, served)
        crowd = await _crowd(served, range(sizes.connections), "room")
        await asyncio.sleep(sizes.settle_seconds)
        joined = await _held(bench, served)
        await _join_further_rooms(crowd)
        await asyncio.sleep(sizes.settle_seconds)
        in_more = await _held(bench, served)
        await _set_data(crowd)
        await asyncio.sleep(sizes.settle_seconds)
        with_data = await _held(bench, served)
        for one in (first, crowd):
            one.leave()
    count = sizes.connections
    result["a_connection"] = _per(before, joined, count)
    result["a_further_room"] = _per(joined, in_more, count * FURTHER_ROOMS)
    result["a_byte_of_data"] = _per(in_more, with_data, count * DATA)
    return result


async def _without_clients(bench: Bench, served: Served, seconds: float) -> dict[str, float]:
    node, redis = served.cpu(), await cpu(bench.redis)
    await asyncio.sleep(seconds)
    node, redis = (served.cpu() - node) / seconds, (await cpu(bench.redis) - redis) / seconds
    clients = await bench.redis.client_list()
    return {
        "bytes": served.resident(),
        "core_share": node,
        "redis_core_share": redis,
        # The benchmark has one connection itself.
        "redis_connections": len(clients) - 1,
        "open_files": len(os.listdir(f"/proc/{served.pids[0]}/fd")),  # noqa: PTH208 - a count alone
    }


async def _held(bench: Bench, served: Served) -> tuple[int, int]:
    """Bytes that the node and Redis hold, without the buffers of Redis's clients."""
    info = await bench.redis.info("memory")
    return served.resident(), int(info["used_memory"]) - int(info.get("mem_clients_normal", 0))


def _per(before: tuple[int, int], after: tuple[int, int], count: int) -> dict[str, float]:
    node, redis = (then - now for now, then in zip(before, after, strict=True))
    return {"node_bytes": round(node / count, 2), "redis_bytes": round(redis / count, 2)}


async def _crowd(served: Served, numbers: Sequence[int], room: str) -> Crowd:
    crowd = Crowd(served.port, Reactor())
    await crowd.each([(number, f"{room}-{number // ROOM:06d}") for number in numbers], crowd.join)
    return crowd


async def _join_further_rooms(crowd: Crowd) -> None:
    for extra in range(FURTHER_ROOMS):

        async def join(client: Client, extra: int = extra) -> None:
            room = f"more{extra}-{client.number // ROOM:06d}"
            await crowd.ask(client, _message("join_room", roomId=room, userId=f"u{client.number}"))

        await _in_turn(crowd, join)


async def _set_data(crowd: Crowd) -> None:
    """Give each member data of DATA bytes in its first room."""

    async def update(client: Client) -> None:
        # Distinct for each member, as data is: equal texts could be stored once.
        data = {"text": f"{client.number:07d}".ljust(DATA - len('{"text":""}'), "x")}
        await crowd.ask(client, _message("room:update", roomId=client.room, data=data))

    await _in_turn(crowd, update)


async def _in_turn(crowd: Crowd, do: Any, at_a_time: int = 20) -> None:
    left = iter(crowd.clients)

    async def some() -> None:
        for client in left:
            await do(client)

    await asyncio.gather(*(some() for _ in range(at_a_time)))


def _message(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
