"""Runs one schedule: faults, convergence, departure of all clients, stop of the nodes; then the checks."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tests.chaos import oracle, schedule, state
from tests.chaos.client import HEARTBEAT_EVERY, ScriptedClient
from tests.chaos.client_socket import ClientSocket
from tests.chaos.convergence import not_converged, sockets_by_room
from tests.chaos.faults import Fault
from tests.chaos.history import Finding, History, now_ms
from tests.chaos.moderator import Moderator
from tests.chaos.nodes import NodeProcess
from tests.chaos.observers import Observer
from tests.chaos.people import Watchers
from tests.chaos.schedule import Schedule
from tests.chaos.shapes import SHAPES
from tests.chaos.world import World, in_thread
from tests.support.server_sets import RunningSets
from tests.support.signing import SECRET

CONVERGED_WITHIN = 25.0
"""Seconds after the faults in which the state must be correct. The longest case is an expiry that was
suspended by an outage, then a TTL, a grace and a sweep."""
GONE_WITHIN = 20.0
LEAKS_GONE_WITHIN = 12.0
"""Nodes detect half-open client sockets by pings."""
CHECK_EVERY = 0.3
PAST_WITHIN = 2.0
TICK = 0.2
STALL = 1000
"""Milliseconds that count as a stall of the clients: a silent one is pinged after as many."""
MIN_CHECKS = 4  # a check of a busy machine may take longer than all the patience


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a schedule. recovered: seconds from the last fault until the state was correct."""

    seed: int
    shape: str
    kind: str
    faults: tuple[str, ...]
    title: str
    clients: int
    sockets: int
    departures: int
    recovered: float
    seconds: float
    findings: tuple[Finding, ...]


async def run_schedule(plan: Schedule, sets: RunningSets, tree: Path) -> Outcome:
    """Run a schedule on servers of its shape."""
    began = time.monotonic()
    fleet = await in_thread(sets.get, SHAPES[plan.shape], plan.kind)
    ttls = {
        room: int((schedule.BRIEF if room.startswith("brief") else schedule.TTL) * 1000)
        for room in schedule.ROOMS
    }
    history = History(int(schedule.GRACE * 1000), int(schedule.LEASE * 1000), ttls)
    flags: dict[str, Any] = {
        "port": 0, "ttl": schedule.TTL, "grace": schedule.GRACE, "away-grace": schedule.GRACE,
        "lease": schedule.LEASE, "sweep-interval": schedule.SWEEP, "diff-window": plan.diff_window,
        "drain-seconds": 0.6,
        "ping-interval": 1, "ping-timeout": 2, "log-format": "json",
        "heartbeat-interval": HEARTBEAT_EVERY, "max-per-address": 0, "new-per-second": 0,
        "messages-per-second": 0,
    }  # fmt: skip
    if plan.tokens:
        flags["auth-secret"] = SECRET
    async with World.make(
        fleet, plan.shape, history, tree=tree, nodes=plan.nodes, flags=flags, brief=schedule.BRIEF,
        skews=list(plan.skews),
    ) as world:  # fmt: skip
        running = _Run(plan, world)
        try:
            findings = await running.run_schedule()
        finally:
            await running.clear()
        return Outcome(
            plan.seed, plan.shape, plan.kind, tuple(fault.name for fault in plan.faults), plan.title,
            len(plan.scripts), running.sockets, running.departures, running.recovered,
            time.monotonic() - began, tuple(findings),
        )  # fmt: skip


async def _note_stalls(history: History) -> None:
    """Record when this process, in which all clients run, was too busy to run them."""
    before = now_ms()
    while True:
        await asyncio.sleep(TICK)
        now = now_ms()
        if now - before > STALL:
            history.stalls.append([before, now])
        before = now


