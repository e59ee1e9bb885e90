"""Probes: pairs of clients in a room. One sends no heartbeat; both record when they receive its departure.

The deadline is that of the presence key by Redis's clock: `joinedAt` in the snapshot plus the TTL in
`room:joined`. The other client sends heartbeats and stays.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from websockets.exceptions import WebSocketException

from reactor.errors import ReactorError
from scripts.benchmarks.timed_socket import Socket

HEARTBEATS_A_TTL = 3
QUIET = 0.03
"""Seconds around a deadline in which this process should do nothing else."""


@dataclass(frozen=True)
class Plan:
    """A planned probe: when it joins (seconds from the start), its room, and the room's TTL in seconds."""

    start: float
    room_id: str
    ttl: float


@dataclass
class Outcome:
    """The outcome of a probe. Times are seconds by the clock of this process; infinite: not received."""

    plan: Plan
    deadline: float = math.inf
    client_at: float = math.inf
    others_at: float = math.inf
    reason: str = ""
    failed: str = ""
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def client_late(self) -> float:
        """Return the milliseconds from the deadline to the client's own `room:force-leave`."""
        return (self.client_at - self.deadline) * 1000 if self.client_at < math.inf else math.inf

    def others_late(self) -> float:
        """Return the milliseconds from the deadline to the diff at the other member."""
        return (self.others_at - self.deadline) * 1000 if self.others_at < math.inf else math.inf

    def check_complete(self) -> None:
        """Mark the probe as complete if both clients were notified."""
        if self.client_at < math.inf and self.others_at < math.inf:
            self.complete.set()


def rule_of(ttl: float) -> dict[str, Any]:
    """Return the room rule for probes with this TTL."""
    return {"match": f"probe-{ttl:g}s-*", "ttl": ttl}


def plan_probes(count: int, ttls: Sequence[float], *, over: float, label: str) -> list[Plan]:
    """Spread `count` joins over `over` seconds with random TTLs, so that the deadlines are scattered."""
    chance = random.Random(f"{count} {label}")
    plans = []
    for number in range(count):
        ttl = chance.choice(ttls)
        start = (number + chance.random()) * over / count
        plans.append(Plan(start, f"probe-{ttl:g}s-{label}-{number}", ttl))
    return plans


class Probes:
    """Runs the probes of one mechanism; each ends at the latest `patience` seconds after its deadline."""

    def __init__(self, port: int, plans: Sequence[Plan], *, clock_offset: float, patience: float) -> None:
        self._port, self._offset, self._patience = port, clock_offset, patience
        self.outcomes = [Outcome(plan) for plan in plans]
        self.given_up = 0

    def delivered(self) -> int:
        """Count the probes whose silent client was notified."""
        return sum(outcome.client_at < math.inf for outcome in self.outcomes)

    def due(self) -> int:
        """Count the probes whose deadline has passed."""
        now = time.time()
        return sum(outcome.deadline < now for outcome in self.outcomes)

    def quiet(self) -> bool:
        """Return whether no deadline is near, so that other work disturbs no measurement."""
        now = time.time()
        return all(abs(outcome.deadline - now) > QUIET for outcome in self.outcomes)

    async def run(self) -> None:
        """Run all probes."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for outcome in self.outcomes:
                tasks.create_task(self._run(outcome, began))

    async def _run(self, outcome: Outcome, began: float) -> None:
        await asyncio.sleep(max(0.0, began + outcome.plan.start - time.monotonic()))
        sockets: list[Socket] = []
        try:
            await self._probe(outcome, sockets)
        except (ReactorError, OSError, TimeoutError, WebSocketException) as error:
            outcome.failed = str(error) or type(error).__name__
        finally:
            for socket in sockets:
                socket.close()

    async def _probe(self, outcome: Outcome, sockets: list[Socket]) -> None:
        room_id = outcome.plan.room_id

        def on_probe_message(message: dict[str, Any], at: float) -> None:
            if message["type"] == "room:force-leave" and message["roomId"] == room_id:
                outcome.client_at, outcome.reason = at, message["reason"]
                outcome.check_complete()

        def on_other_message(message: dict[str, Any], at: float) -> None:
            if message["type"] == "room:diff" and any(one["userId"] == "probe" for one in message["left"]):
                outcome.others_at = at
                outcome.check_complete()
            elif message["type"] == "room:force-leave":
                outcome.failed = "the other member was removed, too"

        other = await Socket.open(self._port, on_other_message)
        sockets.append(other)
        await other.ask({"type": "join_room", "roomId": room_id, "userId": "other"})
        probe = await Socket.open(self._port, on_probe_message)
        sockets.append(probe)
        joined = await probe.ask({"type": "join_room", "roomId": room_id, "userId": "probe"})
        (joined_at,) = (one["joinedAt"] for one in joined["members"] if one["userId"] == "probe")
        outcome.deadline = (joined_at + joined["ttl"]) / 1000 - self._offset
        await self._wait(outcome, other)
        if not outcome.failed:
            await other.ask({"type": "leave_room", "roomId": room_id})

    async def _wait(self, outcome: Outcome, other: Socket) -> None:
        """Send heartbeats for the other member until both clients were notified or the patience is over."""
        end = outcome.deadline + self._patience
        while (left := end - time.time()) > 0 and not outcome.failed:
            with anyio.move_on_after(min(outcome.plan.ttl / HEARTBEATS_A_TTL, left)):
                await outcome.complete.wait()
                return
            other.send({"type": "room:heartbeat"})
        self.given_up += 1
