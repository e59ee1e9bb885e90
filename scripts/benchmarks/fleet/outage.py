"""What do clients see of an outage of Redis? It is frozen, or killed and started again empty."""

import math
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from scripts.benchmarks.fleet.clients import Crowd, crowd, until
from scripts.benchmarks.fleet.own_redis import members_in_redis, own_redis
from scripts.benchmarks.node import node_process

ROOM_SIZE = 50
PATIENCE = 60.0
WAYS = {"frozen": "frozen (SIGSTOP, SIGCONT)", "killed": "killed, and started again empty"}


async def measure_outage(
    way: str, *, binary: Path | None, clients: int, nodes: int, seconds: float, listen_on: float,
    settings: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Take Redis away for so many seconds, under so many clients.

    listen_on: seconds after the end, in which a wrong leave would come: the grace, and what finds it.
    """
    async with own_redis(binary) as (server, bench), AsyncExitStack() as stack:
        common = {"redis_url": bench.url, "port": 0, **settings}
        fleet = [await stack.enter_async_context(node_process(common)) for _ in range(nodes)]
        people = await stack.enter_async_context(crowd([node.port for node in fleet], clients, ROOM_SIZE))
        await anyio.sleep(2.0)
        people.forget()
        if way == "frozen":
            server.send(signal.SIGSTOP)
            await anyio.sleep(seconds)
            degraded = len(people.service)
            server.send(signal.SIGCONT)
        else:
            await server.kill()
            await anyio.sleep(seconds)
            degraded = len(people.service)
            await server.start()
        ended = time.monotonic()
        for person in people.people:
            person.acked = False
            person.beat()
        figures = {
            "acked_s": await _since(ended, lambda: all(person.acked for person in people.people)),
            "restored_s": await _since(ended, lambda: _restored(people)),
            "lists_s": await _since(ended, lambda: not people.absent() and not people.wrong()),
            "redis_s": await _redis_whole(bench.redis, bench.namespace, clients, ended),
        }
        whole = max(figures.values())
        await anyio.sleep(listen_on)
        return {
            "way": way, "label": WAYS[way], "clients": clients, "nodes": nodes, "outage_s": seconds,
            "degraded_told": degraded, **figures, "whole_s": whole,
            **people.told(),
            "wrong_at_the_end": people.wrong() + people.absent(),
            "members_in_redis": await members_in_redis(bench.redis, bench.namespace),
        }  # fmt: skip


def _restored(people: Crowd) -> bool:
    return "service:degraded" not in people.service.values()


async def _since(ended: float, true: Any) -> float:
    waited = await until(true, PATIENCE)
    return round(time.monotonic() - ended, 2) if math.isfinite(waited) else waited


async def _redis_whole(redis: Any, namespace: str, clients: int, ended: float) -> float:
    while time.monotonic() - ended < PATIENCE:
        if await members_in_redis(redis, namespace) == clients:
            return round(time.monotonic() - ended, 2)
        await anyio.sleep(0.1)
    return math.inf
