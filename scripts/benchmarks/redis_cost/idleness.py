"""Measures idle systems: what an idle room publishes, and what the pacemaker of many members costs."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

import anyio
from redis.asyncio import Redis

from reactor.backend.clients import pubsub_client
from reactor.backend.target import parse_url
from reactor.presence.heartbeats import MAX_MEMBERS
from reactor.presence.keys import suffix
from scripts.benchmarks.counters import commands, cpu
from scripts.benchmarks.idle_members import IdleMembers, entry, idle_members
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.server import Bench
from scripts.benchmarks.timed_socket import Socket

DESIGN_TTL = 6 * 3600


async def measure_silence(bench: Bench, members: int, period: float) -> dict[str, Any]:
    """Send heartbeats from `members` clients in one room for two periods; count the published messages."""
    settings = {
        "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "heartbeat_interval": 10 * period,
        "drain_seconds": 0,
    }  # fmt: skip
    on_message: Counter[str] = Counter()
    sockets: list[Socket] = []
    async with node_process(settings) as node, pubsub_client(parse_url(bench.url)) as pubsub:
        await node.wait_until_settled(sweeps=1, leading=True)
        for number in range(members):
            sockets.append(
                await Socket.open(node.port, lambda message, _: on_message.update([message["type"]]))
            )
            await sockets[-1].ask({"type": "join_room", "roomId": "silent", "userId": number})
        await anyio.sleep(0.5)
        on_message.clear()
        before = await commands(bench.redis)
        published = asyncio.create_task(_published(pubsub, bench.namespace, 2 * period))
        acknowledged = await asyncio.gather(*(_beat(socket, period) for socket in sockets))
        published_to_us = await published
        done = await commands(bench.redis) - before
        for socket in sockets:
            socket.close()
    return {
        "members": members, "period": period, "heartbeats": sum(acknowledged),
        "publish_commands": done["publish"] + done["spublish"], "messages_published": published_to_us,
        "messages_to_clients": dict(on_message), "index_writes": done["zadd"] + done["sadd"],
    }  # fmt: skip


async def _beat(socket: Socket, period: float) -> int:
    for heartbeat in range(2):
        await anyio.sleep(period * (random.random() if heartbeat == 0 else 1))
        await socket.ask({"type": "room:heartbeat"})
    return 2


async def _published(redis: Redis, namespace: str, seconds: float) -> int:
    """Return the number of messages on the channels of the namespace."""
    count = 0
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe(f"{{{namespace}:*")
        with anyio.move_on_after(seconds):
            async for message in pubsub.listen():
                count += message["type"] == "pmessage"
    return count


class IdleHeartbeats:
    """Heartbeats of all idle members, each every `period` seconds, in the batches that a node makes."""

    def __init__(self, idle: IdleMembers, members: int, *, ttl: int, period: float) -> None:
        self._idle, self._period = idle, period
        self._batches: list[tuple[int, list[tuple[str, int]]]] = []
        by_shard: dict[int, list[str]] = {}
        for number in range(members):
            one = entry(number, 50)
            by_shard.setdefault(idle.store.keys.shard_of(one.room_id), []).append(suffix(one))
        for shard, names in by_shard.items():
            for start in range(0, len(names), MAX_MEMBERS):
                self._batches.append((shard, [(name, ttl) for name in names[start : start + MAX_MEMBERS]]))
        random.Random(1).shuffle(self._batches)
        self.sent = 0
        self.lost = 0
        self.rounds = 0

    async def serve(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            began = monotonic()
            for number, (shard, members) in enumerate(self._batches):
                await anyio.sleep(max(0.0, began + self._period * number / len(self._batches) - monotonic()))
                *_, alive = await self._idle.store.refresh(shard, self._idle.node, members)
                self.sent += len(members)
                self.lost += alive.count(b"0")
            self.rounds += 1
            await anyio.sleep(max(0.0, began + self._period - monotonic()))


@dataclass(frozen=True)
class Moving:
    """Members whose deadlines keep moving: their number, their TTL in seconds, and the seconds to measure."""

    members: int
    ttl: float
    seconds: float

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `MEMBERS:TTL:SECONDS`."""
        members, ttl, seconds = text.split(":")
        return cls(int(members), float(ttl), float(seconds))


