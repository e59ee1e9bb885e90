"""The path of an expiry, stage by stage, beside a bare touch in the same seconds."""

import asyncio
import math
from itertools import pairwise
from typing import Any

from scripts.benchmarks.clocks import measure_clock
from scripts.benchmarks.counters import cpu
from scripts.benchmarks.expiry.matrix import Show, figures_of
from scripts.benchmarks.expiry.plain_keys import ProbeKeys
from scripts.benchmarks.expiry.probes import Outcome, Probes, plan_probes, rule_of
from scripts.benchmarks.expiry.subjects import LabServer, started
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.idle_members import idle_members
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.server import Bench

_TTLS = (2.0, 3.0, 4.0, 5.0, 6.0)
_IDLE_TTL_MS = 6 * 3600 * 1000
STAGES = {
    "timer": ("scan", "from the deadline until the pacemaker calls `due`"),
    "due and event": ("event", "until the listener has the `expired` event"),
    "queue": ("claim", "until the claim is handed to Redis"),
    "claim and publish": ("diff", "until the node has the diff"),
    "fan-out": ("sent", "until the connections are written to"),
    "socket": ("client", "until the client has read its `room:force-leave`"),
}
"""What notes the end of each stage, which begins where the one before it ends; and what it is."""


async def measure_stages(
    server: LabServer, *, members: int, probes: int, over: float, show: Show
) -> dict[str, Any]:
    """Measure on one server with idle members of the reactor itself."""
    async with started(server) as bench, idle_members(bench) as idle:
        await idle.load(
            members, 50, lambda _: _IDLE_TTL_MS,
            tick=lambda loaded: show(f"{server.name}: {loaded:,} of {members:,} idle members"),
        )  # fmt: skip
        show(f"{server.name}: the path of an expiry among {members:,} members")
        settings = {
            "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "drain_seconds": 0,
            "rooms": [rule_of(ttl) for ttl in _TTLS], "max_per_address": 0, "new_per_second": 0,
        }  # fmt: skip
        result: dict[str, Any] = {"server": server.name, "version": server.version, "members": members}
        async with node_process(settings, "scripts.benchmarks.expiry.traced_node") as node:
            await node.wait_until_settled(sweeps=1, leading=True)
            return result | await _measure(bench, node, probes, over)


async def _measure(bench: Bench, node: NodeProcess, probes: int, over: float) -> dict[str, Any]:
    clock = await measure_clock(bench.redis)
    plans = plan_probes(probes, _TTLS, over=over, label="stages")
    running = Probes(node.port, plans, clock_offset=clock.offset, patience=5)
    touching = ProbeKeys(bench, count=probes, over=over, patience=5, label="touch")

    async def touch() -> list[float]:
        await asyncio.sleep(min(_TTLS))
        return await touching.touch()

    redis = await cpu(bench.redis)
    _, touched = await asyncio.gather(running.run(), touch())
    redis = await cpu(bench.redis) - redis
    times = (await node.status())["stages"]
    outcomes = [one for one in running.outcomes if not one.failed]
    return {
        "client": figures_of([one.client_late() for one in outcomes]),
        "others": figures_of([one.others_late() for one in outcomes]),
        "touch": figures_of(touched), "redis_cpu_s": round(redis, 3),
        "stages": _stages(outcomes, times),
    }  # fmt: skip


def _stages(outcomes: list[Outcome], times: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    rows = []
    ends = ["deadline", *(end for end, _ in STAGES.values())]
    for one in outcomes:
        noted = times.get(f"{one.plan.room_id}:user:probe", {})
        at = {**noted, "deadline": one.deadline, "client": one.client_at}
        if all(math.isfinite(at.get(stage, math.inf)) for stage in ends):
            rows.append([(at[later] - at[earlier]) * 1000 for earlier, later in pairwise(ends)])
    columns = zip(*rows, strict=True)
    return {
        name: {
            "p50_ms": round(quantile(column, 0.5), 3),
            "p99_ms": round(quantile(column, 0.99), 3),
            "mean_ms": round(sum(column) / len(column), 3),
        }
        for name, column in zip(STAGES, columns, strict=False)
    }
