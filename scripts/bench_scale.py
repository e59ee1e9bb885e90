"""As many joined clients with heartbeats as the machine carries; and the loss of a worker, and its restart.

    python scripts/bench_scale.py                        60,000 clients over 4 workers, in about six minutes
    python scripts/bench_scale.py --clients 1000000 --workers 12        needs 16 cores and 64 GB
    python scripts/bench_scale.py --quick                2,000 clients, to check that it runs
    python scripts/bench_scale.py --update-readme        writes the results and the table in scripts/README.md

Real sockets from many addresses of 127.0.0.0/8, in rooms of 50, in processes of at most 18,000 each. Measured
are the joins, the memory and the CPU a second of servers and Redis while the clients send heartbeats (beside
what `reactor size` computes), silent members that expire among them, one worker killed, and one restarted.
"""

import asyncio
import json
import os
import re
import signal
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.box import SIMPLE_HEAD
from rich.table import Table

from reactor.cli.sizing import Load, size_of
from reactor.errors import ReactorError
from scripts.benchmarks.child import ask
from scripts.benchmarks.counters import cpu
from scripts.benchmarks.figures import quantile, write_json
from scripts.benchmarks.gateway.servers import CORES, Served, children_of, reactor_server
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import ROOT, TRIAL, benchmark_parser, console, parse_sizes, run_benchmark
from scripts.benchmarks.scale.clients import Plan, as_argument
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

RESULTS = ROOT / "scripts" / "results"
README = ROOT / "scripts" / "README.md"
ROOM_SIZE = 50
HEARTBEAT_EVERY = 25.0
TTL = 6 * 3600.0
PROCESS_CLIENTS = 18_000
"""Clients of one process, which may have 20,000 open files on many machines."""
SILENT_TTL = 15.0
SILENT_ROOMS = "silent"
_STEP = 60.0
"""Seconds in which further clients have to join, once `--within` is over."""
_BETWEEN = re.compile(r"(<!-- table: scale -->\n).*?(<!-- end scale -->)", re.DOTALL)


def read_arguments(given: Sequence[str] | None = None) -> Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "scale.json", quick=TRIAL)
    add = parser.add_argument
    add("--clients", type=int, default=60_000, help="clients that send heartbeats (60000)")
    add("--workers", type=int, default=4, help="server processes (4)")
    add("--silent", type=int, default=1000, help="further clients that send no heartbeat (1000)")
    add("--seconds", type=float, default=60.0, help="seconds of the steady state (60)")
    add(
        "--within",
        type=float,
        default=300.0,
        help="seconds for all to join, or to return (300); for joins more, while they go on",
    )
    add("--update-readme", action="store_true", help="write the results, and the table in scripts/README.md")
    arguments = parse_sizes(parser, given, clients=2000, silent=100, seconds=10.0, within=120.0, workers=2)
    if arguments.update_readme:
        arguments.output = RESULTS
    return arguments


class Group:
    """Processes of clients, and the sum of their counters."""

    def __init__(self) -> None:
        self.processes: list[asyncio.subprocess.Process] = []

    async def counters(self) -> dict[str, Any]:
        """Return the counters of all processes: sums, and joined lists."""
        total: dict[str, Any] = {}
        for answer in await asyncio.gather(*map(ask, self.processes)):
            for name, value in answer.items():
                if isinstance(value, dict):
                    known = total.setdefault(name, {})
                    known |= {key: known.get(key, 0) + count for key, count in value.items()}
                else:
                    total[name] = total[name] + value if name in total else value
        return total

    async def until_present(self, count: int, within: float) -> tuple[float, dict[str, Any]]:
        """Wait until `count` clients are joined; return the seconds that took, and all counters meanwhile."""
        began = time.monotonic()
        gathered: dict[str, list[float]] = {"away": [], "late": [], "delays": []}
        while True:
            counters = await self.counters()
            for name in gathered:
                gathered[name] += counters[name]
            if counters["present"] >= count or time.monotonic() - began > within:
                return time.monotonic() - began, {**counters, **gathered}
            await asyncio.sleep(0.25)


@asynccontextmanager
async def clients(plans: Sequence[Plan], within: float, bench: Bench) -> AsyncIterator[Group]:
    """Run client processes during the block, at first until all have joined. Raises ReactorError.

    within: seconds; more on a slow machine, for as long as further clients join.
    """
    group = Group()
    try:
        for plan in plans:
            command = (sys.executable, "-m", "scripts.benchmarks.scale.clients", as_argument(plan))
            group.processes.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    cwd=ROOT,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=1 << 26,
                    start_new_session=True,
                )
            )
        await _until_joined(group, within, bench)
        yield group
    finally:
        for process in group.processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in group.processes))


