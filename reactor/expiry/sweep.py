"""The safety net: finds what a lost event, a crash, a failover or an eviction left behind.

What it is for. Events and wake-ups are sent once and can be lost, a process can be killed between two steps,
and a failover can bring back what was removed. The sweep compares what is stored; it is never the main path.

What triggers it. Every `interval` (60 s) one node does a round, the one that acquires the leadership of the
job "sweep" for it. After `trigger` (events may have been missed, Redis was away, expiry was suspended) each
node sweeps at once, even if it is not the leader.

What it guarantees. After a round without an error, every member whose presence key was gone when the round
began has departed, and every connection of a node that is no longer registered is detached. For each shard,
whatever happens in the others, it

1. reads each index, so that one of a wrong type is renamed aside;
2. scans the deadlines that have passed, as the pacemaker does;
3. audits all members: is the presence key of each there? (It may have been deleted or evicted early.)
4. detaches the nodes that the shard knows and the registry does not.

Then it completes the bans (`presence/bans.py`).

A round costs in proportion to the members, in pages, so that no call blocks Redis for long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import anyio

from reactor.backend.interface import Stopping
from reactor.errors import Unavailable
from reactor.expiry.reaper import Reaper
from reactor.fleet.registry import Registry
from reactor.log import RateLimitedLog
from reactor.presence.store import Store, each

ROWS_PER_SCAN = 1000
CLAIM_RETRY_MS = 1000
"""Milliseconds until a room with members found gone comes up again, in case their claim fails."""
TRIGGER_DELAY = 0.05
"""Seconds from the trigger to the round, so that several triggers lead to one round."""
RETRY_DELAY = 1.0
"""Seconds until a round that failed is repeated; twice as many each time, up to the interval."""


class Sweep:
    """Sweeps one namespace. `serve` has to run.

    interval: seconds between regular rounds, 0 for none. detach_unregistered: awaited with each shard, to
    detach the nodes that the shard knows and the registry does not. repair_bans: awaited at the
    end of a round. audit_people: awaited after each round of
    `serve`, with whether all users are to be audited: a regular round audits a part of them. `rounds` counts
    the completed rounds.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        reaper: Reaper,
        *,
        node: Callable[[], str],
        interval: float,
        detach_unregistered: Callable[[int], Awaitable[None]],
        repair_bans: Callable[[], Awaitable[object]],
        audit_people: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        self._store, self._registry, self._reaper = store, registry, reaper
        self._node, self._interval = node, interval
        self._detach_unregistered, self._repair_bans = detach_unregistered, repair_bans
        self._audit_people = audit_people
        self._triggered = asyncio.Event()
        self._log = RateLimitedLog()
        self.rounds = 0

    def trigger(self) -> None:
        """Start a round as soon as possible, whichever node leads."""
        self._triggered.set()

    async def serve(self) -> None:
        """Sweep until cancelled."""
        delay = RETRY_DELAY
        while True:
            triggered = False
            with anyio.move_on_after(self._interval or None):
                await self._triggered.wait()
                triggered = True
                await anyio.sleep(TRIGGER_DELAY)
            self._triggered.clear()
            try:
                leading = await self._registry.acquire_leadership(
                    "sweep", self._node(), ttl_ms=max(1000, int(self._interval * 900))
                )
                if triggered or leading:
                    await self.sweep()
                    if self._audit_people:
                        await self._audit_people(triggered)
                delay = RETRY_DELAY
            except Unavailable as error:
                if not isinstance(error, Stopping):
                    self._log.warning("sweep_failed", monotonic(), reason=str(error))
                self._triggered.set()
                await anyio.sleep(delay)
                delay = min(delay * 2, max(RETRY_DELAY, self._interval))

    async def sweep(self) -> None:
        """Do one whole round. Raises Unavailable when a shard did not answer; the others are done."""
        await each(self._store.keys.shards, self._sweep_shard)
        await self._repair_bans()
        self.rounds += 1

    async def _sweep_shard(self, shard: int) -> None:
        await self._store.audit_indexes(shard)
        await self._scan(shard)
        await self._audit(shard)
        await self._detach_unregistered(shard)

    async def _scan(self, shard: int) -> None:
        while True:
            found = await self._store.due(shard, limit=ROWS_PER_SCAN, retry=CLAIM_RETRY_MS)
            await self._claim(shard, found.gone)
            if found.moved + len(found.gone) < ROWS_PER_SCAN:
                return

    async def _audit(self, shard: int) -> None:
        cursor = 0
        while True:
            page = await self._store.audit(shard, cursor)
            await self._claim(shard, page.gone)
            for room in page.large_rooms:
                await self._audit_room(shard, room)
            cursor = page.cursor
            if cursor == 0:
                return

    async def _audit_room(self, shard: int, room: bytes) -> None:
        cursor = 0
        while True:
            page = await self._store.audit_room(shard, room, cursor)
            await self._claim(shard, page.gone)
            cursor = page.cursor
            if cursor == 0:
                return

    async def _claim(self, shard: int, gone: list[str]) -> None:
        for start in range(0, len(gone), ROWS_PER_SCAN):
            await self._reaper.claim_found(shard, gone[start : start + ROWS_PER_SCAN])
