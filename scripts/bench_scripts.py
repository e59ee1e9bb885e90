"""What a call of each small script costs Redis, and how much source is loaded into a primary.

    python scripts/bench_scripts.py                      the bundled server, and the redis-server on PATH
    python scripts/bench_scripts.py --dump old.json      only write this tree's scripts, as they are loaded
    python scripts/bench_scripts.py --against old.json   measure those of another tree beside this one's
    python scripts/bench_scripts.py --carried            only list what the scripts carry of the library

Method: one shard of a server of its own holds 10,000 members in rooms of 50, with the liveness mark of a node
that knows the server. A round calls one script some thousand times, in pipelines, after CONFIG RESETSTAT, and
takes `usec` of EVALSHA from INFO commandstats: the time in Redis, without the network and the client.
`refresh` renews 20 members a call, `due` finds no deadline passed, `claim` removes one member that has
expired, and `join` adds one member to a room of 50. With --cpu it is the processor time of Redis, by INFO
cpu, with what it costs to read the command and to write the reply: on a busy machine the better one. What is
compared takes turns within each round; the figure is the median of the rounds.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.backend.lua import Library, Unit, strip_comments
from reactor.backend.scripts import load_scripts
from reactor.presence.lua_sources import lua_sources
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.redis_cost.function_library import function_library
from scripts.benchmarks.redis_cost.scripts import (
    CASES,
    READ_ONLY_CASE,
    ScriptBench,
    Variant,
    as_functions,
    as_scripts,
    load,
)
from scripts.benchmarks.running import benchmark_parser, console, run_benchmark
from scripts.benchmarks.server import bench_server, server_facts, server_name


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(
        __doc__, "scripts.json", redis_url=False, started="the bundled one, and the redis-server on PATH"
    )
    add = parser.add_argument
    add("--members", type=int, default=10_000, help="members that are there (10000)")
    add("--calls", type=int, default=2000, help="calls a round (2000)")
    add("--rounds", type=int, default=9, help="rounds of each script (9)")
    add("--dump", type=Path, help="write the scripts as JSON, {name: source}, and measure nothing")
    add("--carried", action="store_true", help="list what scripts carry of the library, and measure nothing")
    add("--against", type=Path, help="scripts that --dump wrote, to measure beside this tree's")
    add("--cpu", action="store_true", help="processor time of Redis in place of the time in the command")
    add("--functions", action="store_true", help="measure one library of Redis Functions too (a prototype)")
    return parser.parse_args(given)


def variants_of(arguments: argparse.Namespace) -> list[Variant]:
    """Give what is measured."""
    variants = [as_scripts("scripts", sources())]
    if arguments.against is not None:
        variants.append(as_scripts("against", json.loads(arguments.against.read_text())))
    if arguments.functions:
        library = function_library(lua_sources(departures_kept=100_000), read_only=("is_present",))
        variants.append(as_functions(library))
    return variants


def sources() -> dict[str, str]:
    """Give the text of each script, as it is loaded."""
    scripts = load_scripts(lua_sources(departures_kept=100_000))
    return {name: script.source for name, script in scripts.items()}


def _loaded_size(unit: Unit) -> int:
    return sum(len(line.lstrip()) + 1 for line in unit.code.splitlines())


def carried() -> Table:
    """Return the declarations of the library that take the most bytes in all scripts together."""
    files = lua_sources(departures_kept=100_000)
    library = Library(files.library, {**files.constants, "PUBLISH": "PUBLISH"})
    found: Counter[tuple[str, str, int]] = Counter()
    departing = 0
    for file, text in files.scripts.items():
        units = library.reached(file, strip_comments(text))
        found.update((unit.file, unit.names[0], _loaded_size(unit)) for unit in units)
        departing += any("remove_members" in unit.names for unit in units)
    departure = sum(_loaded_size(unit) for unit in library.reached("", "remove_members()"))
    table = Table("file", "declaration", "bytes", "scripts", "together", title_justify="left")
    table.title = f"{len(files.scripts)} scripts, {sum(map(len, sources().values())):,} bytes"
    table.caption = f"{departing} scripts can make a departure, which takes {departure:,} bytes in each"
    rows = sorted(found.items(), key=lambda row: row[0][2] * row[1], reverse=True)
    for (file, name, size), scripts in rows[:15]:
        table.add_row(file, name, f"{size:,}", str(scripts), f"{size * scripts:,}")
    return table


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure each server, print a table, write the result."""
    if arguments.carried:
        console.print(carried())
        return
    if arguments.dump is not None:
        arguments.dump.write_text(json.dumps(sources()))
        return
    programs: list[Path | None] = [arguments.server]
    if arguments.server is None and (installed := which("redis-server")):
        programs = [None, Path(installed)]
    variants = variants_of(arguments)
    result: dict[str, Any] = {
        "benchmark": "scripts",
        "machine": machine_facts(),
        "bytes": {variant.name: variant.size for variant in variants},
        "servers": [],
    }
    path = arguments.output / "scripts.json"
    for program in programs:
        async with bench_server(None, program) as bench:
            name = server_name(await server_facts(bench.redis))
            for variant in variants:
                await load(bench.redis, variant)
            script_bench = ScriptBench(
                bench, members=arguments.members, calls=arguments.calls, cpu=arguments.cpu
            )
            with console.status(name):
                await script_bench.fill(variants[0])
                found = await script_bench.measure(variants, arguments.rounds)
        result["servers"].append({"name": name, "us_a_call": found})
        write_json(path, result)
        console.print(_table(name, variants, found))
    console.print(f"written: {path}")


def _table(name: str, variants: Sequence[Variant], found: dict[str, Any]) -> Table:
    table = Table(title=f"{name}: us a call, median (lowest round)", title_justify="left")
    table.add_column("")
    for variant in variants:
        table.add_column(variant.name, justify="right")
    for case in (*CASES, READ_ONLY_CASE):
        cells = [found[variant.name].get(case) for variant in variants]
        if any(cells):
            table.add_row(case, *(f"{c['median']:.1f} ({c['lowest']:.1f})" if c else "" for c in cells))
    table.add_row("bytes loaded", *(f"{variant.size:,}" for variant in variants))
    return table


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
