"""Measures what the gateway does with one CPU core, beside its alternatives in the same run.

    python scripts/bench_gateway.py                       everything, in about twenty minutes
    python scripts/bench_gateway.py --only heartbeats,storm --no-peers
    python scripts/bench_gateway.py --quick               small sizes, to check that it runs

The server has one core, the load generator and Redis the other. Peers: Socket.IO 4 with ioredis (it needs
Node.js 20 and npm), Centrifugo 6 (the program on PATH), and two bare echo servers. The result file keeps the
rows that were not measured again. On a server of `--redis-url` the peers leave keys behind.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.errors import ReactorError
from reactor.server.gc_tuning import tune_gc
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.gateway.clients import Dialect
from scripts.benchmarks.gateway.dialects import Centrifugo, Echo, Reactor, SocketIo
from scripts.benchmarks.gateway.growth import grow_connections, grow_members, grow_workers
from scripts.benchmarks.gateway.plot import plot_gateway
from scripts.benchmarks.gateway.rows import QUICK, ROWS, Sizes, Subject
from scripts.benchmarks.gateway.servers import (
    LOAD_CORE,
    missing_peers,
    peer_server,
    pinned_redis,
    reactor_server,
)
from scripts.benchmarks.gateway.slow_readers import measure_slow
from scripts.benchmarks.gateway.tables import print_tables
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import TRIAL, benchmark_parser, chosen, console, run_benchmark
from scripts.benchmarks.server import server_facts, server_name

PARTS = (*ROWS, "slow", "growth")
PEERS = {
    "heartbeats": ("socketio", "websockets", "picows"),
    "kept": ("socketio", "centrifugo", "picows"),
    "storm": ("socketio", "centrifugo"),
    "one_room": ("socketio",),
}
TIMES = {"storm": 3, "one_room": 3}
"""How often a row is measured, each time on a new server; the result is the median of each figure."""


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "gateway.json and gateway.svg", server=False, quick=TRIAL)
    add = parser.add_argument
    add("--only", default=",".join(PARTS), help=f"parts to measure ({','.join(PARTS)})")
    add("--no-peers", dest="peers", action="store_false", help="measure the reactor alone")
    arguments = parser.parse_args(given)
    arguments.only = chosen(parser, "--only", arguments.only, PARTS)
    return arguments


@asynccontextmanager
async def subject_of(
    name: str, sizes: Sizes, url: str | None, settings: dict[str, Any] | None = None
) -> AsyncIterator[Subject]:
    """Start a server under test, with a Redis of its own."""
    dialects: dict[str, Callable[[], Dialect]] = {
        "reactor": Reactor, "socketio": SocketIo, "centrifugo": Centrifugo,
    }  # fmt: skip
    async with pinned_redis(url, None) as (bench, pid):
        starting = reactor_server(bench, settings) if name == "reactor" else peer_server(name, bench)
        async with starting as served:
            yield Subject(served, pid, dialects.get(name, Echo), sizes, bench)


async def measure_row(row: str, name: str, sizes: Sizes, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a row; return the median of its rounds."""
    # Clients get the list of members even in a room of 5,000.
    settings = {"max_members_view": 10_000} if row == "one_room" else None
    rounds = []
    for _ in range(TIMES.get(row, 1) if name == "reactor" and not arguments.quick else 1):
        async with subject_of(name, sizes, arguments.redis_url, settings) as subject:
            rounds.append(await ROWS[row](subject))
    return _median_of(rounds)


def _median_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    if len(rounds) == 1:
        return rounds[0]
    result: dict[str, Any] = {}
    for key, first in rounds[0].items():
        values = [one[key] for one in rounds]
        if isinstance(first, dict):
            result[key] = _median_of(values)
        elif isinstance(first, int | float):
            result[key] = statistics.median(values)
        else:
            result[key] = first
    return result


async def measure_slow_readers(sizes: Sizes, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a room whose members all read, and one in which one of a hundred does not."""
    members, rounds = (40, 20) if arguments.quick else (200, 150)
    result = {}
    for name, stalled in (("awake", 0), ("stalled", max(1, members // 100))):
        async with subject_of("reactor", sizes, arguments.redis_url) as subject:
            result[name] = await measure_slow(subject, members, stalled, rounds)
    return result


async def measure_growth(sizes: Sizes, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one operation at growing sizes."""
    quick, url = arguments.quick, arguments.redis_url
    connections = (50, 100) if quick else (1000, 2000, 4000, 8000, 15000)
    members = (100, 200) if quick else (1000, 10_000, 100_000, 1_000_000)
    workers = (1, 2) if quick else (1, 2, 4)
    return {
        "connections": await grow_connections(sizes, connections, url),
        "members": await grow_members(sizes, members, url),
        "workers": await grow_workers(sizes, workers, url),
    }


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, write the file."""
    os.sched_setaffinity(0, LOAD_CORE)
    tune_gc()
    sizes = QUICK if arguments.quick else Sizes()
    path = arguments.output / "gateway.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"benchmark": "gateway"}
    missing = missing_peers() if arguments.peers else {}
    async with pinned_redis(arguments.redis_url, None) as (bench, _):
        result["redis"] = server_name(await server_facts(bench.redis))
    result["machine"] = machine = machine_facts()
    result.setdefault("measured", {})
    with console.status("starting") as status:
        for part in arguments.only:
            status.update(f"{part}: the reactor")
            if part == "slow":
                result[part] = await measure_slow_readers(sizes, arguments)
            elif part == "growth":
                result[part] = await measure_growth(sizes, arguments)
            else:
                result[part] = {"reactor": await measure_row(part, "reactor", sizes, arguments)}
                for name in PEERS[part] if arguments.peers else ():
                    if name in missing:
                        console.print(f"[yellow]{part}: without {name}: {missing[name]}[/]")
                        continue
                    status.update(f"{part}: {name}")
                    try:
                        result[part][name] = await measure_row(part, name, sizes, arguments)
                    except ReactorError as error:  # a peer that fails has no figure
                        console.print(f"[red]{part}, {name}: {error}[/]")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            result["measured"][part] = {"date": now, "commit": machine["commit"]}
            write_json(path, result)
            console.print(f"[dim]{part} done[/]")
    print_tables(result)
    if not plot_gateway(result, arguments.output / "gateway.svg"):
        console.print("no plot: matplotlib is not installed")
    console.print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
