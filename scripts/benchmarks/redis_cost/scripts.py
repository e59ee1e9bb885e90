"""What a call of each small script costs in Redis's own time, with realistic data behind it."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from statistics import median

from redis.asyncio import Redis

from reactor.presence.keys import Entry, Keyspace, suffix
from scripts.benchmarks.counters import cpu
from scripts.benchmarks.idle_members import payload
from scripts.benchmarks.redis_cost.function_library import FunctionLibrary
from scripts.benchmarks.server import Bench

TTL_MS = 6 * 3600 * 1000
LEASE_MS = 60_000
ROOM_SIZE = 50
NODES = 4
TOGETHER = 20
"""Members in one measured call of `refresh`."""
CASES = ("is_present", "report", "due", "mark_shard_alive", "refresh", "join", "claim")
READ_ONLY_CASE = "is_present_ro"
_SERVER = re.compile("local SERVER ?=")  # where the last argument is the run id; older releases keep spaces
PIPELINE = 250
"""Calls in one round trip: each is timed by Redis alone, so the batch only saves waiting."""

Arguments = Sequence[str | bytes | int]


@dataclass(frozen=True)
class Variant:
    """A way to have the scripts: the commands that load it, and the call of one script."""

    name: str
    loads: Sequence[Sequence[str]]
    call: Callable[[str], Sequence[str]]
    takes_server: Callable[[str], bool]
    cases: Sequence[str] = CASES

    @property
    def size(self) -> int:
        """Bytes of source that are loaded into each primary."""
        return sum(len(load[-1].encode()) for load in self.loads)


def as_scripts(name: str, sources: Mapping[str, str]) -> Variant:
    """Give the variant of one script a transition, called by digest."""
    digests = {
        script: sha1(text.encode(), usedforsecurity=False).hexdigest() for script, text in sources.items()
    }
    loads = [("SCRIPT", "LOAD", text) for text in sources.values()]
    return Variant(
        name,
        loads,
        lambda script: ("EVALSHA", digests[script]),
        lambda script: _SERVER.search(sources[script]) is not None,
    )


def as_functions(library: FunctionLibrary) -> Variant:
    """Give the variant of one library of functions; with a read-only twin of `is_present`."""

    def call(script: str) -> Sequence[str]:
        return "FCALL_RO" if script.endswith("_ro") else "FCALL", library.name(script)

    return Variant(
        "functions", [("FUNCTION", "LOAD", library.source)], call, library.takes_server,
        (*CASES, READ_ONLY_CASE),
    )  # fmt: skip


class ScriptBench:
    """One shard with rooms of ROOM_SIZE members; measures calls of each case there.

    calls: how many a round, each about another member.
    """

    def __init__(self, bench: Bench, *, members: int, calls: int, cpu: bool = False) -> None:
        self._cpu = cpu
        self._redis, self._keys, self._calls = bench.redis, bench.keys, calls
        self._prefix = bench.keys.prefixes[0]
        self._fleet = bench.keys.fleet
        self._rooms = _rooms_of_shard(bench.keys, members // ROOM_SIZE)
        self._members = [
            Entry(room, f"user-{number:03d}") for room in self._rooms for number in range(ROOM_SIZE)
        ]
        self._chance = random.Random(1)
        self._run_id = ""

    async def fill(self, variant: Variant) -> None:
        """Join all members, spread over a few nodes."""
        self._run_id = str((await self._redis.info("server"))["run_id"])
        await self._run(variant, "mark_shard_alive", [self._mark_arguments()])
        await self._run(variant, "join", [self._join(entry, n) for n, entry in enumerate(self._members)])

    async def measure(
        self, variants: Sequence[Variant], rounds: int
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Give what each variant's calls cost.

        The variants take turns within a round, so that a change of the machine's speed falls on all.
        """
        times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for _ in range(rounds):
            for case in (*CASES, READ_ONLY_CASE):
                for variant in variants:
                    if case in variant.cases:
                        times[variant.name][case].append(await self._measure(variant, case))
        return {
            name: {case: {"median": median(found), "lowest": min(found)} for case, found in cases.items()}
            for name, cases in times.items()
        }

    async def _measure(self, variant: Variant, case: str) -> float:
        calls = await self._prepare(variant, case)
        await self._redis.config_resetstat()
        used = await cpu(self._redis)
        await self._run(variant, case, calls, prefix=self._fleet if case == "report" else self._prefix)
        stats = await self._redis.info("commandstats")
        used = await cpu(self._redis) - used
        command = f"cmdstat_{variant.call(case)[0].lower()}"
        figures = stats[command]
        assert (figures["calls"], figures["failed_calls"]) == (len(calls), 0)
        if case == "join":
            await self._run(variant, "kick", [(*self._names(entry), "") for entry in self._guests()])
        return (used * 1e6 if self._cpu else float(figures["usec"])) / len(calls)

    async def _prepare(self, variant: Variant, case: str) -> list[Arguments]:
        """Make the data ready for a case; the arguments of its calls."""
        some = self._chance.choices(self._members, k=self._calls)
        match case:
            case "is_present" | "is_present_ro":
                return [self._names(entry) for entry in some]
            case "report":
                report = '{"version":"0.1.0","connections":1200,"members":1100,"rooms":90}'.ljust(600)
                return [(f"node{n % NODES}", report, 15_000) for n in range(self._calls)]
            case "due":
                return [(1000, 250)] * self._calls
            case "mark_shard_alive":
                return [self._mark_arguments()] * self._calls
            case "refresh":
                groups = (self._chance.sample(self._members, TOGETHER) for _ in range(self._calls // 4))
                return [
                    ("node0", *(part for entry in group for part in (suffix(entry), TTL_MS)))
                    for group in groups
                ]
            case "join":
                return [self._join(entry, number) for number, entry in enumerate(self._guests())]
            case _:
                guests = self._guests()
                await self._run(variant, "join", [self._join(entry, n) for n, entry in enumerate(guests)])
                keys = [self._keys.presence_key(entry) for entry in guests]
                assert await self._redis.delete(*keys) == len(keys)
                # As after an expiry, their stored deadlines have passed.
                pipe = self._redis.pipeline(transaction=False)
                for entry in guests:
                    pipe.zadd(f"{self._prefix}:members:{entry.room_id}", {entry.user_id: 1})
                await pipe.execute()
                return [(0, *self._names(entry), "") for entry in guests]

    def _guests(self) -> list[Entry]:
        """Members beyond those that stay, a few for each room."""
        rooms = self._rooms
        return [Entry(rooms[n % len(rooms)], f"guest-{n:05d}") for n in range(self._calls)]

    def _names(self, entry: Entry) -> Arguments:
        return entry.room_id, entry.user_id

    def _join(self, entry: Entry, number: int) -> Arguments:
        username, data = payload(number)
        connection = f"node{number % NODES}.{number:x}"
        names = (entry.room_id, entry.user_id, entry.room_id, entry.user_id)
        return *names, username, data, connection, TTL_MS, 0, "", "", 0, "", "", 0, "", ""

    def _mark_arguments(self) -> Arguments:
        return LEASE_MS, self._run_id, 1

    async def _run(
        self, variant: Variant, script: str, calls: Sequence[Arguments], *, prefix: str = ""
    ) -> None:
        head = variant.call(script)
        tail = (self._run_id,) if variant.takes_server(script) else ()
        for start in range(0, len(calls), PIPELINE):
            pipe = self._redis.pipeline(transaction=False)
            for arguments in calls[start : start + PIPELINE]:
                pipe.execute_command(*head, 1, prefix or self._prefix, *arguments, *tail)
            await pipe.execute()


def _rooms_of_shard(keys: Keyspace, count: int) -> list[str]:
    """Rooms of shard 0."""
    rooms, number = list[str](), 0
    while len(rooms) < count:
        number += 1
        if keys.shard_of(room := f"room-{number:07d}") == 0:
            rooms.append(room)
    return rooms


async def load(redis: Redis, variant: Variant) -> None:
    """Load a variant into the server."""
    for command in variant.loads:
        await redis.execute_command(*command)
