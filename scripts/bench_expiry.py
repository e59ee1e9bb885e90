"""Measures over real sockets how long after an expiry clients are notified, by three mechanisms.

    python scripts/bench_expiry.py                      100,000 idle members, 200 probes, a server of its own
    python scripts/bench_expiry.py --members 1000000 --probes 1000
    python scripts/bench_expiry.py --redis-url redis://localhost:6379

Idle members with a TTL of six hours fill the server. A probe is a pair of clients of which one sends no
heartbeat for the whole TTL of its room (2 to 12 s). The lateness is the time from the deadline of its
presence key to its own `room:force-leave`, and to the diff that the other client receives: with the pacemaker
(the default), with Redis's `expired` events alone, and with a sweep every 60 s alone. All three run on the
same server and data, one after the other.
"""

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.benchmarks.clocks import measure_clock
from scripts.benchmarks.expiry.probes import Probes, plan_probes, rule_of
from scripts.benchmarks.expiry.report import report, summary
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.idle_members import IdleMembers, idle_members
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.running import console, run_benchmark
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "pacemaker": ("with the pacemaker", {}),
    "events": ("expired events alone", {"pacemaker": False, "sweep_interval": 0}),
    "sweep": ("sweep every {sweep:g} s alone", {"pacemaker": False, "listener": False}),
}
IDLE_TTL = 6 * 3600


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    usage, _, about = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=usage, epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--members", type=int, default=100_000, help="idle members (100000)")
    add("--room-size", type=int, default=50, help="members in each of their rooms (50)")
    add("--probes", type=int, default=200, help="probes for each mechanism (200)")
    add("--over", type=float, default=60.0, help="seconds over which the probes join (60)")
    add("--ttls", default="2,3,4,5,6,7,8,9,10,11,12", help="the probes' TTLs in seconds (2,3,...,12)")
    add(
        "--patience",
        type=float,
        default=75.0,
        help="seconds to wait for the notifications of a probe after its deadline (75)",
    )
    add("--sweep", type=float, default=60.0, help="seconds between sweeps (60)")
    add(
        "--ways", default=",".join(WAYS), help="mechanisms to measure, in this order (pacemaker,events,sweep)"
    )
    server = parser.add_mutually_exclusive_group()
    server.add_argument("--redis-url", help="a running server; the benchmark deletes its own keys at the end")
    server.add_argument(
        "--server", type=Path, help="a redis-server or valkey-server to start (the bundled one)"
    )
    add("--output", type=Path, default=Path("build/bench"), help="folder for expiry.json and expiry.svg")
    arguments = parser.parse_args(given)
    arguments.ttls = [float(text) for text in arguments.ttls.split(",")]
    arguments.ways = arguments.ways.split(",")
    if unknown := set(arguments.ways) - WAYS.keys():
        parser.error(f"--ways takes {', '.join(WAYS)}; there is no {', '.join(unknown)}")
    return arguments


def progress_bar() -> Progress:
    """Return a progress bar that is drawn only on request: a drawing thread would disturb the measurement."""
    return Progress(
        TextColumn("{task.description:<24}"), BarColumn(30), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console, auto_refresh=False,
    )  # fmt: skip


async def load(idle: IdleMembers, arguments: argparse.Namespace) -> float:
    """Add the idle members; return the seconds that it took."""
    began = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("adding idle members", total=arguments.members, note="")
        drawn = 0.0

        def tick(loaded: int) -> None:
            nonlocal drawn
            if (now := time.monotonic()) - drawn > 0.5 or loaded == arguments.members:
                drawn = now
                bar.update(task, completed=loaded)
                bar.refresh()

        await idle.load(arguments.members, arguments.room_size, lambda _: IDLE_TTL * 1000, tick=tick)
    return time.monotonic() - began


