"""Measures what ordinary clients notice of attackers that stay within the limits, and what these cost.

    python scripts/bench_attacks.py                              everything, about five minutes
    python scripts/bench_attacks.py --update-readme              writes the table in scripts/README.md, too
    python scripts/bench_attacks.py --attacks listings --server /usr/bin/redis-server

Two nodes with the default limits. On one are 50 ordinary clients, which send heartbeats; on the other 900
members of a large room, with 4 KB of data each. The attackers are on the first node. Each attack is measured
beside the same time without it. Everything shares the cores of one machine, so the delays are those of a
machine that also runs the attackers.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from websockets.asyncio.client import ClientConnection, connect

from scripts.benchmarks.attacks.attackers import DATA, LARGE
from scripts.benchmarks.figures import quantile, write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.running import (
    ROOT,
    TRIAL,
    benchmark_parser,
    chosen,
    console,
    parse_sizes,
    run_benchmark,
)
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

ATTACKS = {
    "listings": "20 list a room of 900 with 4 KB each, which their node does not follow",
    "away": "20 go away and come back in 128 rooms",
    "updates": "40 change 4 KB in their room",
    "not_reading": "80 join the room of 900 and read nothing",
    "heartbeats": "20 renew 128 rooms with each message",
    "people": "100 watch 1,000 users each, who go away and come back, 128 with a message",
    "people_churn": "20 watch 1,000 other users with each message, and then none",
    "watch": "20 watch 256 other rooms with each message, and then none",
    "watch_list": "20 watch the members of the room of 900, and then not",
    "observers": "64 change 1 KB in rooms that 100 watch, of whom a quarter reads nothing",
    "resume": "20 return by position to a room of 4 KB diffs, each time from another one",
    "send": "80 in a room send 4 KB to all, and to 100 by name",
    "patch": "40 patch 4 KB of data that is nested 30 deep",
    "keys": "20 send objects whose keys are lists, all with the same hash, in MessagePack",
    "invalid": "200 send invalid messages that take long to be found so",
    "held": "100 read nothing, and send requests of 64 KB that wait for that",
    "many": "600 sockets ask for the cheapest thing",
}
"""The attacks, as the table describes them."""
RESULTS = ROOT / "scripts" / "results"
README = ROOT / "scripts" / "README.md"
_BETWEEN = re.compile(r"(<!-- table: attacks -->\n).*?(<!-- end attacks -->)", re.DOTALL)
INTERVAL = 0.5  # seconds between two heartbeats of an ordinary client


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "attacks.json", quick=TRIAL)
    add = parser.add_argument
    add("--attacks", default=",".join(ATTACKS), help=f"attacks to measure ({','.join(ATTACKS)})")
    add("--seconds", type=float, default=6.0, help="duration of each (6)")
    add("--rate", type=float, default=38.0, help="messages a second of one attacker (38)")
    add("--clients", type=int, default=50, help="ordinary clients (50)")
    add("--members", type=int, default=900, help="members of the large room (900)")
    add("--update-readme", action="store_true", help="write the results, and the table in scripts/README.md")
    arguments = parse_sizes(parser, given, seconds=3.0, clients=5, members=150)
    arguments.attacks = chosen(parser, "--attacks", arguments.attacks, tuple(ATTACKS))
    if arguments.update_readme:
        arguments.output = RESULTS
    return arguments


class OrdinaryClient:
    """Sends heartbeats and notes how long each took, and what it was refused."""

    def __init__(self, opened: ClientConnection) -> None:
        self._opened = opened
        self._asked = 0
        self.delays: list[float] = []
        self.refused = 0

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            began, self._asked = time.perf_counter(), self._asked + 1
            await self._opened.send(json.dumps({"type": "room:heartbeat", "id": self._asked}))
            while (message := json.loads(await self._opened.recv())).get("id") != self._asked:
                self.refused += message["type"] in {"error", "room:force-leave", "service:degraded"}
            self.refused += message["type"] == "error"
            self.delays.append(time.perf_counter() - began)
            await asyncio.sleep(INTERVAL)


async def join(node: NodeProcess, room: str, user: str, **fields: Any) -> ClientConnection:
    """Open a connection and join a room over it."""
    opened = await connect(f"ws://127.0.0.1:{node.port}/ws", compression=None, max_size=None)
    await opened.send(json.dumps({"type": "join_room", "roomId": room, "userId": user, **fields}))
    await opened.recv()
    return opened


def resident_mib(node: NodeProcess) -> float:
    """Return the resident memory of a node."""
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


class Meter:
    """CPU time of the attacked node and of Redis."""

    def __init__(self, node: NodeProcess, bench: Bench) -> None:
        self._node, self._bench = node, bench

    async def read(self) -> tuple[float, float]:
        """Return both, in seconds."""
        info: dict[str, Any] = await self._bench.redis.info("cpu")
        return (await self._node.status())["cpu"], info["used_cpu_user"] + info["used_cpu_sys"]

    async def shares(self, seconds: float) -> tuple[float, float]:
        """Return the shares of a core that both take in the next seconds."""
        (node, redis), began = await self.read(), time.perf_counter()
        await asyncio.sleep(seconds)
        later, took = await self.read(), time.perf_counter() - began
        return (later[0] - node) / took, (later[1] - redis) / took


@asynccontextmanager
async def beating(clients: list[OrdinaryClient]) -> AsyncIterator[list[float]]:
    """Send heartbeats during the block; the list has the delays of all of them afterwards."""
    for client in clients:
        client.delays.clear()
    delays: list[float] = []
    running = [asyncio.create_task(client.run()) for client in clients]
    yield delays
    delays += [delay for client in clients for delay in client.delays]
    cut = sum(task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for client in clients:
        client.refused += cut
    if cut:
        console.print(f"[red]{cut} ordinary clients were cut[/]")


async def measure(
    name: str, node: NodeProcess, bench: Bench, clients: list[OrdinaryClient], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure one attack."""
    meter, seconds = Meter(node, bench), arguments.seconds
    async with beating(clients) as quiet:
        await asyncio.sleep(seconds)
    before, most = resident_mib(node), 0.0
    async with beating(clients) as attacked:
        attacker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.benchmarks.attacks.attackers", name, str(node.port),
            str(seconds), str(arguments.rate), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        ended = asyncio.ensure_future(attacker.communicate())
        await asyncio.sleep(1)  # it starts and connects
        share = asyncio.ensure_future(meter.shares(seconds - 1))
        while not ended.done():
            most = max(most, resident_mib(node))
            await asyncio.wait([ended], timeout=0.1)
        out, _ = await ended
    node_share, redis_share = await share
    await asyncio.sleep(2)
    after = await meter.shares(1)
    return {
        "attack": name,
        "counts": json.loads(out or b"{}"),
        "heartbeat_ms_p50": [quantile(delays, 0.5) * 1000 for delays in (quiet, attacked)],
        "heartbeat_ms_p99": [quantile(delays, 0.99) * 1000 for delays in (quiet, attacked)],
        "refused_or_cut": sum(client.refused for client in clients),
        "node_cpu": node_share,
        "redis_cpu": redis_share,
        "node_cpu_after_2s": after[0],
        "redis_cpu_after_2s": after[1],
        "memory_mib_more": most - before,
    }


