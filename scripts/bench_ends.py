"""Measures what joins and departures cost Redis, and what happens when very many come at once.

    python scripts/bench_ends.py                          both parts, on the redis-server on PATH
    python scripts/bench_ends.py --only drop --sockets 10 --rooms 1000
    python scripts/bench_ends.py --tree ../other          with the package of another tree, for a comparison

transitions: clients join rooms of 50 one after the other, then 200 at a time; members then leave, and lose
their sockets one after the other and all at once. For each: Redis's processor time and the commands that it
ran, by INFO, less what an idle node needs meanwhile. drop: SOCKETS sockets that are in ROOMS rooms each are
closed at the same instant. When the node's departures are made, what an observer in some of the rooms is
notified of and how long its heartbeats take, and whether the node took Redis for away, or suspended expiry.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.table import Table

from scripts.benchmarks.ends.drop import measure_drop
from scripts.benchmarks.ends.transitions import measure_transitions
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import benchmark_parser, chosen, console, run_benchmark
from scripts.benchmarks.server import bench_server, server_facts, server_name

PARTS = ("transitions", "drop")


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "ends.json", started="the redis-server on PATH")
    add = parser.add_argument
    add("--only", default=",".join(PARTS), help=f"which parts ({','.join(PARTS)})")
    add("--clients", type=int, default=1000, help="members of each kind of transition (1000)")
    add("--at-once", type=int, default=10_000, help="members that expire at the same moment (10000)")
    add("--sockets", type=int, default=50, help="sockets that drop (50)")
    add("--rooms", type=int, default=2000, help="rooms that each of them is in (2000)")
    add("--sharing", type=int, default=10, help="sockets that are in the same rooms (10)")
    add("--grace", type=float, default=15.0, help="seconds of disconnect grace (15)")
    add("--tree", type=Path, help="another checkout, whose package the node runs")
    arguments = parser.parse_args(given)
    arguments.only = chosen(parser, "--only", arguments.only, PARTS)
    return arguments


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure each part, print it, write the file."""
    program = arguments.server
    if program is None and arguments.redis_url is None and (installed := which("redis-server")):
        program = Path(installed)
    result: dict[str, Any] = {"benchmark": "ends", "machine": machine_facts()}
    path = arguments.output / "ends.json"
    for part in arguments.only:
        async with bench_server(arguments.redis_url, program) as bench:
            result["server"] = await server_facts(bench.redis)
            with console.status(part):
                if part == "transitions":
                    found = await measure_transitions(
                        bench, arguments.clients, arguments.at_once, arguments.tree
                    )
                else:
                    found = await measure_drop(
                        bench, arguments.sockets, arguments.rooms, arguments.sharing, arguments.grace,
                        arguments.tree,
                    )  # fmt: skip
        result[part] = found | {"load": os.getloadavg()[0]}
        write_json(path, result)
        console.print(_table(f"{server_name(result['server'])}: {part}", result[part]))
    console.print(f"written: {path}")


def _table(title: str, found: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, figure in found.items():
        table.add_row(name.replace("_", " "), ", ".join(f"{k} {v}" for k, v in figure.items())
                      if isinstance(figure, dict) else str(figure))  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
