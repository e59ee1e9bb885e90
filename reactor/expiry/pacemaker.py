"""Makes expiry punctual: touches each presence key when its TTL has ended.

What it is for. By itself Redis deletes an expired key, and publishes the event, when a client accesses it or
when the active expiry cycle samples it, which takes minutes among many long-lived keys
(https://redis.io/docs/latest/commands/expire/#how-redis-expires-keys). A touch at the deadline takes that
down to milliseconds.

What triggers it. The earliest deadline of each shard, which is known from its last scan and from wake-ups
that scripts publish when they lower a deadline; at the latest MAX_SCAN_INTERVAL after the last scan, for a
wake-up that was lost. Only the leader of the "pacemaker" election scans; another node takes over within two
seconds.

What it guarantees. Deadlines in Redis are lower bounds, since a heartbeat does not update them. A scan reads
the members whose deadline has passed: those still alive get their true deadline, so that each scan moves
something forward and none spins. Members found gone are left to their event for EVENT_TIMEOUT, after which
the pacemaker has them claimed itself. With the pacemaker off everything stays correct, only later.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from time import monotonic

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.expiry.deadlines import Deadlines, FirstTouches, RedisClock
from reactor.expiry.reaper import Reaper
from reactor.fleet.election import LeaderElection
from reactor.fleet.registry import Registry
from reactor.presence.store import Store

log = structlog.get_logger()

MAX_SCAN_INTERVAL = 1.0
"""Seconds between two scans of a shard at most, which bounds the cost of a lost wake-up."""
ROWS_PER_SCAN = 1000
"""Members read in one call: about 7 ms of Redis's time."""
MAX_SCANS = 4
"""Scans under way at the same time: when very many members expire at once, heartbeats and liveness marks wait
behind no more than these."""
CLAIM_RETRY_MS = 250
"""Milliseconds until a room comes up again in which members were found gone that are not claimed yet."""
CLAIM_MS = 0.1
"""Milliseconds that a claim takes at most, about: a room comes up again later, the more claims are pending.
Where very many members expire at once, their keys would otherwise be read again and again meanwhile."""
EVENT_TIMEOUT = 0.2
"""Seconds after a touch until the pacemaker claims a member whose event has not led to a claim."""


class Pacemaker:
    """The pacemaker of one namespace, active while this node leads. `serve` has to run.

    events_flow: whether the listener receives events; where it does not, members found gone are claimed at
    once. on_leading is called when this node becomes the leader.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        reaper: Reaper,
        *,
        node: Callable[[], str],
        events_flow: Callable[[], bool],
        on_leading: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._reaper, self._events_flow = store, reaper, events_flow
        self._on_leading = on_leading
        self._election = LeaderElection(registry, "pacemaker", node=node, on_change=self._on_leadership)
        self._clock = RedisClock()
        self._touches: dict[int, FirstTouches] = defaultdict(FirstTouches)
        self._wakeup = asyncio.Event()
        self._places = asyncio.Semaphore(MAX_SCANS)
        self.scans = 0
        self.moved = 0

    @property
    def leading(self) -> bool:
        """Whether this node is the leader."""
        return self._election.leading

    @property
    def led_elsewhere(self) -> bool:
        """Whether another node is known to be the leader."""
        return self._election.led_elsewhere

    def wake(self, shard: int, deadline: int) -> None:
        """Take in a wake-up: the shard's earliest deadline (ms, Redis's clock) was lowered."""
        if self._deadlines.lower(shard, self._clock.steady(deadline + 1)):
            self._wakeup.set()

    def scan_all(self) -> None:
        """Scan every shard at once, since wake-ups may have been missed."""
        self._deadlines.reset()
        self._wakeup.set()

    @cached_property
    def _deadlines(self) -> Deadlines:
        # Made with the first use: the number of shards is known once Redis has answered.
        return Deadlines(len(self._store.keys.shards))

    async def serve(self) -> None:
        """Take part in the election, and scan while leading, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._election.serve)
            tasks.start_soon(self._scan_due_shards)

    def _on_leadership(self, leading: bool) -> None:
        log.info("pacemaker_leadership", leading=leading)
        if leading:
            self.scan_all()
            self._on_leading()

    async def _scan_due_shards(self) -> None:
        while True:
            due = self._deadlines.due(monotonic()) if self.leading else []
            if due:
                # Plain asyncio tasks: those of a task group take a fifth of an idle node's CPU time.
                await asyncio.gather(*map(self._scan, due))
                continue
            wait = self._deadlines.earliest() - monotonic() if self.leading else MAX_SCAN_INTERVAL
            with anyio.move_on_after(min(max(wait, 0.0), MAX_SCAN_INTERVAL)):
                await self._wakeup.wait()
            self._wakeup.clear()

    async def _scan(self, shard: int) -> None:
        """Scan one shard, and schedule its next scan."""
        async with self._places:
            await self._scan_at_once(shard)

    async def _scan_at_once(self, shard: int) -> None:
        # Scheduled before the call, so that a wake-up that arrives during the call can bring it forward.
        self._deadlines.set(shard, monotonic() + MAX_SCAN_INTERVAL)
        try:
            retry = CLAIM_RETRY_MS + round(self._reaper.pending * CLAIM_MS)
            found = await self._store.due(shard, limit=ROWS_PER_SCAN, retry=retry)
        except Unavailable:
            return
        self._clock.observe(found.now, monotonic())
        self.scans += 1
        self.moved += found.moved
        if found.next_deadline is not None:
            self._deadlines.lower(shard, self._clock.steady(found.next_deadline + 1))
        self._reaper.enqueue(shard, self._without_event(shard, found.gone), "pacemaker")

    def _without_event(self, shard: int, gone: list[str]) -> list[str]:
        """Of the members found gone, return those whose event is overdue."""
        if not self._events_flow():
            return gone
        now, touches = monotonic(), self._touches[shard]
        return [name for name in gone if now - touches.first(name, now) >= EVENT_TIMEOUT]
