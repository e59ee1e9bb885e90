"""Measures what clients see when a node dies, during a rolling deploy, and during an outage of Redis.

    python scripts/bench_fleet.py                           everything, about seven minutes
    python scripts/bench_fleet.py --parts ghosts,deploy     only these; the result file keeps the other parts
    python scripts/bench_fleet.py --server /usr/bin/redis-server

Nodes are processes with the default settings, clients are real sockets, and each client counts the joins
and leaves that it receives. ghosts: the time from the SIGKILL of one of two nodes to the last diff at the
clients of the other. deploy: every node restarted in turn behind a load balancer. outage: Redis frozen, and
killed and restarted without data, for ten seconds. returns: what the clients of a stopped node receive of
their rooms of 500 from the node to which they return, by lists alone and by the recent diffs. expiries: the
commands that Redis runs for an expiry, with 1, 2, 4 and 8 nodes.
"""

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.settings import Settings
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.fleet.deploy import measure_deploy
from scripts.benchmarks.fleet.expiries import measure_expiries
from scripts.benchmarks.fleet.ghosts import measure_ghosts
from scripts.benchmarks.fleet.outage import WAYS, measure_outage
from scripts.benchmarks.fleet.report import report
from scripts.benchmarks.fleet.returns import measure_returns
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import TRIAL, benchmark_parser, chosen, console, parse_sizes, run_benchmark
from scripts.benchmarks.server import bench_server, server_facts, server_name

DEFAULTS = Settings()
SMALL: dict[str, Any] = {
    "clients": 60, "nodes": 2, "rounds": 2, "members": 40, "outage": 1.5, "expiries": 60, "over": 1.0,
    "fleets": "1,3", "lease": 1.0, "grace": 6.0, "drain_seconds": 0.5,
}  # fmt: skip


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "fleet.json", redis_url=False, quick=TRIAL)
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), help=f"parts to measure, in this order ({','.join(PARTS)})")
    add("--clients", type=int, default=5000, help="clients during the deploy and the outages (5000)")
    add("--nodes", type=int, default=3, help="nodes in the rolling deploy (3)")
    add("--rounds", type=int, default=6, help="how many times a node is killed (6)")
    add(
        "--members",
        type=int,
        default=200,
        help="clients when a node is killed, half of them on each of two nodes (200)",
    )
    add("--changes", type=float, default=10.0, help="members a second that change during returns (10)")
    add("--outage", type=float, default=10.0, help="duration of an outage of Redis in seconds (10)")
    add("--expiries", type=int, default=500, help="members that expire for each number of nodes (500)")
    add("--over", type=float, default=8.0, help="seconds over which they expire (8)")
    add("--fleets", default="1,2,4,8", help="numbers of nodes for the expiries (1,2,4,8)")
    for name in ("lease", "grace", "drain_seconds"):
        default = getattr(DEFAULTS, name)
        add(f"--{name.replace('_', '-')}", type=float, default=default, help=f"the setting ({default:g})")
    arguments = parse_sizes(parser, given, **SMALL)
    arguments.parts = chosen(parser, "--parts", arguments.parts, PARTS)
    arguments.fleets = [int(text) for text in arguments.fleets.split(",")]
    arguments.settings = {name: getattr(arguments, name) for name in ("lease", "grace", "drain_seconds")}
    # All clients of the benchmark have one address.
    arguments.settings |= {"max_per_address": 0, "new_per_second": 0}
    return arguments


async def ghosts(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure killed nodes."""
    async with bench_server(program=arguments.server) as bench:
        return await measure_ghosts(
            bench, members=arguments.members, rounds=arguments.rounds, settings=arguments.settings
        )


async def deploy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a rolling deploy."""
    async with bench_server(program=arguments.server) as bench:
        return await measure_deploy(
            bench, clients=arguments.clients, nodes=arguments.nodes, settings=arguments.settings
        )


async def returns(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure clients that return to another node, by lists alone and by position."""
    results = []
    for changes in (0.0, arguments.changes):
        for kept in (0, DEFAULTS.recent_diffs):
            async with bench_server(program=arguments.server) as bench:
                results.append(
                    await measure_returns(
                        bench,
                        clients=arguments.clients,
                        changes=changes,
                        settings={**arguments.settings, "recent_diffs": kept},
                    )
                )
    return results


async def outage(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each kind of outage of Redis."""
    return [
        await measure_outage(
            way, binary=arguments.server, clients=arguments.clients, nodes=2, seconds=arguments.outage,
            observe_for=arguments.grace + 5, settings=arguments.settings,
        )
        for way in WAYS
    ]  # fmt: skip


async def expiries(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure expiries with growing numbers of nodes."""
    results = []
    for nodes in arguments.fleets:
        async with bench_server(program=arguments.server) as bench:
            results.append(
                await measure_expiries(bench, nodes, count=arguments.expiries, over=arguments.over)
            )
    return results


PARTS: dict[str, Callable[[argparse.Namespace], Awaitable[Any]]] = {
    "ghosts": ghosts,
    "deploy": deploy,
    "outage": outage,
    "returns": returns,
    "expiries": expiries,
}


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure each part and print the report."""
    async with bench_server(program=arguments.server) as bench:
        facts = await server_facts(bench.redis)
    file = arguments.output / "fleet.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    result = {"load_average": {}} | result | {
        "benchmark": "fleet", "machine": machine_facts(), "server": facts, "server_name": server_name(facts),
        "settings": arguments.settings,
    }  # fmt: skip
    for part in arguments.parts:
        with console.status(f"{part} ..."):
            before = os.getloadavg()[0]
            result[part] = await PARTS[part](arguments)
        # The load of the whole machine, including the benchmark itself, at the start and at the end.
        result["load_average"][part] = [round(before, 1), round(os.getloadavg()[0], 1)]
        write_json(file, result)
    report(result, arguments.output)


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
