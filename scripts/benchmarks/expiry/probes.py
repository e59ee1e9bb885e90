"""Probes: pairs of real clients in a room. One falls silent, and both note when they hear of its end.

The deadline is the one of the presence key, by Redis's clock: the joining (`joinedAt` in the room's snapshot)
plus the TTL that the server named. A probe never sends a heartbeat; the other member does, and watches.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from reactor.errors import ReactorError
from scripts.benchmarks.timed_socket import Socket

BEATS_A_TTL = 3
QUIET = 0.03
"""Seconds around a deadline in which nothing else is to happen in this process."""


@dataclass(frozen=True)
class Plan:
    """One probe: when it joins (s from the start), the room it joins, and that room's TTL (s)."""

    start: float
    room_id: str
    ttl: float


@dataclass
class Outcome:
    """What became of a probe. Times are seconds by this process's clock; infinite: not heard."""

    plan: Plan
    deadline: float = math.inf
    client_at: float = math.inf
    others_at: float = math.inf
    reason: str = ""
    failed: str = ""
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def client_late(self) -> float:
        """Give the time from the deadline to the client's own `room:force-leave` (ms)."""
        return (self.client_at - self.deadline) * 1000 if self.client_at < math.inf else math.inf

    def others_late(self) -> float:
        """Give the time from the deadline to the other member's diff (ms)."""
        return (self.others_at - self.deadline) * 1000 if self.others_at < math.inf else math.inf

    def see(self) -> None:
        """Note that both have heard, when they have."""
        if self.client_at < math.inf and self.others_at < math.inf:
            self.complete.set()


def rule_of(ttl: float) -> dict[str, Any]:
    """Give the rule for the rooms of the probes with this TTL."""
    return {"match": f"probe-{ttl:g}s-*", "ttl": ttl}


def plan_probes(count: int, ttls: Sequence[float], *, over: float, label: str) -> list[Plan]:
    """Spread `count` joins over `over` seconds, with TTLs by chance, so that the deadlines lie scattered."""
    chance = random.Random(f"{count} {label}")
    plans = []
    for number in range(count):
        ttl = chance.choice(ttls)
        start = (number + chance.random()) * over / count
        plans.append(Plan(start, f"probe-{ttl:g}s-{label}-{number}", ttl))
    return plans


class Probes:
    """Runs the probes of one way, and gives each up `patience` seconds after its deadline."""

    def __init__(self, port: int, plans: Sequence[Plan], *, clock_offset: float, patience: float) -> None:
        self._port, self._offset, self._patience = port, clock_offset, patience
        self.outcomes = [Outcome(plan) for plan in plans]
        self.given_up = 0

    def delivered(self) -> int:
        """Count the probes whose client has heard."""
        return sum(outcome.client_at < math.inf for outcome in self.outcomes)

    def due(self) -> int:
        """Count the probes whose deadline has passed."""
        now = time.time()
        return sum(outcome.deadline < now for outcome in self.outcomes)

    def quiet(self) -> bool:
        """Say whether no deadline is near, so that other work disturbs no measurement."""
        now = time.time()
        return all(abs(outcome.deadline - now) > QUIET for outcome in self.outcomes)

    async def run(self) -> None:
        """Run all of them to their end."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for outcome in self.outcomes:
                tasks.create_task(self._run(outcome, began))

    async def _run(self, outcome: Outcome, began: float) -> None:
        await asyncio.sleep(max(0.0, began + outcome.plan.start - time.monotonic()))
        sockets: list[Socket] = []
        try:
            await self._probe(outcome, sockets)
        except (ReactorError, OSError, TimeoutError) as error:
            outcome.failed = str(error) or type(error).__name__
        finally:
            for socket in sockets:
                socket.close()

    async def _probe(self, outcome: Outcome, sockets: list[Socket]) -> None:
        room_id = outcome.plan.room_id

        def probe_heard(message: dict[str, Any], at: float) -> None:
            if message["type"] == "room:force-leave" and message["roomId"] == room_id:
                outcome.client_at, outcome.reason = at, message["reason"]
                outcome.see()

        def other_heard(message: dict[str, Any], at: float) -> None:
            if message["type"] == "room:diff" and any(one["userId"] == "probe" for one in message["left"]):
                outcome.others_at = at
                outcome.see()
            elif message["type"] == "room:force-leave":
                outcome.failed = "the other member was put out too"

        other = await Socket.open(self._port, other_heard)
        sockets.append(other)
        await other.ask({"type": "join_room", "roomId": room_id, "userId": "other"})
        probe = await Socket.open(self._port, probe_heard)
        sockets.append(probe)
        joined = await probe.ask({"type": "join_room", "roomId": room_id, "userId": "probe"})
        (joined_at,) = (one["joinedAt"] for one in joined["members"] if one["userId"] == "probe")
        outcome.deadline = (joined_at + joined["ttl"]) / 1000 - self._offset
        await self._wait(outcome, other)
        if not outcome.failed:
            await other.ask({"type": "leave_room", "roomId": room_id})

    async def _wait(self, outcome: Outcome, other: Socket) -> None:
        """Keep the other member alive until both have heard, or for as long as there is patience."""
        end = outcome.deadline + self._patience
        while (left := end - time.time()) > 0 and not outcome.failed:
            with anyio.move_on_after(min(outcome.plan.ttl / BEATS_A_TTL, left)):
                await outcome.complete.wait()
                return
            other.say({"type": "room:heartbeat"})
        self.given_up += 1
