"""Measures what members, heartbeats, departures and idle rooms cost Redis.

    python scripts/bench_redis.py                        the bundled server, and the redis-server on PATH
    python scripts/bench_redis.py --only pacemaker --moving 1000000:21600:300
    python scripts/bench_redis.py --redis-url redis://localhost:6379

Memory: bytes a member in rooms of 50, of 5, and in one room; commands: what a heartbeat and a departure come
down to, by INFO commandstats; heartbeats: members refreshed in a second of Redis's processor time, by the
script and by a pipeline of single commands; silence: what an idle room publishes; pacemaker: the processor
time that moving deadlines cost.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from shutil import which
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.redis_cost.commands import measure_departures, measure_heartbeats
from scripts.benchmarks.redis_cost.idleness import Moving, measure_pacemaker, measure_silence
from scripts.benchmarks.redis_cost.memory import measure_memory
from scripts.benchmarks.redis_cost.tables import tables_of, verdicts
from scripts.benchmarks.running import benchmark_parser, chosen, console, run_benchmark
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

PARTS = ("memory", "heartbeats", "departures", "silence", "pacemaker")


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "redis.json")
    add = parser.add_argument
    add("--members", type=int, default=100_000, help="members for memory (100000)")
    add("--only", default=",".join(PARTS), help=f"which parts ({','.join(PARTS)})")
    add("--beating", type=int, default=20_000, help="members whose heartbeats are measured (20000)")
    add("--rounds", type=int, default=20, help="heartbeats of each of them (20)")
    add("--departures", type=int, default=500, help="members that expire (500)")
    add("--over", type=float, default=10.0, help="seconds over which they expire (10)")
    add("--period", type=float, default=3.0, help="seconds between heartbeats in the idle room (3)")
    add("--heartbeat", type=float, default=25.0, help="seconds between a member's heartbeats (25)")
    add("--moving", default="100000:60:60", help="the pacemaker's MEMBERS:TTL:SECONDS,... (100000:60:60)")
    add("--baseline", type=float, default=60.0, help="seconds measured without the pacemaker (60)")
    arguments = parser.parse_args(given)
    arguments.only = chosen(parser, "--only", arguments.only, PARTS)
    arguments.moving = [Moving.read(text) for text in arguments.moving.split(",")]
    return arguments


async def measure(
    arguments: argparse.Namespace, program: Path | None, result: dict[str, Any], keep: Callable[[], None]
) -> None:
    """Measure one server; call `keep` after each part that was added to `result`."""
    url = arguments.redis_url
    parts: list[tuple[str, Callable[[Bench], Awaitable[dict[str, Any]]]]] = [
        ("heartbeats", lambda bench: measure_heartbeats(bench, arguments.beating, arguments.rounds)),
        ("departures", lambda bench: measure_departures(bench, arguments.departures, arguments.over)),
        ("silence", lambda bench: measure_silence(bench, 100, arguments.period)),
    ]

    async def pacemaker(bench: Bench, moving: Moving) -> dict[str, Any]:
        return await measure_pacemaker(
            bench, moving, heartbeat=arguments.heartbeat, baseline=arguments.baseline, show=send
        )

    with console.status("starting") as status:

        def send(what: str) -> None:
            status.update(f"{result['name']}: {what}")

        async with bench_server(url, program) as bench:
            facts = await server_facts(bench.redis)
            result |= {"name": server_name(facts), "server": facts}
        if "memory" in arguments.only:
            send("memory")
            sizes = (50, 5, arguments.members)
            result["memory"] = await measure_memory(arguments.members, sizes, url, program)
            keep()
        for name, part in parts:
            if name in arguments.only:
                send(name)
                async with bench_server(url, program) as bench:
                    result[name] = await part(bench)
                keep()
        if "pacemaker" in arguments.only:
            result["pacemaker"] = []
            for moving in arguments.moving:
                async with bench_server(url, program) as bench:
                    result["pacemaker"].append(await pacemaker(bench, moving))
                keep()


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure each server, print the report, write the file."""
    programs: list[Path | None] = [arguments.server]
    if arguments.server is None and arguments.redis_url is None and (installed := which("redis-server")):
        programs = [Path(installed), None]
    result: dict[str, Any] = {"benchmark": "redis", "machine": machine_facts(), "servers": []}
    path = arguments.output / "redis.json"
    for program in programs:
        server: dict[str, Any] = {}
        result["servers"].append(server)
        await measure(arguments, program, server, lambda: write_json(path, result))
        for table in tables_of(server):
            console.print(table)
        for line in verdicts(server):
            console.print(line)
    console.print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
