"""Measures an outage of Redis: it is frozen, or killed and restarted without data."""

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
WAYS = {"frozen": "frozen (SIGSTOP, SIGCONT)", "killed": "killed, and restarted without data"}


async def measure_outage(
    way: str, *, binary: Path | None, clients: int, nodes: int, seconds: float, observe_for: float,
    settings: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Make Redis unavailable for `seconds` while `clients` clients are connected.

    observe_for: seconds after the outage in which a wrong departure would arrive: a grace and some more.
    """
    async with own_redis(binary) as (server, bench), AsyncExitStack() as stack:
        common = {"redis_url": bench.url, "port": 0, **settings}
        fleet = [await stack.enter_async_context(node_process(common)) for _ in range(nodes)]
        group = await stack.enter_async_context(crowd([node.port for node in fleet], clients, ROOM_SIZE))
        await anyio.sleep(2.0)
        group.forget()
        if way == "frozen":
            server.send(signal.SIGSTOP)
            await anyio.sleep(seconds)
            degraded = len(group.service)
            server.send(signal.SIGCONT)
        else:
            await server.kill()
            await anyio.sleep(seconds)
            degraded = len(group.service)
            await server.start()
        ended = time.monotonic()
        for client in group.clients:
            client.acked = False
            client.send_heartbeat()
        figures = {
            "acked_s": await _since(ended, lambda: all(client.acked for client in group.clients)),
            "restored_s": await _since(ended, lambda: _restored(group)),
            "lists_s": await _since(ended, lambda: not group.not_joined() and not group.wrong()),
            "redis_s": await _redis_converged(bench.redis, bench.namespace, clients, ended),
        }
        converged = max(figures.values())
        script_us = await _script_us(bench.redis) / clients
        await anyio.sleep(observe_for)
        return {
            "way": way, "label": WAYS[way], "clients": clients, "nodes": nodes, "outage_s": seconds,
            "notified_degraded": degraded, **figures, "whole_s": converged,
            "script_us_a_member": round(script_us, 1) if way == "killed" else None,
            **group.summary(),
            "wrong_at_the_end": group.wrong() + group.not_joined(),
            "members_in_redis": await members_in_redis(bench.redis, bench.namespace),
        }  # fmt: skip


def _restored(group: Crowd) -> bool:
    return "service:degraded" not in group.service.values()


async def _since(ended: float, condition: Any) -> float:
    waited = await until(condition, PATIENCE)
    return round(time.monotonic() - ended, 2) if math.isfinite(waited) else waited


async def _script_us(redis: Any) -> float:
    """Microseconds that Redis has spent in scripts since its start; what the benchmark asks takes none."""
    stats = await redis.info("commandstats")
    return float(stats.get("cmdstat_evalsha", {}).get("usec", 0))


async def _redis_converged(redis: Any, namespace: str, clients: int, ended: float) -> float:
    while time.monotonic() - ended < PATIENCE:
        if await members_in_redis(redis, namespace) == clients:
            return round(time.monotonic() - ended, 2)
        await anyio.sleep(0.1)
    return math.inf