async def measure_pacemaker(
    bench: Bench, moving: Moving, *, heartbeat: float, baseline: float, show: Callable[[str], None]
) -> dict[str, Any]:
    """Let stored deadlines come due while heartbeats move the true ones.

    They are noted evenly spread over one TTL, as if all had joined at different times; each member beats
    every `heartbeat` seconds. Processor time is measured for `baseline` seconds with the pacemaker off, then
    with it on; over one whole TTL every deadline comes due.
    """
    members, ttl = moving.members, moving.ttl
    chance = random.Random(1)
    began = monotonic()
    # The first deadline comes after the loading, a round of heartbeats, and the baseline.
    margin = members / 4000 + 2 * heartbeat + baseline + 3
    settings = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, "sweep_interval": 0}
    async with idle_members(bench) as idle:

        def first_ttl(_number: int) -> int:
            left = margin + chance.random() * ttl - (monotonic() - began)
            return round(max(left, 2 * heartbeat) * 1000)

        await idle.load(members, 50, first_ttl, tick=lambda loaded: show(f"entering {loaded:,}"))
        heartbeats = IdleHeartbeats(idle, members, ttl=round(ttl * 1000), period=heartbeat)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heartbeats.serve)
            show("heartbeats, without the pacemaker")
            async with node_process({**settings, "pacemaker": False}) as node:
                await node.wait_until_settled(sweeps=1, leading=False)
                without = await _use(bench, node, heartbeats, baseline)
            async with node_process(settings) as node:
                await node.wait_until_settled(sweeps=1, leading=True)
                await anyio.sleep(max(0.0, margin - (monotonic() - began)))
                show("heartbeats, with the pacemaker")
                within = await _use(bench, node, heartbeats, moving.seconds)
            tasks.cancel_scope.cancel()
    return _figures(members, ttl, without, within, heartbeats)


async def _use(
    bench: Bench, node: NodeProcess, heartbeats: IdleHeartbeats, seconds: float
) -> dict[str, float]:
    """Return the activity of Redis and the node over some seconds, per second."""

    async def now() -> dict[str, float]:
        status = await node.status()
        return {
            "redis": await cpu(bench.redis), "node": status["cpu"], "scans": status["scans"],
            "moved": status["moved"], "departed": sum(status["found_by"].values()), "beats": heartbeats.sent,
        }  # fmt: skip

    before, began = await now(), monotonic()
    await anyio.sleep(seconds)
    after, taken = await now(), monotonic() - began
    return {name: (after[name] - before[name]) / taken for name in after} | {"seconds": taken}


def _figures(
    members: int, ttl: float, without: dict[str, float], within: dict[str, float], heartbeats: IdleHeartbeats
) -> dict[str, Any]:
    moved, rate = within["moved"], members / DESIGN_TTL
    share = {part: within[part] - without[part] for part in ("redis", "node")}
    each = {part: used / moved for part, used in share.items()}
    return {
        "members": members, "ttl": ttl, "seconds": round(within["seconds"], 1),
        "heartbeats_a_second": round(within["beats"]), "lost_members": heartbeats.lost,
        "scans_a_second": round(within["scans"], 1),
        "deadlines_moved_a_second": round(moved, 1), "deadlines_moved": round(moved * within["seconds"]),
        "core_share": {part: round(used, 5) for part, used in share.items()},
        "core_share_without_pacemaker": {part: round(without[part], 5) for part in share},
        "us_a_moved_deadline": {part: round(used * 1e6, 2) for part, used in each.items()},
        "core_share_at_six_hours": {part: round(rate * used, 6) for part, used in each.items()},
        "deadlines_moved_a_second_at_six_hours": round(rate, 1),
    }  # fmt: skip
