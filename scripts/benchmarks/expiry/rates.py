"""Many expiries at a time: how late they are noticed, and what the heartbeats of others take meanwhile."""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from typing import Any

from reactor.errors import ReactorError
from reactor.presence.keys import Entry
from reactor.presence.replies import Joined
from scripts.benchmarks.clocks import measure_clock
from scripts.benchmarks.counters import cpu
from scripts.benchmarks.expiry.matrix import Show, figures_of
from scripts.benchmarks.expiry.plain_keys import ProbeKeys
from scripts.benchmarks.expiry.subjects import LabServer, started
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.idle_members import IdleMembers, idle_members
from scripts.benchmarks.node import node_process
from scripts.benchmarks.server import Bench
from scripts.benchmarks.timed_socket import Socket

ROOMS = 100
"""Each has one client, which sends heartbeats and receives the departures of its room."""
HEARTBEAT_EVERY = 0.5
_LEAD = 3.0
_JOINS_A_SECOND = 1000
"""Members joined in a second, at least, on a busy machine."""
_AT_ONCE = 256
_PATIENCE = 20.0
_MARGIN = 1.0
"""Seconds by which a member's first TTL ends before the deadline that it is given afterwards."""


async def measure_rates(
    server: LabServer, rates: Sequence[int], *, seconds: float, instant: int, show: Show
) -> dict[str, Any]:
    """Measure each rate for some seconds, and a number of expiries in one instant.

    A rate is measured twice, one after the other: bare keys that are read at their deadline, and members in
    rooms of a node whose clients are notified.
    """
    rows = []
    async with started(server) as bench, idle_members(bench) as members:
        settings = {
            "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "drain_seconds": 0,
            "max_per_address": 0, "new_per_second": 0, "max_members_view": 100_000,
        }  # fmt: skip
        async with node_process(settings) as node:
            await node.wait_until_settled(sweeps=1, leading=True)
            watchers = [Watcher(node.port, f"rates-{number}") for number in range(ROOMS)]
            for watcher in watchers:
                await watcher.join()
            for rate, over in [*((rate, seconds) for rate in rates), (instant, 0.0)]:
                count = round(rate * over) if over else instant
                name = f"{rate:,} a second" if over else f"{instant:,} in one instant"
                show(f"{server.name}: {name}, a bare touch")
                keys = ProbeKeys(bench, count=count, over=over, patience=_PATIENCE, label=name)
                touched = await keys.touch()
                show(f"{server.name}: {name}, the pacemaker")
                row = await _Rate(bench, members, watchers, count, over).measure(node.status)
                rows.append({"rate": name, "touch": figures_of(touched), **row})
            for watcher in watchers:
                watcher.close()
    return {"server": server.name, "version": server.version, "rooms": ROOMS, "rows": rows}


class Watcher:
    """A client in one room: it sends heartbeats, and notes when it received each departure."""

    def __init__(self, port: int, room_id: str) -> None:
        self._port, self.room_id = port, room_id
        self.left: dict[str, float] = {}
        self.heartbeats: list[float] = []
        self._socket: Socket | None = None

    async def join(self) -> None:
        """Connect and join."""
        self._socket = await Socket.open(self._port, self._on_message)
        await self._socket.ask({"type": "join_room", "roomId": self.room_id, "userId": "watcher"})

    async def beat(self, ended: asyncio.Event) -> None:
        """Send heartbeats until `ended` is set, and note how long each took (s)."""
        await asyncio.sleep(random.uniform(0, HEARTBEAT_EVERY))
        while self._socket is not None and not ended.is_set():
            began = time.perf_counter()
            await self._socket.ask({"type": "room:heartbeat"})
            self.heartbeats.append(time.perf_counter() - began)
            await asyncio.sleep(HEARTBEAT_EVERY)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()

    def _on_message(self, message: dict[str, Any], at: float) -> None:
        if message["type"] == "room:diff":
            for left in message["left"]:
                self.left[left["userId"]] = at


