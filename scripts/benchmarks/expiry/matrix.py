"""Measures each way to notice an expiry on each server among growing numbers of idle keys."""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from scripts.benchmarks.clocks import measure_clock
from scripts.benchmarks.counters import cpu
from scripts.benchmarks.expiry.plain_keys import (
    ProbeKeys,
    has_field_ttl,
    load_fields,
    load_keys,
    remove_idle,
    spread,
)
from scripts.benchmarks.expiry.probes import Probes, plan_probes, rule_of
from scripts.benchmarks.expiry.subjects import LabServer, started
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.node import node_process
from scripts.benchmarks.server import Bench, server_facts

WAYS = {
    "events": "expired events alone",
    "effort": "the same, active-expire-effort 10",
    "fields": "hash fields with a TTL (hexpired)",
    "sweep": "a sweep every {sweep:g} s",
    "scan": "polling with SCAN, once a second",
    "pacemaker": "the pacemaker, to the client",
    "touch": "a bare read at the deadline",
}
"""What is measured, slowest first. `touch` is measured beside `pacemaker`, and is the least possible."""

_WAITING = ("events", "effort", "sweep")
"""Ways in which the server is hardly busy, so that all servers are measured at the same time."""

Show = Callable[[str], None]


@dataclass(frozen=True)
class LabSizes:
    """Numbers and seconds of a measurement.

    keys: numbers of idle keys. probes: for each figure. over: seconds over which their deadlines are spread.
    patience: seconds to wait after the last deadline. sweep: seconds between sweeps. ttls: of clients' rooms.
    """

    keys: Sequence[int]
    probes: int
    over: float
    patience: float
    sweep: float
    ttls: Sequence[float]
    ways: Sequence[str]

    def label(self, way: str) -> str:
        """Return the name of a way for people."""
        return WAYS[way].format(sweep=self.sweep)

    def seconds(self, servers: int) -> float:
        """Estimate how long the matrix takes."""
        waiting = [
            self.over + (self.sweep + 6 if way == "sweep" else self.patience)
            for way in self.ways
            if way in _WAITING
        ]
        fields = self.over + self.patience if "fields" in self.ways else 0
        alone = 2 * self.over + max(self.ttls) + 8 if {"scan", "pacemaker"} & {*self.ways} else 0
        return sum(sum(waiting) + fields + servers * (alone + keys / 100_000) for keys in self.keys)


def figures_of(lates: Sequence[float]) -> dict[str, Any]:
    """Return the figures of some probes (ms); one that was never noticed is infinitely late."""
    return {
        "probes": len(lates), "delivered": sum(map(math.isfinite, lates)),
        "p50_ms": quantile(lates, 0.5), "p99_ms": quantile(lates, 0.99), "p999_ms": quantile(lates, 0.999),
        "max_ms": max((late for late in lates if math.isfinite(late)), default=math.inf),
        "late_ms": spread(lates),
    }  # fmt: skip


class CpuMeter:
    """The share of a core that Redis takes, from here to `read`."""

    def __init__(self, redis: Redis, used: float) -> None:
        self._redis, self._used, self._began = redis, used, time.monotonic()

    @classmethod
    async def start(cls, redis: Redis) -> "CpuMeter":
        """Begin to measure."""
        return cls(redis, await cpu(redis))

    async def read(self) -> float:
        """Return the CPU seconds that Redis used in each second."""
        used, seconds = await cpu(self._redis) - self._used, time.monotonic() - self._began
        return round(used / seconds, 5)


