"""Measures what heartbeats and departures cost Redis: commands and CPU time."""

import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import anyio
from redis.asyncio import Redis

from reactor.presence.heartbeats import MAX_MEMBERS
from reactor.presence.keys import suffix
from scripts.benchmarks.counters import MEASURING_COMMANDS, commands, cpu
from scripts.benchmarks.idle_members import entry, idle_members
from scripts.benchmarks.node import node_process
from scripts.benchmarks.server import Bench

TTL_MS = 6 * 3600 * 1000
FRAME = MEASURING_COMMANDS | {"evalsha", "exists", "time"}
"""Commands that run once per batch of heartbeats."""
FIRST_EXPIRY = 2.0
INDEX_WRITES = {"zadd", "zrem", "zincrby", "sadd", "srem"}


async def measure_heartbeats(bench: Bench, members: int, rounds: int) -> dict[str, Any]:
    """Refresh all members `rounds` times with the script, and as often with single commands.

    Those go in pipelines as large as a batch of the script (MAX_MEMBERS), and by one pipeline for each
    heartbeat, as a server sends them that does not wait for others.
    """
    async with idle_members(bench) as idle:
        await idle.load(members, 50, lambda _: TTL_MS)
        entries = [entry(number, 50) for number in range(members)]
        by_shard: dict[int, list[int]] = {}
        for number, one in enumerate(entries):
            by_shard.setdefault(bench.keys.shard_of(one.room_id), []).append(number)
        batches = [
            (shard, [suffix(entries[number]) for number in numbers[start : start + MAX_MEMBERS]])
            for shard, numbers in by_shard.items()
            for start in range(0, len(numbers), MAX_MEMBERS)
        ]
        keys = [bench.keys.presence_key(one) for one in entries]

        async def by_script() -> None:
            for shard, names in batches:
                *_, alive = await idle.store.refresh(shard, idle.node, [(name, TTL_MS) for name in names])
                assert alive.count(b"1") == len(names)

        async def by_single_commands(together: int) -> None:
            for start in range(0, len(keys), together):
                pipe = bench.redis.pipeline(transaction=False)
                for key in keys[start : start + together]:
                    pipe.pexpire(key, TTL_MS)
                    pipe.hset(key, "lastActiveAt", 1_700_000_000_000)
                await pipe.execute()

        before = await commands(bench.redis)
        await by_script()
        done = await commands(bench.redis) - before
        # Alternately, so that other load of the machine affects both.
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "script": by_script,
            "pipeline": lambda: by_single_commands(MAX_MEMBERS),
            "single": lambda: by_single_commands(1),
        }
        spent = dict.fromkeys(ways, 0.0)
        for _ in range(rounds):
            for way, work in ways.items():
                spent[way] += await _cpu_of(bench.redis, work)
    a_member = {name: round(calls / members, 4) for name, calls in done.items() if name not in FRAME}
    rates = {way: round(members * rounds / seconds) for way, seconds in spent.items()}
    return {
        "members": members, "batch": MAX_MEMBERS, "rounds": rounds,
        "commands_a_member": a_member,
        "work_a_member": round(sum(a_member.values()), 3),
        "index_writes": sum(calls for name, calls in done.items() if name in INDEX_WRITES),
        "members_a_cpu_second": rates,
        "script_against_pipeline": round(rates["script"] / rates["pipeline"], 2),
        "script_against_single": round(rates["script"] / rates["single"], 2),
    }  # fmt: skip


async def _cpu_of(redis: Redis, work: Callable[[], Awaitable[None]]) -> float:
    before = await cpu(redis)
    await work()
    return await cpu(redis) - before


async def measure_departures(bench: Bench, count: int, over: float) -> dict[str, Any]:
    """Let members expire one after the other with a complete node running, and count the commands for each.

    What the node does anyhow, for its lease and its turns, is measured behind it and taken off.
    """
    settings = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, "sweep_interval": 0}
    chance = random.Random(1)
    ttls = [round((FIRST_EXPIRY + chance.random() * over) * 1000) for _ in range(count)]
    async with idle_members(bench) as idle, node_process(settings) as node:
        await node.wait_until_settled(sweeps=1, leading=True)
        await idle.load(count, 50, lambda number: ttls[number])
        began, before, used = monotonic(), await commands(bench.redis), await cpu(bench.redis)
        with anyio.fail_after(FIRST_EXPIRY + over + 30):
            by_path = await node.wait_for_departures(count)
        seconds = monotonic() - began
        done, used = await commands(bench.redis) - before, await cpu(bench.redis) - used
        before, used_idle = await commands(bench.redis), await cpu(bench.redis)
        await anyio.sleep(over)
        share = seconds / over
        idle_done = await commands(bench.redis) - before
        used -= (await cpu(bench.redis) - used_idle) * share
    net = {
        name: (calls - idle_done[name] * share) / count
        for name, calls in done.items()
        if name not in MEASURING_COMMANDS
    }
    return {
        "departures": count, "over": over, "found_by": by_path,
        "commands_a_departure": {name: round(n, 2) for name, n in sorted(net.items()) if n >= 0.05},
        "all_commands_a_departure": round(sum(net.values()), 1),
        "redis_cpu_us_a_departure": round(used / count * 1e6),
    }  # fmt: skip