async def _until_joined(group: Group, within: float, bench: Bench) -> None:
    async def joined(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise ReactorError("a process of clients has ended: are there enough open files?")

    all_joined, keys = asyncio.gather(*map(joined, group.processes)), 0
    while True:
        done, _ = await asyncio.wait([all_joined], timeout=within)
        if done:
            all_joined.result()
            return
        before, keys, within = keys, int(await bench.redis.dbsize()), _STEP
        if keys <= before:
            all_joined.cancel()
            raise ReactorError(f"no client joins any more, and not all have: {keys:,} keys in Redis")


def plans_of(port: int, count: int, rooms: str, *, beats: bool = True, first: int = 0) -> list[Plan]:
    """Return the plans of `count` clients, each process with an address of its own."""
    each = min(PROCESS_CLIENTS, max(ROOM_SIZE, -(-count // (2 * ROOM_SIZE)) * ROOM_SIZE))
    return [
        Plan(
            port, f"127.0.{2 + beats}.{place + 1}", first + start, min(each, count - start), ROOM_SIZE, rooms,
            beats, HEARTBEAT_EVERY,
        )
        for place, start in enumerate(range(0, count, each))
    ]  # fmt: skip


def workers_of(served: Served) -> list[int]:
    """Return the process ids of the workers."""
    found = children_of(served.process.pid)
    return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def use_of(bench: Bench, served: Served, group: Group, seconds: float) -> dict[str, Any]:
    """Return what the servers and Redis use in each second of the steady state."""
    before = await group.counters()
    server, redis, began = served.cpu(), await cpu(bench.redis), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    server, redis = served.cpu() - server, await cpu(bench.redis) - redis
    after = await group.counters()
    memory: dict[str, Any] = await bench.redis.info("memory")
    return {
        "seconds": round(took, 1), "heartbeats_a_second": round((after["acks"] - before["acks"]) / took),
        "server_cores": round(server / took, 3), "redis_cores": round(redis / took, 3),
        "clients_cores": round((after["cpu"] - before["cpu"]) / took, 3),
        "server_mib": round(served.resident() / 2**20, 1),
        "redis_mib": round(int(memory["used_memory"]) / 2**20, 1),
        "heartbeat_p50_ms": round(quantile(after["delays"], 0.5) * 1000, 1),
        "heartbeat_p99_ms": round(quantile(after["delays"], 0.99) * 1000, 1),
        "other_messages": after["diffs"] - before["diffs"] + sum(after["others"].values()),
    }  # fmt: skip


async def silent_members(bench: Bench, served: Served, group: Group, arguments: Namespace) -> dict[str, Any]:
    """Measure members that send no heartbeat, among all the others."""
    plans = plans_of(served.port, arguments.silent, SILENT_ROOMS, beats=False, first=10_000_000)
    await group.counters()
    async with clients(plans, arguments.within, bench) as silent:
        late: list[float] = []
        end = time.monotonic() + SILENT_TTL + 60
        while len(late) < arguments.silent and time.monotonic() < end:
            await asyncio.sleep(0.5)
            late += (await silent.counters())["late"]
    delays = (await group.counters())["delays"]
    return {
        "members": arguments.silent, "notified": len(late),
        "p50_ms": round(quantile(late, 0.5) * 1000, 1), "p99_ms": round(quantile(late, 0.99) * 1000, 1),
        "max_ms": round(max(late, default=0.0) * 1000, 1),
        "others_heartbeat_p99_ms": round(quantile(delays, 0.99) * 1000, 1),
    }  # fmt: skip


async def lose_worker(served: Served, group: Group, number: int, arguments: Namespace) -> dict[str, Any]:
    """Send a worker a signal; measure until all clients are back."""
    before = await group.counters()
    victim = workers_of(served)[0]
    os.kill(victim, number)
    while (await group.counters())["present"] == arguments.clients:  # noqa: ASYNC110 - another process counts
        await asyncio.sleep(0.05)
    seconds, counters = await group.until_present(arguments.clients, arguments.within)
    await asyncio.sleep(5.0)
    served.pids = [served.process.pid, *workers_of(served)]
    after = await group.counters()
    away = counters["away"] + after["away"]
    return {
        "signal": signal.Signals(number).name, "returned": after["joins"] - before["joins"],
        "whole_after_s": round(seconds, 1), "present": after["present"],
        "unconnected": after["unconnected"], "unanswered": after["unanswered"],
        "away_p50_s": round(quantile(away, 0.5), 2), "away_p99_s": round(quantile(away, 0.99), 2),
        "leaves_seen": after["leaves"] - before["leaves"],
        "others": {kind: n for kind, n in after["others"].items() if n > before["others"].get(kind, 0)},
    }  # fmt: skip


def predicted(arguments: Namespace) -> dict[str, Any]:
    """Return what `reactor size` computes for this load."""
    figures = json.loads((files("reactor.cli") / "capacity.json").read_text())
    values = {
        name: one["value"] if isinstance(one, dict) else one for name, one in figures["figures"].items()
    }
    load = Load(
        users=arguments.clients, rooms_per_user=1, room_size=ROOM_SIZE, heartbeat_interval=HEARTBEAT_EVERY,
        joins_per_second=0.0, data=8, ttl=TTL,
    )  # fmt: skip
    size = size_of(load, values)
    connection = values["connection_bytes"] * arguments.clients + values["node_bytes"] * arguments.workers
    return {
        "server_cores": round(size.nodes.cores, 3), "redis_cores": round(size.redis.cores, 3),
        "server_mib": round(connection / 2**20, 1), "redis_mib": round(size.redis.memory_bytes / 2**20, 1),
    }  # fmt: skip


def rows_of(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the table."""
    joined, steady, size = result["join"], result["steady"], result["size"]
    silent, killed, rolled = result["silent"], result["killed"], result["rolled"]
    return [
        ("all have joined", f"{joined['seconds']:.0f} s; {joined['a_second']:,} a second"),
        ("server CPU, Redis CPU of a join", f"{joined['server_us']} us, {joined['redis_us']} us"),
        ("heartbeats acknowledged a second", f"{steady['heartbeats_a_second']:,}"),
        (
            "CPU a second: servers, Redis (`reactor size`)",
            (
                f"{steady['server_cores']}, {steady['redis_cores']} cores "
                f"({size['server_cores']}, {size['redis_cores']})"
            ),
        ),
        (
            "memory: servers, Redis (`reactor size`)",
            (
                f"{steady['server_mib']:,.0f}, {steady['redis_mib']:,.0f} MiB "
                f"({size['server_mib']:,.0f}, {size['redis_mib']:,.0f})"
            ),
        ),
        ("a heartbeat, p50 and p99", f"{steady['heartbeat_p50_ms']}, {steady['heartbeat_p99_ms']} ms"),
        (
            f"{silent['members']:,} silent members: notified, p50 and p99 of lateness",
            f"{silent['notified']:,}; {silent['p50_ms']}, {silent['p99_ms']} ms",
        ),
        *(
            (
                f"{name}: clients that return, until all are back, leaves seen",
                f"{one['returned']:,}; {one['whole_after_s']} s; {one['leaves_seen']:,}",
            )
            for name, one in (("one worker killed", killed), ("one worker restarted", rolled))
        ),
    ]


def markdown(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    machine = result["machine"]
    head = (
        f"| {result['clients']:,} clients over {result['workers']} workers, on {result['server_name']} | |\n"
    )
    rows = "".join(f"| {what} | {measured} |\n" for what, measured in rows_of(result))
    return (
        f"{head}| --- | --- |\n{rows}\nMade on {machine['cores']} cores of {machine['cpu']}, which carried "
        f"servers, Redis and clients together, at commit {machine['commit']}, with a load "
        f"of {result['load_average']} before.\n"
    )


async def benchmark(arguments: Namespace) -> None:
    """Measure each part, print the table, write the files."""
    result: dict[str, Any] = {
        "benchmark": "scale", "machine": machine_facts(), "clients": arguments.clients,
        "workers": arguments.workers, "room_size": ROOM_SIZE, "load_average": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    settings = {
        "workers": arguments.workers, "drain_seconds": 5,
        "rooms": [{"match": f"{SILENT_ROOMS}-*", "ttl": SILENT_TTL}],
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(bench_server(arguments.redis_url, arguments.server))
        result["server_name"] = server_name(await server_facts(bench.redis))
        served = await stack.enter_async_context(reactor_server(bench, settings, cores=set(CORES)))
        if not workers_of(served):
            raise ReactorError("--workers has to be 2 or more: one of them is killed")
        status = stack.enter_context(console.status(f"{arguments.clients:,} clients join"))
        server, redis, began = served.cpu(), await cpu(bench.redis), time.monotonic()
        plans = plans_of(served.port, arguments.clients, "room")
        group = await stack.enter_async_context(clients(plans, arguments.within, bench))
        seconds = time.monotonic() - began
        result["join"] = {
            "seconds": round(seconds, 1), "a_second": round(arguments.clients / seconds),
            "server_us": round((served.cpu() - server) / arguments.clients * 1e6),
            "redis_us": round((await cpu(bench.redis) - redis) / arguments.clients * 1e6),
        }  # fmt: skip
        status.update("the steady state")
        await asyncio.sleep(2.0)
        result["steady"] = await use_of(bench, served, group, arguments.seconds)
        result["size"] = predicted(arguments)
        status.update(f"{arguments.silent:,} silent members")
        result["silent"] = await silent_members(bench, served, group, arguments)
        for name, number in (("killed", signal.SIGKILL), ("rolled", signal.SIGTERM)):
            status.update(f"one worker: {name}")
            result[name] = await lose_worker(served, group, number, arguments)
            write_json(arguments.output / "scale.json", result)
    table = Table("what", "measured", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows_of(result):
        table.add_row(*row)
    console.print(table)
    if arguments.update_readme:
        text = README.read_text(encoding="utf-8")
        README.write_text(
            _BETWEEN.sub(lambda found: found[1] + markdown(result) + found[2], text), encoding="utf-8"
        )
    console.print(f"written: {arguments.output / 'scale.json'}")


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
