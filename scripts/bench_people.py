"""Measures what the index of people costs Redis: joins, departures, answers and bytes.

    python scripts/bench_people.py                               about a minute, on the bundled server
    python scripts/bench_people.py --server /usr/bin/redis-server

Joins and departures are made by the store, as a node makes them: in rounds with the index and without it by
turns, one at a time and many at once. Each figure is Redis's own processor time, so load on the machine
changes it little. A departure with the index includes what takes it into the index.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import anyio

from reactor.backend.connect import open_backend
from reactor.backend.target import parse_url
from reactor.presence.keys import Entry
from reactor.presence.lua_sources import lua_sources
from reactor.presence.people import Exit, PeopleStore
from reactor.presence.people_index import PeopleIndex
from reactor.presence.store import Store
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import TRIAL, benchmark_parser, console, parse_sizes, run_benchmark
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

TTL = 3_600_000
ROOMS = 50  # over which the members of a round are spread


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "people.json", redis_url=False, quick=TRIAL)
    add = parser.add_argument
    add("--users", type=int, default=50_000, help="users on record, for their bytes (50000)")
    add("--calls", type=int, default=300, help="joins and departures a round (300)")
    add("--rounds", type=int, default=7, help="rounds with and without the index (7)")
    return parse_sizes(parser, given, users=2000, calls=50, rounds=2)


class PeopleBench:
    """The store and the index on one server."""

    def __init__(self, bench: Bench, store: Store, people: PeopleStore, index: PeopleIndex) -> None:
        self._redis = bench.redis
        self._store, self._people, self._index = store, people, index

    async def _cpu(self, work: Awaitable[Any]) -> float:
        """Await work; return the microseconds of processor time that Redis spent meanwhile."""
        before = await self._redis.info("cpu")
        await work
        after = await self._redis.info("cpu")
        spent = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
        return float(spent) * 1e6

    async def _join(self, entry: Entry, number: int, *, index: bool) -> None:
        joining = await self._index.enter(entry, "node") if index else None
        token = joining.token if joining is not None else ""
        await self._store.join(entry, f"node.{number:x}", ttl=TTL, person=token)
        if joining is not None:
            self._index.joined(joining, away=False)

    async def _leave(self, entry: Entry, number: int, *, index: bool) -> None:
        await self._store.leave(entry, f"node.{number:x}")
        if index:
            await self._index.drain(self._store.keys.shard_of(entry.room_id))

    async def transitions(self, calls: int, *, index: bool, together: bool) -> tuple[float, float]:
        """Return the microseconds of a join and of a departure: one at a time, or all together."""
        entries = [Entry(f"room-{number % ROOMS}", f"user-{number}") for number in range(calls)]

        async def joins() -> None:
            work = [self._join(entry, number, index=index) for number, entry in enumerate(entries)]
            await _all(work, together=together)

        async def departures() -> None:
            if not together:
                work = [self._leave(entry, number, index=index) for number, entry in enumerate(entries)]
                await _all(work, together=False)
                return
            await _all(
                [self._leave(entry, number, index=False) for number, entry in enumerate(entries)],
                together=True,
            )
            if index:
                await asyncio.gather(*map(self._index.drain, self._store.keys.shards))

        return await self._cpu(joins()) / calls, await self._cpu(departures()) / calls

    async def bytes_per_user(self, users: int) -> tuple[float, float]:
        """Return the bytes of a user who is online in one room, and of one who was only seen."""
        empty = await self._memory()
        entries = [Entry(f"room-{number % 1000}", f"user-{number:07}") for number in range(users)]
        for start in range(0, users, 2000):
            page = entries[start : start + 2000]
            await asyncio.gather(*(self._index.enter(entry, "node") for entry in page))
        online = (await self._memory() - empty) / users
        records = await self._people.records([entry.user_id for entry in entries])
        now = int(time.time() * 1000)
        for start in range(0, users, 2000):
            await self._people.exit(
                [
                    Exit(entry, records[entry.user_id].rooms[entry.room_id], str(now + start))
                    for entry in entries[start : start + 2000]
                ],
                keep=86_400_000,
            )
        return online, (await self._memory() - empty) / users

    async def answer(self, people: int) -> tuple[float, float]:
        """Return Redis's and all milliseconds of one answer for several users, each in one room."""
        entries = [Entry(f"room-{number % 20}", f"user-{number}") for number in range(people)]
        await _all(
            [self._join(entry, number, index=True) for number, entry in enumerate(entries)], together=True
        )
        ids = [entry.user_id for entry in entries]
        took: list[float] = []

        async def ask() -> None:
            for _ in range(20):
                began = time.perf_counter()
                found = await self._people.people(ids)
                took.append(time.perf_counter() - began)
                assert all(person.status == "online" for person in found)

        cpu = await self._cpu(ask())
        return cpu / 20 / 1000, median(took) * 1000

    async def _memory(self) -> int:
        return int((await self._redis.info("memory"))["used_memory"])


async def _all(work: Sequence[Awaitable[None]], *, together: bool) -> None:
    if together:
        await asyncio.gather(*work)
    else:
        for one in work:
            await one


async def measure(arguments: argparse.Namespace) -> None:
    """Measure, and write the figures."""
    async with bench_server(None, arguments.server) as bench:
        facts = await server_facts(bench.redis)
        backend = await open_backend(parse_url(bench.url), lua_sources(departures_kept=100_000))
        async with anyio.create_task_group() as tasks:
            for loop in backend.loops:
                tasks.start_soon(loop)
            keys = bench.keys
            store, people = Store(backend.runner, keys), PeopleStore(backend.runner, keys)
            index = PeopleIndex(people, tasks, ordered=True, keep=86_400_000)
            tasks.start_soon(index.confirm)
            found = await _figures(PeopleBench(bench, store, people, index), arguments)
            tasks.cancel_scope.cancel()
        await backend.aclose()
    result = {"machine": machine_facts(), "server": facts, **found}
    write_json(arguments.output / "people.json", result)
    console.print(server_name(facts))
    for name, value in found.items():
        console.print(f"{name}: {value:.2f}")


async def _figures(bench: PeopleBench, arguments: argparse.Namespace) -> dict[str, float]:
    await bench.transitions(arguments.calls, index=True, together=True)
    found: dict[str, float] = {}
    for together in (False, True):
        rounds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for number in range(2 * arguments.rounds):
            with_index = number % 2 == 0
            rounds[with_index].append(
                await bench.transitions(arguments.calls, index=with_index, together=together)
            )
        for place, what in enumerate(("join", "departure")):
            off, on = (median(one[place] for one in rounds[index]) for index in (False, True))
            way = "together" if together else "alone"
            found |= {
                f"{what}_{way}_off_us": off,
                f"{what}_{way}_on_us": on,
                f"{what}_{way}_more_percent": 100 * (on / off - 1),
            }
    found["bytes_online"], found["bytes_seen"] = await bench.bytes_per_user(arguments.users)
    found["answer_1000_redis_ms"], found["answer_1000_ms"] = await bench.answer(1000)
    return found


if __name__ == "__main__":
    sys.exit(run_benchmark(measure(read_arguments())))