async def run_way(bench: Bench, way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one mechanism."""
    label, changes = WAYS[way]
    label = label.format(sweep=arguments.sweep)
    settings = {
        "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "sweep_interval": arguments.sweep,
        "drain_seconds": 0, "rooms": [rule_of(ttl) for ttl in arguments.ttls], **changes,
    }  # fmt: skip
    async with node_process(settings) as node:
        await node.wait_until_settled(
            sweeps=int(settings.get("listener", True)), leading=settings.get("pacemaker", True)
        )
        clock = await measure_clock(bench.redis)
        plans = plan_probes(arguments.probes, arguments.ttls, over=arguments.over, label=way)
        probes = Probes(node.port, plans, clock_offset=clock.offset, patience=arguments.patience)
        gc.collect()
        gc.freeze()
        before, began = await measure_use(bench, node), time.monotonic()
        with progress_bar() as bar:
            running = asyncio.create_task(probes.run())
            try:
                await show(bar, label, probes, running)
            finally:
                running.cancel()
        after, seconds = await measure_use(bench, node), time.monotonic() - began
        clock_after = await measure_clock(bench.redis)
        status = await node.status()
    use = {name: round((after[name] - before[name]) / seconds, 5) for name in after}
    return summary(label, probes.outcomes, settings=changes) | {
        "seconds": round(seconds, 1), "clock": [clock, clock_after], "cores_used": use,
        "load_average": round(os.getloadavg()[0], 2),
        "found_by": status["found_by"], "events_received": status["events_received"],
    }  # fmt: skip


async def show(bar: Progress, label: str, probes: Probes, running: asyncio.Task[None]) -> None:
    """Show the progress of the probes; draw only when no deadline is near."""
    task = bar.add_task(label, total=len(probes.outcomes), note="")
    drawn = 0.0
    while not running.done():
        await asyncio.wait({running}, timeout=0.05)
        if time.monotonic() - drawn > 0.5 and (probes.quiet() or time.monotonic() - drawn > 5):
            drawn = time.monotonic()
            bar.update(task, completed=probes.delivered(), note=f"notified of {probes.due()} expired")
            bar.refresh()
    bar.update(task, completed=probes.delivered(), note=f"notified of {probes.due()} expired")
    bar.refresh()
    running.result()


async def measure_use(bench: Bench, node: NodeProcess) -> dict[str, float]:
    """Return the CPU seconds used so far by Redis and by the node."""
    cpu = await bench.redis.info("cpu")
    status = await node.status()
    return {"redis": cpu["used_cpu_user"] + cpu["used_cpu_sys"], "node": status["cpu"]}


async def benchmark(arguments: argparse.Namespace) -> None:
    """Add the idle members, measure each mechanism, print the report."""
    async with bench_server(arguments.redis_url, arguments.server) as bench, idle_members(bench) as idle:
        facts = await server_facts(bench.redis)
        result: dict[str, Any] = {
            "benchmark": "expiry", "machine": machine_facts(),
            "server": facts, "server_name": server_name(facts),
            "members": arguments.members, "room_size": arguments.room_size, "probes": arguments.probes,
            "ttls": arguments.ttls, "over": arguments.over, "patience": arguments.patience,
            "sweep_interval": arguments.sweep, "ways": {},
        }  # fmt: skip
        result["load_seconds"] = round(await load(idle, arguments), 1)
        for way in arguments.ways:
            result["ways"][way] = await run_way(bench, way, arguments)
            write_json(arguments.output / "expiry.json", result)
        result["idle_members_left"] = await _remaining(bench)
    report(result, arguments.output)


async def _remaining(bench: Bench) -> int:
    """Count the idle members that remain; all of them should."""
    total = 0
    for shard in range(16):
        cursor = 0
        key = f"{{{bench.namespace}:{shard}}}:rooms"
        while True:
            cursor, page = await bench.redis.zscan(key, cursor, match="room-*", count=1000)
            pipe = bench.redis.pipeline(transaction=False)
            for room, _ in cast("list[tuple[bytes, float]]", page):
                pipe.zcard(f"{{{bench.namespace}:{shard}}}:members:{room.decode()}")
            total += sum(await pipe.execute())
            if cursor == 0:
                break
    return total


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
