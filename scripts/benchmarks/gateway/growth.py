"""Measures how the cost of one operation grows with connections of a node, members in Redis, and workers."""

import asyncio
import os
import statistics
from collections.abc import Sequence
from typing import Any

from scripts.benchmarks.gateway.clients import IN_FLIGHT, Crowd
from scripts.benchmarks.gateway.dialects import Reactor
from scripts.benchmarks.gateway.rows import Meter, Sizes, Subject
from scripts.benchmarks.gateway.servers import CORES, LOAD_CORE, Served, pinned_redis, reactor_server
from scripts.benchmarks.idle_members import idle_members

_CLIENTS = 200
_TTL_MS = 21_600_000
_TIME = "1796136507841"
_TOGETHER = 32  # members whose commands are sent together
_addresses = (f"127.0.1.{number}" for number in range(1, 255))
"""A local address for each few thousand sockets: a closed socket keeps its port for a minute, and one address
has too few ports."""


async def measure_operations(subject: Subject, tag: str, workers: int = 1) -> dict[str, float]:
    """CPU microseconds of server and Redis for a heartbeat, and for a join with its leave.

    Medians of some rounds. The load is proportional to the number of workers.
    """
    rounds = [
        await _measure_once(subject, f"{tag}-{number}", workers) for number in range(subject.sizes.rounds)
    ]
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


async def _measure_once(subject: Subject, tag: str, workers: int) -> dict[str, float]:
    crowd = subject.crowd()
    crowd.address = next(_addresses)
    places = [(number, f"{tag}-{number // 50}") for number in range(_CLIENTS * workers)]
    await crowd.each(places, crowd.join)
    crowd.in_loop = True
    for client in crowd.clients:
        client.send(client.heartbeat)
    await asyncio.sleep(0.3)
    meter, before = Meter(subject), crowd.acks
    await asyncio.sleep(subject.sizes.seconds / 2)
    server, redis, _ = meter.read()
    acks = max(crowd.acks - before, 1)
    crowd.in_loop = False
    await asyncio.sleep(0.2)
    meter = Meter(subject)
    joins = subject.sizes.storm // 5 * workers
    places = [(10**7 + number, f"{tag}-{number % (4 * workers)}") for number in range(joins)]
    await crowd.each(
        places, lambda number, room: _join_and_leave(crowd, number, room), at_a_time=IN_FLIGHT * workers
    )
    join_server, join_redis, _ = meter.read()
    crowd.leave()
    await asyncio.sleep(0.5)
    return {
        "heartbeat_us": server / acks * 1e6,
        "heartbeat_redis_us": redis / acks * 1e6,
        "join_us": join_server / joins * 1e6,
        "join_redis_us": join_redis / joins * 1e6,
    }


async def _join_and_leave(crowd: Crowd, number: int, room: str) -> None:
    client = await crowd.join(number, room)
    await crowd.ask(client, b'{"type":"leave_room","roomId":"%b"}' % room.encode())


async def grow_connections(sizes: Sizes, steps: Sequence[int], url: str | None) -> list[dict[str, Any]]:
    """Measure one node with growing numbers of joined connections."""
    rows = []
    async with pinned_redis(url, None) as (bench, pid), reactor_server(bench) as served:
        subject = Subject(served, pid, Reactor, sizes, bench)
        idle = subject.crowd()
        for step in steps:
            idle.address = next(_addresses)
            places = ((number, f"idle-{number // 50}") for number in range(len(idle.clients), step))
            await idle.each(list(places), idle.join)
            await asyncio.sleep(0.5)
            rows.append({"connections": step, **await measure_operations(subject, f"c{step}")})
        idle.leave()
    return rows


async def measure_bare_writes(subject: Subject) -> float:
    """CPU microseconds of Redis for bare commands that add and remove what a join and a leave do.

    No script, no check and nothing published: what grows here with the members in Redis is the cost of its
    larger memory alone.
    """
    redis, numbers = subject.bench.redis, range(subject.sizes.storm)
    fields: dict[Any, Any] = {
        "username": "User",
        "joinedAt": "1796136507841",
        "lastActiveAt": "1796136507841",
        "away": "0",
    }
    meter = Meter(subject)
    for start in numbers[::_TOGETHER]:
        users = [f"bare-{number}" for number in numbers[start : start + _TOGETHER]]
        keys = [f"{{reactor:bare}}:room:bare-{start}:user:{user}" for user in users]
        async with redis.pipeline(transaction=False) as added:
            for key, user in zip(keys, users, strict=True):
                added.hset(key, mapping=fields)
                added.pexpire(key, _TTL_MS)
                added.hset(f"shadow:{key}", mapping=fields)
                added.zadd(f"bare:members:{start}", {user: start})
                added.sadd("bare:rooms", key)
                added.hset(f"bare:user:{user}", key, _TIME)
            await added.execute()
        async with redis.pipeline(transaction=False) as removed:
            for key, user in zip(keys, users, strict=True):
                removed.delete(key, f"shadow:{key}", f"bare:user:{user}")
                removed.zrem(f"bare:members:{start}", user)
                removed.srem("bare:rooms", key)
            await removed.execute()
    return meter.read()[1] / len(numbers) * 1e6


async def _swept(served: Served) -> None:
    """Wait for the end of the first sweep over all members."""
    while (await served.status())["sweeps"] == 0:  # noqa: ASYNC110 - the node says it when it is asked
        await asyncio.sleep(0.1)


async def grow_members(sizes: Sizes, steps: Sequence[int], url: str | None) -> list[dict[str, Any]]:
    """Measure one node with growing numbers of idle members of another node in Redis."""
    rows = []
    async with pinned_redis(url, None) as (bench, pid), idle_members(bench) as idle:
        for step in steps:
            if pid is not None:
                os.sched_setaffinity(
                    pid, CORES
                )  # no server runs yet, so adding a million members may use both cores
            await idle.load(step, 50, lambda _: _TTL_MS, start=idle.loaded)
            if pid is not None:
                os.sched_setaffinity(pid, LOAD_CORE)
            # The load generator is the other node: a long lease keeps it registered while it is busy.
            async with reactor_server(bench, {"sweep_interval": 3600, "lease": 60}) as served:
                await _swept(served)
                subject = Subject(served, pid, Reactor, sizes, bench)
                row = {"members": step, **await measure_operations(subject, f"m{step}")}
                rows.append(row | {"bare_redis_us": await measure_bare_writes(subject)})
    return rows


async def grow_workers(sizes: Sizes, steps: Sequence[int], url: str | None) -> list[dict[str, Any]]:
    """Measure growing numbers of workers on one port; the cost is that of all of them."""
    rows = []
    for step in steps:
        async with (
            pinned_redis(url, None) as (bench, pid),
            reactor_server(bench, {"workers": step}, cores=set(CORES)) as served,
        ):
            subject = Subject(served, pid, Reactor, sizes, bench)
            rows.append({"workers": step, **await measure_operations(subject, f"w{step}", step)})
    return rows
