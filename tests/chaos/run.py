"""One schedule from its beginning to the oracle's word on it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.chaos import oracle, schedule, state
from tests.chaos.faults import Fault
from tests.chaos.history import Finding, History
from tests.chaos.line import Line
from tests.chaos.nodes import NodeProcess
from tests.chaos.person import BEAT_EVERY, Person
from tests.chaos.rest import at_rest
from tests.chaos.schedule import Schedule
from tests.chaos.shapes import Sets
from tests.chaos.world import World, aside

REST_WITHIN = 25.0
"""Seconds in which all must have healed. The longest is an outage's hold, a TTL, a grace and a sweep."""
GONE_WITHIN = 20.0
LEAKS_GONE_WITHIN = 12.0
"""Client sockets that were half open are found out by pings."""
LOOK_EVERY = 0.3
TRUE_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a schedule. `healed` is the seconds from the last fault until all was right."""

    seed: int
    shape: str
    kind: str
    faults: tuple[str, ...]
    title: str
    people: int
    sockets: int
    departures: int
    healed: float
    seconds: float
    findings: tuple[Finding, ...]


async def play(plan: Schedule, sets: Sets, tree: Path) -> Outcome:
    """Play a schedule on servers of its shape."""
    began = time.monotonic()
    fleet = await aside(sets.get, plan.shape, plan.kind)
    ttls = {
        room: int((schedule.BRIEF if room.startswith("brief") else schedule.TTL) * 1000)
        for room in schedule.ROOMS
    }
    history = History(int(schedule.GRACE * 1000), int(schedule.LEASE * 1000), ttls)
    flags: dict[str, Any] = {
        "port": 0, "ttl": schedule.TTL, "grace": schedule.GRACE, "lease": schedule.LEASE,
        "sweep-interval": schedule.SWEEP, "diff-window": plan.diff_window, "drain-seconds": 0.6,
        "ping-interval": 1, "ping-timeout": 2, "log-format": "json",
        "heartbeat-interval": BEAT_EVERY, "max-per-address": 0, "new-per-second": 0, "messages-per-second": 0,
    }  # fmt: skip
    async with World.make(
        fleet, plan.shape, history, tree=tree, nodes=plan.nodes, flags=flags, brief=schedule.BRIEF,
        skews=list(plan.skews),
    ) as world:  # fmt: skip
        stage = _Stage(plan, world)
        try:
            findings = await stage.play()
        finally:
            await stage.clear()
        return Outcome(
            plan.seed, plan.shape, plan.kind, tuple(fault.name for fault in plan.faults), plan.title,
            len(plan.scripts), stage.sockets, stage.departures, stage.healed,
            time.monotonic() - began, tuple(findings),
        )  # fmt: skip


class _Stage:
    """The people of one schedule, and the acts: trouble, healing, leaving, stopping."""

    def __init__(self, plan: Schedule, world: World) -> None:
        self._plan, self._world, self._history = plan, world, world.history
        self._over = asyncio.Event()
        self._lives: list[asyncio.Task[None]] = []
        self._least: dict[str, dict[str, int]] = {}
        self.healed = 0.0
        self.departures = 0
        world.people = [Person(script, world.history, world) for script in plan.scripts]

    @property
    def sockets(self) -> int:
        return sum(person.sockets for person in self._world.people)

    async def play(self) -> list[Finding]:
        self._lives = [asyncio.create_task(person.live(self._over)) for person in self._world.people]
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._strike(fault, began) for fault in self._plan.faults))
        await asyncio.sleep(max(0.0, began + schedule.UNTIL + 1.2 - asyncio.get_running_loop().time()))
        await aside(self._world.fleet.wait_whole)
        struck = time.monotonic()
        unhealed = await self._until_none(self._unrest, REST_WITHIN)
        self.healed = time.monotonic() - struck
        found = [*unhealed, *await self._until_none(self._untrue, TRUE_WITHIN)]
        if found:
            return [*found, self._nodes_said()]
        found = await self._leave()
        return [*found, self._nodes_said()] if found else []

    async def _strike(self, fault: Fault, began: float) -> None:
        await asyncio.sleep(max(0.0, began + fault.blow.at - asyncio.get_running_loop().time()))
        await fault.strike(self._world)

    async def _untrue(self) -> list[Finding]:
        """What must not have been; a second look tells it from what happened while this one was taken."""
        for node in self._world.all_nodes:
            node.note_gaps()
        await self._world.note_takeover()
        return oracle.past(self._history, await self._read())

    async def _read(self) -> state.State:
        while True:
            try:
                return await aside(state.read, self._world.fleet)
            except redis.RedisError:
                await asyncio.sleep(LOOK_EVERY)

    def _lines(self) -> list[Line]:
        return [person.line for person in self._world.people if person.line is not None]

    async def _unrest(self) -> list[Finding]:
        """What is not as it should be yet."""
        found = at_rest(self._lines(), await self._read())
        return found or [
            Finding("lost", f"{person.script.name} could not come back", person.last_heard)
            for person in self._world.people
            if person.waits
        ]

    async def _until_none(
        self, look: Callable[[], Awaitable[list[Finding]]], patience: float
    ) -> list[Finding]:
        """Look again and again until nothing is found twice in a row; what is left when patience ends.

        A look takes its time, and some of what it reads may be over by then: what is left was seen twice.
        """
        deadline, clean = time.monotonic() + patience, 0
        before: set[tuple[str, str]] = set()
        while True:
            found = await look()
            clean = 0 if found else clean + 1
            lasting = [finding for finding in found if (finding.rule, finding.text) in before]
            if clean == 2 or (lasting and time.monotonic() > deadline):
                return lasting
            if found and time.monotonic() > deadline + patience:
                return found
            before = {(finding.rule, finding.text) for finding in found}
            await asyncio.sleep(LOOK_EVERY)

    async def _leave(self) -> list[Finding]:
        """Everybody goes, a third each by word, by closing handshake and without either."""
        self._over.set()
        await asyncio.gather(*self._lives)
        people = self._world.people
        for i, person in enumerate(people):
            person.leave(("leave", "close", "drop")[i % 3])
        found = await self._until_none(self._still_there, GONE_WITHIN)
        for person in people:
            person.discard()
        if found:
            return found
        found = await self._until_none(self._untrue, TRUE_WITHIN)
        held = await self._read()
        self.departures = len(held.departures)
        if sum(held.totals.values()) < self.departures:
            found.append(Finding("record", f"{self.departures} departures on record, totals {held.totals}"))
        found += await self._until_none(self._leaks, LEAKS_GONE_WITHIN)
        found += await self._until_none(self._unregistered, GONE_WITHIN)
        return found + await self._stop()

    async def _still_there(self) -> list[Finding]:
        held = await self._read()
        return [
            Finding("ghost", f"everybody has gone, and {room} has {sorted(users)[:5]}")
            for holds in (held.members, held.rows, held.shadows)
            for room, users in holds.items()
            if users
        ]

    async def _least_of(self, node: NodeProcess) -> dict[str, int]:
        """The least that a node had of each thing in any look so far: what only passes by is no leak."""
        now = await node.look()
        before = self._least.get(node.life.name, now)
        least = {what: min(number, before.get(what, 0)) for what, number in now.items()}
        self._least[node.life.name] = least
        return least

    async def _leaks(self) -> list[Finding]:
        fleet = self._world.fleet
        servers = len([*fleet.servers, *getattr(fleet, "sentinels", ())])  # those are asked for the way
        # All are alike; one that came up while Redis was away may have begun with less.
        base: dict[str, int] = {}
        for node in self._world.all_nodes:
            base |= {what: max(number, base.get(what, 0)) for what, number in node.base.items()}
        return [
            finding
            for node in self._world.nodes
            for finding in oracle.leaks(node.life.name, base, await self._least_of(node), servers)
        ]

    async def _unregistered(self) -> list[Finding]:
        """Nodes that were killed are judged lost, and forgotten."""
        held, there = await self._read(), len(self._world.nodes)
        if len(held.registry) == there:
            return []
        return [Finding("leftover", f"{len(held.registry)} nodes are registered, and {there} are there")]

    async def _stop(self) -> list[Finding]:
        nodes = self._world.nodes
        in_order = await asyncio.gather(*(node.stop() for node in nodes))
        found = [
            Finding("leak", f"{node.life.name} ended with {node.exit_code}", tuple(node.log[-8:]))
            for node, well in zip(nodes, in_order, strict=True)
            if not well
        ]
        found += [
            Finding("leak", f"{node.life.name} tells of a mistake", tuple(mistakes[-20:]))
            for node in self._world.all_nodes
            if (mistakes := node.mistakes())
        ]
        return found + oracle.after(await self._read())

    def _nodes_said(self) -> Finding:
        """The end of each node's log, for whoever looks into a finding."""
        lines = [f"{node.life.name}: {line}" for node in self._world.all_nodes for line in node.log[-400:]]
        return Finding("log", "what the nodes said", tuple(lines))

    async def clear(self) -> None:
        self._over.set()
        for task in self._lives:
            task.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        for person in self._world.people:
            person.discard()


def by_fault(outcomes: list[Outcome]) -> dict[str, tuple[int, int, int]]:
    """For each fault: schedules with it, those of them with findings, departures in them."""
    struck, bad, departures = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        for name in set(outcome.faults):
            struck[name] += 1
            bad[name] += bool(outcome.findings)
            departures[name] += outcome.departures
    return {name: (struck[name], bad[name], departures[name]) for name in sorted(struck)}
