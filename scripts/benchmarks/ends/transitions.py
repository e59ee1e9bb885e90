"""Measures what joins, leaves and departures cost Redis with a complete node running."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import anyio

from scripts.benchmarks.child import ask, child_process
from scripts.benchmarks.counters import MEASURING_COMMANDS, commands, cpu
from scripts.benchmarks.running import ROOT
from scripts.benchmarks.server import Bench
from scripts.benchmarks.timed_socket import Socket

ROOM_SIZE = 50
AT_A_TIME = 200
"""Joins, or leaves, that are under way at the same time in a storm."""
ALONE = 100
"""Members that depart one after the other."""
IDLE = 3.0
"""Seconds for which an idle node is measured."""
LIMITS = {
    "max_rooms": 100_000, "messages_per_second": 0, "cost_per_second": 0,
    "max_per_address": 0, "max_unjoined_per_address": 0, "new_per_second": 0,
}  # fmt: skip
"""Settings without limits that the benchmark's few addresses and sockets would reach."""


@dataclass
class Spent:
    """What Redis used in a block: processor time (s), and commands."""

    seconds: float = 0.0
    cpu: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)

    def a_member(self, members: int, idle: "Spent") -> dict[str, Any]:
        """Return it for each member, less what an idle node needs in the same time."""
        share = self.seconds / idle.seconds
        calls = {
            name: (count - idle.calls[name] * share) / members
            for name, count in self.calls.items()
            if name not in MEASURING_COMMANDS
        }
        return {
            "redis_us": round((self.cpu - idle.cpu * share) / members * 1e6),
            "commands": round(sum(calls.values()), 1),
            **{name: round(count, 2) for name, count in sorted(calls.items()) if count >= 0.05},
        }


async def measure_transitions(
    bench: Bench, clients: int, at_once: int, tree: Path | None = None
) -> dict[str, Any]:
    """Return for each kind of transition what it costs Redis for each member. Rooms have 50 members."""
    settings = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, **LIMITS}
    settings |= {"sweep_interval": 0, "ttl": 21_600.0, "grace": 0.5}
    command = (sys.executable, "-m", "scripts.benchmarks.node", json.dumps(settings))
    result: dict[str, Any] = {}
    async with child_process(command, cwd=tree or ROOT) as (process, port):
        await until_leading(process)
        async with _spending(bench) as idle:
            await anyio.sleep(IDLE)

        async def departed(count: int) -> None:
            while sum((await ask(process))["found_by"].values()) < count:  # noqa: ASYNC110 - asks a process
                await anyio.sleep(0.02)

        sockets = [await Socket.open(port, lambda _message, _at: None) for _ in range(2 * clients)]
        async with _spending(bench) as spent:
            await _ask_all(sockets[:clients], "join_room", 1)
        result["join_alone"] = spent.a_member(clients, idle)
        async with _spending(bench) as spent:
            await _ask_all(sockets[clients:], "join_room", AT_A_TIME, start=clients)
        result["join_in_a_storm"] = spent.a_member(clients, idle)
        async with _spending(bench) as spent:
            await _ask_all(sockets[clients:], "leave_room", AT_A_TIME, start=clients)
        result["leave_in_a_storm"] = spent.a_member(clients, idle)
        async with _spending(bench) as spent:
            for number, socket in enumerate(sockets[:ALONE]):
                socket.close()
                await departed(number + 1)
        result["detach_and_departure_alone"] = spent.a_member(min(ALONE, clients), idle)
        many = [await Socket.open(port, lambda _message, _at: None) for _ in range(at_once // ROOM_SIZE)]
        rooms = [(socket, room) for room in range(ROOM_SIZE) for socket in many]
        await _join_rooms(many, rooms)
        made = sum((await ask(process))["found_by"].values())
        async with _spending(bench) as spent:
            for socket in many:
                socket.close()
            await departed(made + len(rooms))
        result["detach_and_departure_of_many_at_once"] = spent.a_member(len(rooms), idle)
    return result


async def until_leading(process: asyncio.subprocess.Process) -> None:
    """Wait until the node leads the pacemaker."""
    while not (await ask(process))["leading"]:  # noqa: ASYNC110 - asks a process
        await anyio.sleep(0.05)


@asynccontextmanager
async def _spending(bench: Bench) -> AsyncIterator[Spent]:
    spent, began = Spent(), monotonic()
    before, used = await commands(bench.redis), await cpu(bench.redis)
    yield spent
    spent.seconds = monotonic() - began
    spent.cpu = await cpu(bench.redis) - used
    spent.calls = await commands(bench.redis) - before


async def _ask_all(sockets: list[Socket], kind: str, at_a_time: int, *, start: int = 0) -> None:
    numbered = iter(enumerate(sockets, start))

    async def work() -> None:
        for number, socket in numbered:
            message = {"type": kind, "roomId": f"room-{number // ROOM_SIZE}"}
            await socket.ask(message | ({"userId": f"user-{number}"} if kind == "join_room" else {}))

    await asyncio.gather(*(work() for _ in range(at_a_time)))


async def _join_rooms(sockets: list[Socket], rooms: list[tuple[Socket, int]]) -> None:
    """Each socket joins as many rooms as there are members in one: all rooms are full then."""
    places = iter(rooms)
    number_of = {socket: number for number, socket in enumerate(sockets)}

    async def work() -> None:
        for socket, room in places:
            number = number_of[socket]
            place = f"many-{number // ROOM_SIZE}-{room}"
            await socket.ask({"type": "join_room", "roomId": place, "userId": f"many-{number}"})

    await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