async def measure_matrix(
    servers: Sequence[LabServer],
    sizes: LabSizes,
    show: Show,
    keep: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Measure every cell; each is a dict with the server, the number of keys, the way and its figures.

    keep: called with all cells so far after each number of keys.
    """
    cells: list[dict[str, Any]] = []
    for keys in sizes.keys:
        async with AsyncExitStack() as stack:
            labs = []
            for server in servers:
                show(f"{server.name}: {keys:,} idle keys")
                bench = await stack.enter_async_context(started(server))
                labs.append(_Lab(server, bench, keys, sizes, await server_facts(bench.redis)))
                await load_keys(bench, keys)
                stack.push_async_callback(remove_idle, bench)
            for way in _WAITING:
                if way in sizes.ways:
                    show(f"{keys:,} keys, all servers: {sizes.label(way)}")
                    cells += await asyncio.gather(*(lab.cell(way) for lab in labs))
            for lab in labs:
                show(f"{lab.server.name}, {keys:,} keys: with the processor to itself")
                if "scan" in sizes.ways:
                    cells.append(await lab.cell("scan"))
                if "pacemaker" in sizes.ways:
                    cells += await lab.pacemaker_beside_touch()
            if "fields" in sizes.ways:
                show(f"{keys:,} hash fields, all servers that have a TTL for them")
                able = [lab for lab in labs if await has_field_ttl(lab.bench.redis)]
                for lab in able:
                    await remove_idle(lab.bench)
                    await load_fields(lab.bench, keys)
                cells += await asyncio.gather(*(lab.cell("fields") for lab in able))
        keep(cells)
    return cells


class _Lab:
    """One server with idle keys."""

    def __init__(
        self, server: LabServer, bench: Bench, keys: int, sizes: LabSizes, facts: dict[str, Any]
    ) -> None:
        self.server, self.bench, self._keys, self._sizes, self._facts = server, bench, keys, sizes, facts

    async def cell(self, way: str) -> dict[str, Any]:
        """Measure one way."""
        measures: dict[str, Callable[[], Awaitable[list[float]]]] = {
            "events": self._probes("events").events, "effort": self._probes("effort").effort,
            "fields": self._probes("fields").fields, "scan": lambda: self._probes("scan").scan(1.0),
            "sweep": self._sweep,
        }  # fmt: skip
        meter = await CpuMeter.start(self.bench.redis)
        lates = await measures[way]()
        return self._cell(way, lates, await meter.read())

    async def pacemaker_beside_touch(self) -> list[dict[str, Any]]:
        """Measure the pacemaker, and a bare touch in the same seconds; Redis's CPU is that of both."""
        measured: dict[str, list[float]] = {}
        meter = await CpuMeter.start(self.bench.redis)

        async def touch() -> None:
            await asyncio.sleep(min(self._sizes.ttls))  # until the first clients expire
            measured["touch"] = await self._probes("touch", patience=5).touch()

        async def pacemaker(beside: Callable[[], Awaitable[None]]) -> None:
            measured["pacemaker"] = await self._clients("pacemaker", {}, patience=5, beside=beside)

        await pacemaker(touch)
        used = await meter.read()
        return [self._cell(way, measured[way], used) for way in ("pacemaker", "touch")]

    async def _sweep(self) -> list[float]:
        settings = {"pacemaker": False, "listener": False, "sweep_interval": self._sizes.sweep}
        return await self._clients("sweep", settings, patience=self._sizes.sweep + 6)

    async def _clients(
        self, label: str, changes: dict[str, Any], *, patience: float,
        beside: Callable[[], Awaitable[None]] | None = None,
    ) -> list[float]:  # fmt: skip
        """Measure pairs of clients on a node; return how late each silent one was notified, in ms."""
        sizes = self._sizes
        settings = {
            "redis_url": self.bench.url, "namespace": self.bench.namespace, "port": 0, "drain_seconds": 0,
            "rooms": [rule_of(ttl) for ttl in sizes.ttls], "max_per_address": 0, "new_per_second": 0,
            **changes,
        }  # fmt: skip
        async with node_process(settings) as node:
            active = not changes
            await node.wait_until_settled(sweeps=int(active), leading=active)
            clock = await measure_clock(self.bench.redis)
            plans = plan_probes(sizes.probes, sizes.ttls, over=sizes.over, label=f"{label}{self._keys}")
            probes = Probes(node.port, plans, clock_offset=clock.offset, patience=patience)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(probes.run())
                if beside is not None:
                    tasks.create_task(_awaited(beside))
        return [one.client_late() for one in probes.outcomes if not one.failed]

    def _probes(self, way: str, patience: float | None = None) -> ProbeKeys:
        sizes = self._sizes
        return ProbeKeys(
            self.bench, count=sizes.probes, over=sizes.over, label=way,
            patience=sizes.patience if patience is None else patience,
        )  # fmt: skip

    def _cell(self, way: str, lates: Sequence[float], redis_cpu: float) -> dict[str, Any]:
        return {
            "server": self.server.name, "version": self.server.version, "hz": self._facts["hz"],
            "keys": self._keys, "way": way, **figures_of(lates), "redis_cpu": redis_cpu,
            "load_average": round(os.getloadavg()[0], 1),
        }  # fmt: skip


async def _awaited(call: Callable[[], Awaitable[None]]) -> None:
    await call()