class _Run:
    """The clients of one schedule, and its phases: faults, convergence, departures, stop."""

    def __init__(self, plan: Schedule, world: World) -> None:
        self._plan, self._world, self._history = plan, world, world.history
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch = asyncio.create_task(_note_stalls(self._history))
        self._least: dict[str, dict[str, int]] = {}
        self.recovered = 0.0
        self.departures = 0
        self._bans = world.bans
        self._bans.proves_users = plan.tokens
        world.clients = [ScriptedClient(script, world.history, world, self._bans) for script in plan.scripts]
        self._observers = [
            Observer(watching, schedule.ROOMS, world.history, self._bans, world)
            for watching in plan.observers
        ]
        self._moderator = Moderator(plan.bans, self._bans, world.fleet.url)
        users = [script.user for script in plan.scripts]
        self._watchers = Watchers(
            users,
            self._history,
            world,
            world.fleet.url,
            sweep=schedule.SWEEP,
            seed=plan.seed,
            headers=self._bans.headers_of,
        )

    @property
    def sockets(self) -> int:
        return sum(client.sockets for client in self._world.clients)

    async def run_schedule(self) -> list[Finding]:
        self._tasks = [asyncio.create_task(client.live(self._over)) for client in self._world.clients]
        self._watchers.start()
        self._tasks += [asyncio.create_task(one.live(self._over)) for one in self._observers]
        moderation = asyncio.create_task(self._moderator.live(self._over))
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._inject(fault, began) for fault in self._plan.faults))
        await asyncio.sleep(max(0.0, began + schedule.UNTIL + 1.2 - asyncio.get_running_loop().time()))
        await in_thread(self._world.fleet.wait_whole)
        await moderation
        injected = time.monotonic()
        unrecovered = await self._until_none(self._not_converged, CONVERGED_WITHIN)
        self.recovered = time.monotonic() - injected
        found = [*unrecovered, *await self._until_none(self._past_violations, PAST_WITHIN)]
        if found:
            return [*found, self._node_logs()]
        found = await self._leave()
        return [*found, self._node_logs()] if found else []

    async def _inject(self, fault: Fault, began: float) -> None:
        await asyncio.sleep(max(0.0, began + fault.timing.at - asyncio.get_running_loop().time()))
        await fault.inject(self._world)

    async def _past_violations(self) -> list[Finding]:
        """Violations in the record so far. A second call rules out changes during the first one."""
        for node in self._world.all_nodes:
            node.note_stalls()
        await self._world.note_takeover()
        stored = await self._read(changes=True)
        return [
            *oracle.past(self._history, stored),
            *self._watchers.past(stored),
            *self._bans.past(stored),
        ]

    async def _read(self, *, changes: bool = False) -> state.State:
        while True:
            try:
                return await in_thread(partial(state.read, self._world.fleet, changes=changes))
            except redis.RedisError:
                await asyncio.sleep(CHECK_EVERY)

    def _sockets(self) -> list[ClientSocket]:
        return [client.socket for client in self._world.clients if client.socket is not None]

    async def _not_converged(self) -> list[Finding]:
        """The differences that remain between the clients' views and Redis."""
        for task in self._tasks:
            if task.done() and not self._over.is_set():
                task.result()  # a client whose script failed would look like one that could not return
        sockets, stored = self._sockets(), await self._read()
        found = [*not_converged(sockets, stored), *self._watchers.not_converged(stored)]
        found += self._bans.not_quiet(sockets, stored)
        inside = sockets_by_room(sockets)
        for observer in self._observers:
            found += observer.differences(inside, stored)
        return found or [
            Finding("lost", f"{client.script.name} could not return to its rooms", client.last_heard)
            for client in self._world.clients
            if client.waits
        ]

    async def _until_none(
        self, check: Callable[[], Awaitable[list[Finding]]], patience: float
    ) -> list[Finding]:
        """Check until two checks in a row find nothing; return what is left after `patience` seconds.

        State changes while a check reads it, so only findings of two successive checks are returned, and
        others only where several checks found something new each time.
        """
        deadline, clean, checks = time.monotonic() + patience, 0, 0
        before: set[tuple[str, str]] = set()
        while True:
            found = await check()
            checks += 1
            clean = 0 if found else clean + 1
            lasting = [finding for finding in found if (finding.rule, finding.text) in before]
            if clean == 2 or (lasting and time.monotonic() > deadline):
                return lasting
            if found and checks >= MIN_CHECKS and time.monotonic() > deadline + patience:
                return found
            before = {(finding.rule, finding.text) for finding in found}
            await asyncio.sleep(CHECK_EVERY)

    async def _leave(self) -> list[Finding]:
        """All clients leave: a third with `leave_room`, a third with a close frame, a third by an abort."""
        self._over.set()
        await asyncio.gather(*self._tasks)
        clients = self._world.clients
        for i, client in enumerate(clients):
            client.leave(("leave", "close", "drop")[i % 3])
        found = await self._until_none(self._remaining, GONE_WITHIN)
        found = found or await self._until_none(self._people_remaining, GONE_WITHIN)
        for client in clients:
            client.discard()
        if found:
            return found
        found = await self._until_none(self._past_violations, PAST_WITHIN)
        stored = await self._read()
        self.departures = len(stored.departures)
        if sum(stored.totals.values()) < self.departures:
            found.append(Finding("record", f"{self.departures} departures on record, totals {stored.totals}"))
        await self._watchers.stop()
        found += await self._until_none(self._leaks, LEAKS_GONE_WITHIN)
        found += await self._until_none(self._unregistered, GONE_WITHIN)
        return found + await self._stop()

    async def _remaining(self) -> list[Finding]:
        stored = await self._read()
        return [
            Finding("ghost", f"all clients have left, and {room} has {sorted(users)[:5]}")
            for kind in (stored.members, stored.rows, stored.shadows)
            for room, users in kind.items()
            if users
        ]

    async def _people_remaining(self) -> list[Finding]:
        """All users are offline for everyone who watches them."""
        return self._watchers.not_converged(await self._read())

    async def _least_of(self, node: NodeProcess) -> dict[str, int]:
        """The minimum of each resource of a node over all calls: a temporary use is not a leak."""
        now = await node.resources()
        before = self._least.get(node.node_life.name, now)
        least = {what: min(number, before.get(what, 0)) for what, number in now.items()}
        self._least[node.node_life.name] = least
        return least

    async def _leaks(self) -> list[Finding]:
        fleet = self._world.fleet
        servers = len(
            [*fleet.servers, *getattr(fleet, "sentinels", ())]
        )  # nodes ask Sentinels for the primary
        # All nodes are alike, but one that started during an outage may have started with less.
        base: dict[str, int] = {}
        for node in self._world.all_nodes:
            base |= {what: max(number, base.get(what, 0)) for what, number in node.base.items()}
        return [
            finding
            for node in self._world.nodes
            for finding in oracle.leaks(node.node_life.name, base, await self._least_of(node), servers)
        ]

    async def _unregistered(self) -> list[Finding]:
        """Killed nodes are declared lost and removed from the registry."""
        stored, there = await self._read(), len(self._world.nodes)
        if len(stored.registry) == there:
            return []
        return [Finding("leftover", f"{len(stored.registry)} nodes are registered, and {there} are running")]

    async def _stop(self) -> list[Finding]:
        nodes = self._world.nodes
        in_order = await asyncio.gather(*(node.stop() for node in nodes))
        found = [
            Finding("leak", f"{node.node_life.name} exited with {node.exit_code}", tuple(node.log[-8:]))
            for node, well in zip(nodes, in_order, strict=True)
            if not well
        ]
        found += [
            Finding("leak", f"{node.node_life.name} logged an error", tuple(logged_errors[-20:]))
            for node in self._world.all_nodes
            if (logged_errors := node.logged_errors())
        ]
        return found + oracle.after(await self._read())

    def _node_logs(self) -> Finding:
        """The end of each node's log, to analyse a finding."""
        lines = [
            f"{node.node_life.name}: {line}" for node in self._world.all_nodes for line in node.log[-400:]
        ]
        return Finding("log", "logs of the nodes", tuple(lines))

    async def clear(self) -> None:
        self._over.set()
        await self._watchers.stop()
        for task in (self._watch, *self._tasks):
            task.cancel()
        await asyncio.gather(self._watch, *self._tasks, return_exceptions=True)
        for client in self._world.clients:
            client.discard()
        for observer in self._observers:
            observer.leave()


def by_fault(outcomes: list[Outcome]) -> dict[str, tuple[int, int, int]]:
    """By fault: number of schedules with it, of these with findings, and departures in these schedules."""
    injected, bad, departures = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        for name in set(outcome.faults):
            injected[name] += 1
            bad[name] += bool(outcome.findings)
            departures[name] += outcome.departures
    return {name: (injected[name], bad[name], departures[name]) for name in sorted(injected)}
