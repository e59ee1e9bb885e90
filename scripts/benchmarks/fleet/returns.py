"""Measures what the clients of a node receive that return to another node, in a rolling deploy."""

from contextlib import AsyncExitStack
from typing import Any

import anyio

from scripts.benchmarks.fleet.balancer import balancer
from scripts.benchmarks.fleet.clients import Crowd, crowd
from scripts.benchmarks.node import node_process
from scripts.benchmarks.server import Bench

ROOM_SIZE = 500
PATIENCE = 120.0


async def measure_returns(
    bench: Bench, *, clients: int, changes: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Stop one of two nodes while `clients` clients are connected, and `changes` members a second change.

    Counts what those that return receive of their rooms, and the CPU time of the node to which they return.
    """
    common = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, **settings}
    async with AsyncExitStack() as stack:
        stopping, staying = [await stack.enter_async_context(node_process(common)) for _ in range(2)]
        port = await stack.enter_async_context(balancer([stopping.port, staying.port]))
        group = await stack.enter_async_context(
            crowd([port], clients, ROOM_SIZE, by_position=True, patience=PATIENCE)
        )
        await anyio.sleep(1.0)
        returning, before = (await stopping.status())["connections"], await staying.status()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_change, group, changes)
            await stopping.stop()
            whole = await group.converged(PATIENCE)
            tasks.cancel_scope.cancel()
        after = await staying.status()
        return {
            "recent_diffs": settings.get("recent_diffs"), "clients": clients, "room_size": ROOM_SIZE,
            "changes_a_second": changes, "returned": returning, "answered_by_diffs": group.by_diffs,
            "room_bytes": group.room_bytes,
            "cpu_s": round(after["cpu"] - before["cpu"], 3), "whole_s": round(whole, 2),
            "leaves_seen": len(group.leaves), "joins_seen": len(group.joins), "gaps": group.gaps,
        }  # fmt: skip


async def _change(group: Crowd, changes: float) -> None:
    """Let one client after the other change its data, whichever is connected."""
    number = 0
    while changes:
        await anyio.sleep(1 / changes)
        client = group.clients[number * 37 % len(group.clients)]
        number += 1
        client.change({"n": number})
