"""Measures what nodes and members hold, and writes the table of figures that `reactor size` computes with.

    python scripts/bench_capacity.py                     the bundled server, and the redis-server on PATH
    python scripts/bench_capacity.py --quick             small sizes, to check that it runs
    python scripts/bench_capacity.py --table             only write the table, from the results that exist

Measured here is what hardly depends on the load of the machine: memory, open files, connections, and the CPU
time of a node without clients. CPU time of heartbeats, joins and departures is taken from the results of
bench_gateway.py and bench_redis.py. The table is reactor/cli/capacity.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.server.gc_tuning import tune_gc
from scripts.benchmarks.capacity.figures import figures
from scripts.benchmarks.capacity.measure import QUICK, Sizes, measure_holdings
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import ROOT, TRIAL, benchmark_parser, console, run_benchmark
from scripts.benchmarks.server import bench_server, server_facts, server_name

RESULTS = ROOT / "scripts" / "results"
TABLE = ROOT / "reactor" / "cli" / "capacity.json"


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "capacity.json", server=False, redis_url=False, quick=TRIAL)
    parser.add_argument(
        "--table", action="store_true", help="measure nothing; write the table from the results that exist"
    )
    return parser.parse_args(given)


def write_table(measured: dict[str, Any]) -> None:
    """Write the table of figures, from these results and those of the other benchmarks."""
    others = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("gateway", "redis")}
    write_json(TABLE, {"made_by": "scripts/bench_capacity.py", "figures": figures(measured, **others)})
    console.print(f"written: {TABLE.relative_to(ROOT)}")


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure on each server, and write the results; with --output scripts/results the table, too."""
    path = arguments.output / "capacity.json"
    if arguments.table:
        write_table(json.loads(path.read_text()))
        return
    tune_gc()
    sizes = QUICK if arguments.quick else Sizes()
    programs: list[Path | None] = [None]
    if installed := which("redis-server"):
        programs = [Path(installed), None]
    result: dict[str, Any] = {"benchmark": "capacity", "machine": machine_facts(), "servers": []}
    for program in programs:
        async with bench_server(None, program) as bench:
            name = server_name(await server_facts(bench.redis))
        with console.status(name):
            measured = await measure_holdings(program, sizes)
        result["servers"].append({"name": name, **measured})
        console.print(name, measured)
        write_json(path, result)
    console.print(f"written: {path}")
    if path.resolve().parent == RESULTS:
        write_table(result)


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
