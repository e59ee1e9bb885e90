"""What do clients see of a deploy? Every node is restarted, one after the other, behind a balancer."""

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
"""Seconds between two restarts, as a deploy waits for the new node to be ready."""


async def measure_deploy(
    bench: Bench, *, clients: int, nodes: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Restart each of so many nodes on its port, under so many clients."""
    common = {"redis_url": bench.url, "namespace": bench.namespace, **settings}
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(node_process({**common, "port": 0})) for _ in range(nodes)]
        port = await stack.enter_async_context(balancer([node.port for node in fleet]))
        people = await stack.enter_async_context(crowd([port], clients, ROOM_SIZE))
        restarts = []
        for node in fleet:
            had = (await node.status())["connections"]
            began = time.monotonic()
            code, took = await node.stop()
            await stack.enter_async_context(node_process({**common, "port": node.port}))
            await people.whole(PATIENCE)
            restarts.append(
                {
                    "connections": had, "exit_code": code, "stopped_s": round(took, 2),
                    "whole_s": round(time.monotonic() - began, 2),
                }
            )  # fmt: skip
            await anyio.sleep(SETTLE)
        whole = await people.whole(PATIENCE)
        return {
            "clients": clients, "nodes": nodes, "room_size": ROOM_SIZE, "restarts": restarts,
            **people.told(),
            "whole_at_the_end": math.isfinite(whole),
            "members_in_redis": await members_in_redis(bench.redis, bench.namespace),
        }  # fmt: skip
