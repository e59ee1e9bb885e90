"""Measures a rolling deploy: every node is restarted in turn behind a load balancer."""

import math
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio

from scripts.benchmarks.fleet.balancer import balancer
from scripts.benchmarks.fleet.clients import crowd
from scripts.benchmarks.fleet.own_redis import members_in_redis
from scripts.benchmarks.node import node_process
from scripts.benchmarks.server import Bench

ROOM_SIZE = 50
PATIENCE = 60.0
SETTLE = 2.0
"""Seconds between two restarts, as a deploy waits until the new node is ready."""


async def measure_deploy(
    bench: Bench, *, clients: int, nodes: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Restart each of `nodes` nodes on its port while `clients` clients are connected."""
    common = {"redis_url": bench.url, "namespace": bench.namespace, **settings}
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(node_process({**common, "port": 0})) for _ in range(nodes)]
        port = await stack.enter_async_context(balancer([node.port for node in fleet]))
        group = await stack.enter_async_context(crowd([port], clients, ROOM_SIZE))
        restarts = []
        for node in fleet:
            had = (await node.status())["connections"]
            began = time.monotonic()
            code, took = await node.stop()
            await stack.enter_async_context(node_process({**common, "port": node.port}))
            await group.converged(PATIENCE)
            restarts.append(
                {
                    "connections": had, "exit_code": code, "stopped_s": round(took, 2),
                    "whole_s": round(time.monotonic() - began, 2),
                }
            )  # fmt: skip
            await anyio.sleep(SETTLE)
        converged = await group.converged(PATIENCE)
        return {
            "clients": clients, "nodes": nodes, "room_size": ROOM_SIZE, "restarts": restarts,
            **group.summary(),
            "whole_at_the_end": math.isfinite(converged),
            "members_in_redis": await members_in_redis(bench.redis, bench.namespace),
        }  # fmt: skip
