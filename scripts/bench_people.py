"""Measures the index of people: what joins, departures, answers and bytes cost, and how soon watchers know.

    python scripts/bench_people.py                               two minutes, on the bundled server
    python scripts/bench_people.py --server /usr/bin/redis-server
    python scripts/bench_people.py --update-readme     writes the results and the table in scripts/README.md

Joins and departures are made by the store, as a node makes them: in rounds with the index and without it by
turns, one at a time and many at once. Each figure is Redis's own processor time, so load on the machine
changes it little. This is what one server does, where the same script changes the index.

Watchers are sent changes by two nodes in processes of their own: a user joins and leaves on one, a client on
the other watches. The time is that from the request of the user's client to the message that the watcher's
received, and depends on the load of the machine. Then many clients on both nodes watch that user.
"""

import argparse
import asyncio
import re
import sys
import time
from collections import defaultdict
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
from reactor.presence.people import Correction, Exit, PeopleStore
from reactor.presence.people_index import PeopleIndex
from reactor.presence.store import Store
from scripts.benchmarks.figures import quantile, write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.running import ROOT, TRIAL, benchmark_parser, console, parse_sizes, run_benchmark
from scripts.benchmarks.server import (
    Bench,
    bench_server,
    remove_namespace,
    server_facts,
    server_name,
)
from scripts.benchmarks.timed_socket import Socket

TTL = 3_600_000
ROOMS = 50  # over which the members of a round are spread
RESULTS = ROOT / "scripts" / "results"
README = ROOT / "scripts" / "README.md"
_BETWEEN = re.compile(r"(<!-- table: people -->\n).*?(<!-- end people -->)", re.DOTALL)
RECEIVED_WITHIN = 30.0
PAUSE = 0.12
"""Seconds between two changes: one within `diff_window` (50 ms) of the last would wait for its end."""


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "people.json", redis_url=False, quick=TRIAL)
    add = parser.add_argument
    add("--users", type=int, default=50_000, help="users on record, for their bytes (50000)")
    add("--calls", type=int, default=300, help="joins and departures a round (300)")
    add("--rounds", type=int, default=7, help="rounds with and without the index (7)")
    add("--changes", type=int, default=300, help="changes that are watched (300)")
    add("--watchers", type=int, default=1000, help="clients that watch one user (1000)")
    add("--update-readme", action="store_true", help="write the results, and the table in scripts/README.md")
    arguments = parse_sizes(parser, given, users=2000, calls=50, rounds=2, changes=10, watchers=20)
    if arguments.update_readme:
        arguments.output = RESULTS
    return arguments


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

    async def transitions(self, calls: int, *, index: bool, together: bool) -> tuple[float, float]:
        """Return the microseconds of a join and of a departure: one at a time, or all together."""
        entries = [Entry(f"room-{number % ROOMS}", f"user-{number}") for number in range(calls)]

        async def joins() -> None:
            work = [self._join(entry, number, index=index) for number, entry in enumerate(entries)]
            await _all(work, together=together)

        async def departures() -> None:
            work = [self._store.leave(entry, f"node.{number:x}") for number, entry in enumerate(entries)]
            await _all(work, together=together)

        self._store.last_seen_kept = self._index.keep if index else None
        return await self._cpu(joins()) / calls, await self._cpu(departures()) / calls

    async def bytes_per_user(self, users: int) -> tuple[float, float]:
        """Return the bytes of a user who is online in one room, and of one who was only seen."""
        empty = await self._memory()
        entries = [Entry(f"room-{number % 1000}", f"user-{number:07}") for number in range(users)]
        for start in range(0, users, 2000):
            page = entries[start : start + 2000]
            by_shard: defaultdict[int, list[tuple[Entry, str]]] = defaultdict(list)
            for number, entry in enumerate(page, start):
                by_shard[self._people.keys.shard_of(entry.user_id)].append((entry, f"node-{number:x}"))
            for shard, joins in by_shard.items():
                await self._people.enter(shard, joins)
            await self._people.correct(Correction(entry, away=False) for entry in page)
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
        self._store.last_seen_kept = self._index.keep
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