async def benchmark(arguments: argparse.Namespace) -> None:
    """Measure each attack and print a table."""
    load = round(os.getloadavg()[0], 1)
    crowd = {"max_per_address": 0, "new_per_second": 0, "trusted_proxies": "none", "port": 0}
    async with bench_server(arguments.redis_url, arguments.server) as bench:
        settings = {"redis_url": bench.url, "namespace": bench.namespace, **crowd}
        async with node_process(settings) as node, node_process(settings) as other:
            members = [
                await join(other, LARGE, f"m{number}", data=DATA, view="none")
                for number in range(arguments.members)
            ]
            opened = [
                await join(node, f"room {number % 5}", f"ordinary {number}")
                for number in range(arguments.clients)
            ]
            clients = [OrdinaryClient(one) for one in opened]
            facts = await server_facts(bench.redis)
            results = []
            for name in arguments.attacks:
                with console.status(f"{name} ..."):
                    results.append(await measure(name, node, bench, clients, arguments))
                console.print(line(results[-1]))
            for one in (*members, *opened):
                one.transport.abort()
    result = {
        "benchmark": "attacks", "machine": machine_facts(), "server": facts, "load_average": load,
        "server_name": server_name(facts), "attacks": results,
    }  # fmt: skip
    write_json(arguments.output / "attacks.json", result)
    if arguments.update_readme:
        text = README.read_text(encoding="utf-8")
        README.write_text(
            _BETWEEN.sub(lambda found: found[1] + markdown(result) + found[2], text), encoding="utf-8"
        )


def markdown(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    machine, rows = result["machine"], ""
    for one in result["attacks"]:
        quiet, attacked = one["heartbeat_ms_p99"]
        rows += (
            f"| {ATTACKS[one['attack']]} | {attacked:.0f} ms, {quiet:.0f} ms | {one['refused_or_cut']} "
            f"| {one['node_cpu']:.0%}, {one['redis_cpu']:.0%} "
            f"| {one['node_cpu_after_2s']:.0%}, {one['redis_cpu_after_2s']:.0%} "
            f"| {one['memory_mib_more']:+.0f} MiB |\n"
        )
    return (
        "| attackers | heartbeat p99, without them | refused or cut | node, Redis: of a core "
        f"| the same 2 s after the end | memory of the node |\n|---|---|---|---|---|---|\n{rows}\n"
        f"Made on {machine['cores']} cores of {machine['cpu']}, which carried nodes, Redis, attackers and "
        f"ordinary clients together, on {result['server_name']}, at commit {machine['commit']}, with a load "
        f"of {result['load_average']} before.\n"
    )


def line(one: dict[str, Any]) -> str:
    """Return a result as one line."""
    quiet, attacked = one["heartbeat_ms_p99"]
    return (
        f"{one['attack']}: heartbeat p99 {attacked:.0f} ms (without {quiet:.0f}), "
        f"refused or cut {one['refused_or_cut']}, node {one['node_cpu']:.0%}, Redis {one['redis_cpu']:.0%}, "
        f"2 s later {one['node_cpu_after_2s']:.0%} and {one['redis_cpu_after_2s']:.0%}, "
        f"memory +{one['memory_mib_more']:.0f} MiB; {one['counts']}"
    )


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