class _Rate:
    """Members of one rate."""

    def __init__(
        self, bench: Bench, members: IdleMembers, watchers: Sequence[Watcher], count: int, over: float
    ) -> None:
        self._bench, self._members, self._watchers = bench, members, watchers
        self._count, self._over = count, over

    async def measure(self, status: Any) -> dict[str, Any]:
        for watcher in self._watchers:
            watcher.left.clear()
        offset = (await measure_clock(self._bench.redis)).offset
        begin = time.time() + offset + _LEAD + self._count / _JOINS_A_SECOND
        deadlines = await self._join(begin, offset)
        first = begin - offset
        quiet = await self._beat_until(first - _MARGIN / 2)
        node_before, used, began = (await status())["cpu"], await cpu(self._bench.redis), time.time()
        busy = await self._beat_until(first + self._over + _PATIENCE)
        node_cpu = (await status())["cpu"] - node_before
        used, seconds = await cpu(self._bench.redis) - used, time.time() - began
        lates = [
            (watcher.left[user] + offset) * 1000 - deadline if user in watcher.left else math.inf
            for (watcher, user), deadline in deadlines.items()
        ]
        return {
            "pacemaker": figures_of(lates),
            "heartbeat_quiet": _delays(quiet), "heartbeat_busy": _delays(busy),
            "node_cpu_us": round(node_cpu / self._count * 1e6, 1),
            "redis_cpu_us": round(used / self._count * 1e6, 1), "seconds": round(seconds, 2),
        }  # fmt: skip

    async def _join(self, begin: float, offset: float) -> dict[tuple[Watcher, str], int]:
        """Join the members; return their deadlines by Redis's clock (ms)."""
        chance = random.Random(self._count)
        wanted = [begin + chance.random() * self._over for _ in range(self._count)]
        numbers = iter(range(self._count))
        deadlines: dict[tuple[Watcher, str], int] = {}

        async def join_some() -> None:
            for number in numbers:
                watcher = self._watchers[number % len(self._watchers)]
                place = Entry(watcher.room_id, f"u{number}")
                ttl = round((wanted[number] - offset - time.time() - _MARGIN) * 1000)
                reply = await self._members.store.join(
                    place, f"{self._members.node}.{number:x}", ttl=max(ttl, 1), username="", data=b""
                )
                assert isinstance(reply, Joined)
                deadlines[watcher, place.user_id] = round(wanted[number] * 1000)

        await asyncio.gather(*(join_some() for _ in range(_AT_ONCE)))
        # A join takes some time, so that it hits no instant: the TTL is extended to it, as by a heartbeat.
        await self._set_deadlines(deadlines)
        if time.time() + offset > begin - _MARGIN:
            raise ReactorError(f"{self._count:,} members were not joined in time: the machine is too busy")
        return deadlines

    async def _set_deadlines(self, deadlines: dict[tuple[Watcher, str], int]) -> None:
        items = list(deadlines.items())
        for start in range(0, len(items), 1000):
            pipe = self._bench.redis.pipeline(transaction=False)
            for (watcher, user), deadline in items[start : start + 1000]:
                pipe.pexpireat(self._members.store.keys.presence_key(Entry(watcher.room_id, user)), deadline)
            await pipe.execute()

    def _all_departed(self) -> bool:
        return sum(len(watcher.left) for watcher in self._watchers) >= self._count

    async def _beat_until(self, end: float) -> list[float]:
        """Send heartbeats until a time, or until all members have departed; return what each took."""
        for watcher in self._watchers:
            watcher.heartbeats.clear()
        ended = asyncio.Event()
        beating = [asyncio.create_task(watcher.beat(ended)) for watcher in self._watchers]
        while time.time() < end and not self._all_departed():  # noqa: ASYNC110 - clients only count
            await asyncio.sleep(0.05)
        # They end by themselves: one that is cancelled as its reply arrives would go on.
        ended.set()
        await asyncio.gather(*beating)
        return [delay for watcher in self._watchers for delay in watcher.heartbeats]


def _delays(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "count": len(seconds), "p50_ms": round(quantile(seconds, 0.5) * 1000, 1),
        "p99_ms": round(quantile(seconds, 0.99) * 1000, 1),
    }  # fmt: skip
