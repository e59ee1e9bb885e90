"""Closes many sockets, each in many rooms, at the same instant, and follows the departures."""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from reactor.errors import ReactorError
from scripts.benchmarks.child import ask, child_process
from scripts.benchmarks.counters import cpu
from scripts.benchmarks.ends.transitions import LIMITS, until_leading
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.running import ROOT
from scripts.benchmarks.server import Bench
from scripts.benchmarks.timed_socket import Socket

WATCHED = 50
"""Rooms that the observer is in."""
PATIENCE = 120.0
"""Seconds after the end of the grace in which the departures have to be made."""
EVENTS = (
    "redis_away", "expiry_suspended", "node_lost", "node_renamed", "redis_queue_full",
    "channels_disconnected", "expired_events_disconnected", "room_resync",
)  # fmt: skip
"""Log events that show that the node misjudged Redis."""
_IN_FLIGHT = 64


async def measure_drop(
    bench: Bench, sockets: int, rooms: int, sharing: int, grace: float, tree: Path | None = None
) -> dict[str, Any]:
    """Drop `sockets` sockets that are in `rooms` rooms each; `sharing` of them are in the same rooms."""
    settings = {"redis_url": bench.url, "namespace": bench.namespace, "port": 0, "grace": grace, **LIMITS}
    command = (sys.executable, "-m", "scripts.benchmarks.node", json.dumps(settings))
    async with child_process(command, cwd=tree or ROOT) as (process, port):
        await until_leading(process)
        members = await _join_all(port, sockets, rooms, sharing)
        observer = await Observer.begin(port, max(1, sockets // sharing))
        before, used, total = await ask(process), await cpu(bench.redis), sockets * rooms
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(observer.send_heartbeats)
            dropped = time.monotonic()
            for member in members:
                member.close()
            made, first, last, detached = await _follow(process, total, grace + PATIENCE)
            spent = await cpu(bench.redis) - used
            with anyio.move_on_after(30.0):
                while len(observer.notified) < sharing * len(observer.rooms):  # noqa: ASYNC110 - a protocol's list
                    await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
        after = await ask(process)
        log = await anyio.Path(f"/proc/{process.pid}/fd/2").read_text()
    found = re.findall(r"\b(" + "|".join(EVENTS) + r")\b", log)
    beats = observer.beats
    return {
        "memberships": total, "departures": made, "grace_s": grace, "detached_s": round(detached, 1),
        "first_departure_s": round(first, 1), "last_departure_s": round(last, 1),
        "from_the_end_of_the_grace_to_the_last_s": round(last - grace, 1),
        "observer_notified_of": len(observer.notified), "of": sharing * len(observer.rooms),
        "observer_last_notified_s": round(max(observer.notified, default=float("inf")) - dropped, 1),
        "heartbeat_ms": {
            "p50": round(quantile(beats, 0.5) * 1000), "p99": round(quantile(beats, 0.99) * 1000),
            "max": round(max(beats, default=0.0) * 1000), "failed": observer.failed,
        },
        "log_events": {name: found.count(name) for name in EVENTS if name in found},
        "redis_cpu_s": round(spent, 1), "redis_cpu_us_a_membership": round(spent / total * 1e6),
        "node_cpu_s": round(after["cpu"] - before["cpu"], 1),
    }  # fmt: skip


async def _follow(
    process: asyncio.subprocess.Process, total: int, patience: float
) -> tuple[int, float, float, float]:
    """Return the departures made, and the seconds until the first, the last, and the last detach."""
    began, made = time.monotonic(), 0
    first = last = detached = float("inf")
    with anyio.move_on_after(patience):
        while made < total:
            status = await ask(process)
            made, now = sum(status["found_by"].values()), time.monotonic() - began
            first = min(first, now) if made else first
            last = now
            if status["connections"] <= 1 and not status.get("detaching", 1):
                detached = min(detached, now)
            await anyio.sleep(0.1)
    return made, first, last, detached


class Observer:
    """A client in some of the rooms that keeps what it is notified of, and how long its heartbeats take."""

    def __init__(self, groups: int) -> None:
        a_group = max(1, WATCHED // groups)
        self.rooms = [f"room-{group}-{n}" for group in range(groups) for n in range(a_group)]
        self._socket: Socket
        self.notified: list[float] = []
        self.beats: list[float] = []
        self.failed = 0

    @classmethod
    async def begin(cls, port: int, groups: int) -> "Observer":
        """Join some rooms of each group of sockets."""
        self = cls(groups)
        self._socket = await Socket.open(port, self._on_message)
        for room in self.rooms:
            await self._socket.ask({"type": "join_room", "roomId": room, "userId": "observer"})
        return self

    async def send_heartbeats(self) -> None:
        """Send a heartbeat every 0.2 s until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self._socket.ask({"type": "room:heartbeat"})
            except (ReactorError, TimeoutError):
                self.failed += 1
            self.beats.append(time.monotonic() - began)
            await anyio.sleep(0.2)

    def _on_message(self, message: dict[str, Any], _at: float) -> None:
        if message["type"] == "room:diff":
            self.notified.extend([time.monotonic()] * len(message["left"]))


async def _join_all(port: int, sockets: int, rooms: int, sharing: int) -> list[Socket]:
    members = [await Socket.open(port, lambda _message, _at: None) for _ in range(sockets)]
    jobs = iter([(number, room) for room in range(rooms) for number in range(sockets)])

    async def work() -> None:
        for number, room in jobs:
            place = {"roomId": f"room-{number // sharing}-{room}", "userId": f"user-{number}"}
            await members[number].ask({"type": "join_room", **place})

    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return members
