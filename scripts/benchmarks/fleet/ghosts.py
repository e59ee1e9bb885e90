"""Measures the time from the SIGKILL of a node to the last diff at the clients of the other node."""

import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio

from scripts.benchmarks.fleet.clients import Crowd, crowd, until
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.server import Bench

ROOM_SIZE = 10
OBSERVE_FOR = 3.0
"""Seconds after the last departure in which a duplicate would arrive."""
PATIENCE = 60.0


async def measure_ghosts(
    bench: Bench, *, members: int, rounds: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Kill one of two nodes `rounds` times: alternately the leader and the other one."""
    common = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, **settings}
    results = []
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node_process(common)) for _ in range(2)]
        for number in range(rounds):
            leading = [(await node.status())["leading"] for node in nodes]
            killed_node = nodes.pop(leading.index(number % 2 == 0) if any(leading) else 0)
            results.append(await _one_round(killed_node, nodes[0], members) | {"leading": number % 2 == 0})
            nodes.append(await stack.enter_async_context(node_process(common)))
    return results


async def _one_round(killed_node: NodeProcess, survivor: NodeProcess, members: int) -> dict[str, Any]:
    async with crowd([killed_node.port, survivor.port], members, ROOM_SIZE) as group:
        dead, survivors = group.clients[::2], group.clients[1::2]
        await anyio.sleep(random.uniform(1.0, 4.0))  # so that the kill falls at any point of a lease
        for client in dead:
            client.stop_reconnecting()
        group.forget()
        killed_node.kill()
        killed = time.monotonic()
        expected = Counter(
            (client.user_id, lost.user_id)
            for client in survivors
            for lost in dead
            if lost.room_id == client.room_id
        )
        await until(lambda: len(group.leaves) >= expected.total(), PATIENCE)
        await anyio.sleep(OBSERVE_FOR)
        return _outcome(group, expected, killed)


def _outcome(group: Crowd, expected: Counter[tuple[str, str]], killed: float) -> dict[str, Any]:
    received = Counter((one.by, one.user_id) for one in group.leaves)
    times = sorted(one.at - killed for one in group.leaves)
    return {
        "notifications_expected": expected.total(),
        "notified_once": sum(received[pair] == 1 for pair in expected),
        "notified_wrongly": (received - expected).total(),
        "reasons": dict(Counter(one.reason for one in group.leaves)),
        "first_s": round(times[0], 2) if times else None,
        "last_s": round(times[-1], 2) if times else None,
        "wrong_joins": len(group.joins),
    }
