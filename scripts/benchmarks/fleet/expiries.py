"""Measures the commands that Redis runs for an expiry, by number of nodes, including those inside scripts."""

import random
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import anyio

from scripts.benchmarks.counters import MEASURING_COMMANDS, commands
from scripts.benchmarks.idle_members import idle_members
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.server import Bench

FIRST_EXPIRY = 3.0
ROOM_SIZE = 10
PATIENCE = 30.0


async def measure_expiries(bench: Bench, nodes: int, *, count: int, over: float) -> dict[str, Any]:
    """Let `count` members expire one after the other over `over` seconds, with `nodes` nodes running.

    The commands that the nodes run without expiries, for leases and leadership, are measured and subtracted.
    """
    settings = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, "sweep_interval": 0}
    chance = random.Random(1)
    ttls = [round((FIRST_EXPIRY + chance.random() * over) * 1000) for _ in range(count)]
    async with idle_members(bench) as idle, AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(node_process(settings)) for _ in range(nodes)]
        for node in fleet:
            await node.wait_until_settled(sweeps=1, leading=False)
        await idle.load(count, ROOM_SIZE, lambda number: ttls[number])
        before, began = await commands(bench.redis), monotonic()
        with anyio.fail_after(FIRST_EXPIRY + over + PATIENCE):
            found = await _found(fleet, count)
        seconds = monotonic() - began
        done = await commands(bench.redis) - before
        before, began = await commands(bench.redis), monotonic()
        await anyio.sleep(over)
        share = seconds / (monotonic() - began)
        idle_done = await commands(bench.redis) - before
    net = {
        name: (calls - idle_done[name] * share) / count
        for name, calls in done.items()
        if name not in MEASURING_COMMANDS
    }
    return {
        "nodes": nodes, "expiries": count, "over": over, "found_by": found,
        "background_a_second": round(
            sum(calls for name, calls in idle_done.items() if name not in MEASURING_COMMANDS)
            * share
            / seconds
        ),
        "commands": {name: round(each, 2) for name, each in sorted(net.items()) if abs(each) >= 0.05},
        "commands_an_expiry": round(sum(net.values()), 2),
    }  # fmt: skip


async def _found(fleet: list[NodeProcess], count: int) -> dict[str, int]:
    """Wait until the nodes have made `count` departures; return their number by path."""
    while True:
        total: dict[str, int] = {}
        for node in fleet:
            for path, found in (await node.status())["found_by"].items():
                total[path] = total.get(path, 0) + found
        if sum(total.values()) >= count:
            return total
        await anyio.sleep(0.1)
