"""Measures the memory of a member in Redis: the total by `used_memory`, the parts by MEMORY USAGE."""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from redis.asyncio import Redis

from scripts.benchmarks.idle_members import PAYLOAD, entry, idle_members
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

IDLE_TTL_MS = 6 * 3600 * 1000
SAMPLES_A_KIND = 2000
KINDS = {
    "presence key": ":room:",
    "shadow key": ":shadow:",
    "members by deadline": ":members:",
    "position of the room": ":state:",
    "members of a node": ":node:",
    "rooms by deadline": ":rooms",
    "nodes of the shard": ":nodes",
}


async def measure_memory(
    members: int, room_sizes: Sequence[int], redis_url: str | None, program: Path | None
) -> dict[str, Any]:
    """Fill a server once for each room size, and measure. A server of the benchmark is new each time."""
    layouts: dict[str, Any] = {}
    result: dict[str, Any] = {"members": members, "payload": PAYLOAD, "layouts": layouts}
    for size in room_sizes:
        async with bench_server(redis_url, program) as bench:
            facts = await server_facts(bench.redis)
            result |= {"server": facts, "server_name": server_name(facts)}
            layouts["one room" if size >= members else f"rooms of {size}"] = await _measure(
                bench, members, size
            )
    return result


async def _measure(bench: Bench, members: int, room_size: int) -> dict[str, Any]:
    async with idle_members(bench) as idle:
        # Scripts and buffers, which exist once for all members, are in the first reading already.
        await idle.load(1, 1, lambda _: IDLE_TTL_MS)
        await idle.store.kick(entry(0, 1))
        before = await _used(bench.redis)
        await idle.load(members, room_size, lambda _: IDLE_TTL_MS)
        # While Redis rehashes a growing table of keys there are two of them.
        await anyio.sleep(min(0.2 + members / 20_000, 15))
        used = await _used(bench.redis) - before
        kinds = await _kinds(bench)
    parts = {kind: figures["count"] * figures["mean"] / members for kind, figures in kinds.items()}
    example = entry(members - 1, room_size)
    return {
        "room_size": room_size, "bytes_a_member": round(used / members, 1),
        "parts": {name: round(part, 1) for name, part in parts.items()},
        # The tables of keys and of expiries, and the rounding of the allocator.
        "tables": round(used / members - sum(parts.values()), 1),
        "keys_a_member": round(sum(figures["count"] for figures in kinds.values()) / members, 3),
        "ids": [example.room_id, example.user_id], "namespace": bench.namespace,
    }  # fmt: skip


async def _used(redis: Redis) -> int:
    """Return `used_memory` without the buffers of clients."""
    info = await redis.info("memory")
    return int(info["used_memory"]) - int(info.get("mem_clients_normal", 0))


async def _kinds(bench: Bench) -> dict[str, dict[str, float]]:
    """Count the keys of each kind, and measure some of each."""
    names: dict[str, list[bytes]] = defaultdict(list)
    async for key in bench.redis.scan_iter(match=f"{{{bench.namespace}:*", count=2000):
        names[_kind(key)].append(key)
    kinds = {}
    for kind, keys in names.items():
        chosen = random.Random(1).sample(keys, min(SAMPLES_A_KIND, len(keys)))
        pipe = bench.redis.pipeline(transaction=False)
        for key in chosen:
            pipe.execute_command("MEMORY", "USAGE", key, "SAMPLES", 0)
        sizes = [size for size in await pipe.execute() if size]
        kinds[kind] = {"count": len(keys), "mean": sum(sizes) / len(sizes)}
    return kinds


def _kind(key: bytes) -> str:
    rest = key.decode().partition("}")[2]
    return next((kind for kind, head in KINDS.items() if rest.startswith(head)), "other keys")
