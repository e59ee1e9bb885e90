"""Measures how long a ban from every room takes: from the call to the close of the user's last socket.

    python scripts/bench_bans.py                                 half a minute, on the bundled server
    python scripts/bench_bans.py --server /usr/bin/redis-server

Several nodes, each a process of its own, with members of rooms that stay. Each user who is banned has three
sockets on every node: one is in two rooms, one watches a room, and one is in none. A socket counts as closed
when its client has read the close frame. What is measured of a ban from one room is the time until its
members know, and until its watch has ended.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jwt

from reactor import Presence
from reactor.settings import Settings
from scripts.benchmarks.figures import quantile, write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.running import TRIAL, benchmark_parser, console, parse_sizes, run_benchmark
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name
from scripts.benchmarks.timed_socket import Socket

SECRET = "the secret of a benchmark, as long as it has to be"
ROOM_SIZE = 50
CLOSED_WITHIN = 30.0


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "bans.json", quick=TRIAL)
    add = parser.add_argument
    add("--nodes", type=int, default=4, help="nodes (4)")
    add("--bans", type=int, default=200, help="bans from every room, and from one room (200)")
    add("--members", type=int, default=1000, help=f"members who stay, in rooms of {ROOM_SIZE} (1000)")
    return parse_sizes(parser, given, nodes=2, bans=5, members=50)


async def _login(node: NodeProcess, user: str, on_message: Any = None) -> Socket:
    claims = {"sub": user, "exp": int(time.time()) + 3600, "rooms": ["*"]}
    socket = await Socket.open(node.port, on_message or (lambda _message, _at: None))
    await socket.ask({"type": "auth", "token": jwt.encode(claims, SECRET, algorithm="HS256")})
    return socket


async def _join(socket: Socket, room: str) -> None:
    await socket.ask({"type": "join_room", "roomId": room})


async def _stay(nodes: list[NodeProcess], members: int) -> list[Socket]:
    async def one(number: int) -> Socket:
        socket = await _login(nodes[number % len(nodes)], f"member {number}")
        await _join(socket, f"room {number // ROOM_SIZE}")
        return socket

    found: list[Socket] = []
    for start in range(0, members, 50):
        found += await asyncio.gather(*map(one, range(start, min(start + 50, members))))
    return found


async def _ban_everywhere(presence: Presence, nodes: list[NodeProcess], number: int) -> tuple[float, float]:
    """Return the milliseconds until the call returned, and until the last socket was closed."""
    user = f"user {number}"
    sockets: list[Socket] = []
    for node in nodes:
        in_rooms, watching, idle = [await _login(node, user) for _ in range(3)]
        await _join(in_rooms, f"room {number % 20}")
        await _join(in_rooms, f"of {user}")
        await watching.ask({"type": "room:watch", "roomId": "room 0", "view": "count"})
        sockets += [in_rooms, watching, idle]
    began = time.time()
    await presence.ban(user, for_=600)
    returned = time.time() - began
    closed = await asyncio.wait_for(asyncio.gather(*(one.closed for one in sockets)), CLOSED_WITHIN)
    return returned * 1000, (max(closed) - began) * 1000


async def _ban_from_a_room(presence: Presence, nodes: list[NodeProcess], number: int) -> float:
    """Return the milliseconds until the last of the user's sockets has received that it is out."""
    user, room = f"other {number}", f"room {number % 20}"
    loop = asyncio.get_running_loop()
    out: list[asyncio.Future[float]] = []
    for node in nodes:
        for watches in (False, True):
            done: asyncio.Future[float] = loop.create_future()

            def on_message(message: dict[str, Any], at: float, done: Any = done) -> None:
                if message.get("code", message.get("reason")) == "banned" and not done.done():
                    done.set_result(at)

            socket = await _login(node, user, on_message)
            if watches:
                await socket.ask({"type": "room:watch", "roomId": room})
            else:
                await _join(socket, room)
            out.append(done)
    began = time.time()
    await presence.ban(user, room, for_=600)
    return (max(await asyncio.wait_for(asyncio.gather(*out), CLOSED_WITHIN)) - began) * 1000


async def measure(arguments: argparse.Namespace) -> None:
    """Measure, and write the figures."""
    async with bench_server(arguments.redis_url, arguments.server) as bench, AsyncExitStack() as stack:
        facts = await server_facts(bench.redis)
        nodes = [
            await stack.enter_async_context(node_process(_settings(bench))) for _ in range(arguments.nodes)
        ]
        presence = await stack.enter_async_context(
            Presence.open(Settings(redis_url=bench.url, namespace=bench.namespace))
        )
        members = await _stay(nodes, arguments.members)
        everywhere = [await _ban_everywhere(presence, nodes, number) for number in range(arguments.bans)]
        of_a_room = [await _ban_from_a_room(presence, nodes, number) for number in range(arguments.bans)]
        for socket in members:
            socket.close()
    times = {
        "call_ms": [call for call, _ in everywhere],
        "closed_ms": [closed for _, closed in everywhere],
        "out_of_a_room_ms": of_a_room,
    }
    shares = (("p50", 0.5), ("p99", 0.99), ("longest", 1.0))
    found = {name: {key: quantile(values, share) for key, share in shares} for name, values in times.items()}
    sizes = {"nodes": arguments.nodes, "bans": arguments.bans, "members": arguments.members}
    machine = machine_facts()
    write_json(arguments.output / "bans.json", {"machine": machine, "server": facts, **sizes, **found})
    console.print(f"{server_name(facts)}, {arguments.nodes} nodes, {arguments.bans} bans")
    for name, figures in found.items():
        console.print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in figures.items()))


def _settings(bench: Bench) -> dict[str, Any]:
    return {
        "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "auth_secret": SECRET,
        "max_per_address": 0, "new_per_second": 0,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_benchmark(measure(read_arguments())))