class Watcher:
    """A client that watches one user. received: when it was sent each change."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[float] = asyncio.Queue()
        self.socket: Socket

    async def open(self, port: int, user: str) -> None:
        """Connect, and watch."""
        self.socket = await Socket.open(port, self._take)
        await self.socket.ask({"type": "people:watch", "userIds": [user]})

    def _take(self, message: dict[str, Any], at: float) -> None:
        if message["type"] == "people:diff":
            self.received.put_nowait(at)


class WatchBench:
    """Two nodes, and a user who joins and leaves on the first of them."""

    USER = "user watched"

    def __init__(self, bench: Bench, nodes: Sequence[NodeProcess]) -> None:
        self._bench, self._nodes = bench, nodes
        self._user: Socket

    async def measure(self, changes: int, watchers: int) -> dict[str, float]:
        """Return the milliseconds until a watcher and until all know a change, and Redis's messages."""
        self._user = await Socket.open(self._nodes[0].port, lambda _message, _at: None)
        found = await self._changes("change", changes, [self._nodes[1]])
        channel = self._bench.keys.person_channel(self.USER)
        async with self._bench.redis.pubsub() as subscription:
            await subscription.subscribe(channel)
            some = max(2, changes // 10)
            ports = [self._nodes[number % 2] for number in range(watchers)]
            found |= await self._changes("all_watchers", some, ports, channel)
            published = 0
            while (message := await subscription.get_message(timeout=0.5)) is not None:
                published += message["type"] == "message"
            found["publishes_a_change"] = published / some
        self._user.close()
        return found

    async def _changes(
        self, name: str, changes: int, nodes: Sequence[NodeProcess], channel: str = ""
    ) -> dict[str, float]:
        watchers = [Watcher() for _ in nodes]
        for start in range(0, len(watchers), 50):
            pairs = list(zip(watchers, nodes, strict=True))[start : start + 50]
            await asyncio.gather(*(watcher.open(node.port, self.USER) for watcher, node in pairs))
        found: dict[str, float] = {}
        if channel:  # one more is the benchmark's own
            ((_, subscribers),) = await self._bench.redis.pubsub_numsub(channel)
            found["subscriptions"] = subscribers - 1
        took = []
        for number in range(changes):
            kind = "leave_room" if number % 2 else "join_room"
            who = {} if number % 2 else {"userId": self.USER, "view": "none"}
            began = time.time()
            await self._user.ask({"type": kind, "roomId": "room", **who})
            with anyio.fail_after(RECEIVED_WITHIN):
                times = await asyncio.gather(*(watcher.received.get() for watcher in watchers))
            took.append((max(times) - began) * 1000)
            await asyncio.sleep(PAUSE)
        for watcher in watchers:
            watcher.socket.close()
        return found | {f"{name}_ms_p50": quantile(took, 0.5), f"{name}_ms_p99": quantile(took, 0.99)}


async def _watching(bench: Bench, arguments: argparse.Namespace) -> dict[str, float]:
    settings = {
        "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "max_per_address": 0,
        "new_per_second": 0, "messages_per_second": 0,
    }  # fmt: skip
    async with node_process(settings) as one, node_process(settings) as other:
        return await WatchBench(bench, (one, other)).measure(arguments.changes, arguments.watchers)


async def _all(work: Sequence[Awaitable[object]], *, together: bool) -> None:
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
            index = PeopleIndex(people, tasks, direct=True, keep=86_400_000, most_seen=4_000_000)
            tasks.start_soon(index.confirm)
            found = await _figures(PeopleBench(bench, store, people, index), arguments)
            tasks.cancel_scope.cancel()
        await backend.aclose()
        await remove_namespace(bench)
        found |= await _watching(bench, arguments)
    sizes = {"users": arguments.users, "changes": arguments.changes, "watchers": arguments.watchers}
    result = {
        "machine": machine_facts(), "server": facts, "server_name": server_name(facts), **sizes, **found
    }  # fmt: skip
    write_json(arguments.output / "people.json", result)
    console.print(server_name(facts))
    for name, value in found.items():
        console.print(f"{name}: {value:.2f}")
    if arguments.update_readme:
        text = README.read_text(encoding="utf-8")
        README.write_text(
            _BETWEEN.sub(lambda kept: kept[1] + markdown(result) + kept[2], text), encoding="utf-8"
        )


def markdown(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows, machine = "", result["machine"]
    for way, what in (("together", "{}, of many at once"), ("alone", "{} alone")):
        for kind, name in (("join", "a join"), ("departure", "a departure")):
            off, on, more = (result[f"{kind}_{way}_{part}"] for part in ("off_us", "on_us", "more_percent"))
            rows += f"| {what.format(name)} | {off:.1f} us | {on:.1f} us | {more:.0f} % |\n"
    return (
        f"{result['server_name']}, processor time of Redis, medians with the index and without it by turns:"
        "\n\n"
        f"| | without | with | more |\n|---|---|---|---|\n{rows}\n"
        "| | |\n|---|---|\n"
        "| bytes of a user while online in one room; while only `lastSeen` is kept "
        f"({result['users']:,} users) | {result['bytes_online']:.0f}; {result['bytes_seen']:.0f} |\n"
        "| one answer for 1,000 users: Redis's time; in all "
        f"| {result['answer_1000_redis_ms']:.1f} ms; {result['answer_1000_ms']:.1f} ms |\n"
        f"| from a join or leave to a watcher on another node, of {result['changes']}: p50; p99 "
        f"| {result['change_ms_p50']:.1f} ms; {result['change_ms_p99']:.1f} ms |\n"
        f"| to the last of {result['watchers']:,} watchers on two nodes: p50; p99 "
        f"| {result['all_watchers_ms_p50']:.1f} ms; {result['all_watchers_ms_p99']:.1f} ms |\n"
        f"| messages that this publishes in Redis, and to how many subscriptions: one a node "
        f"| {result['publishes_a_change']:.1f}; {result['subscriptions']:.0f} |\n\n"
        f"Made on {machine['cores']} cores of {machine['cpu']}, at commit {machine['commit']}.\n"
    )


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
