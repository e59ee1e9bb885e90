"""The safety net: finds what a lost event, a crash, a failover or an eviction left behind.

What it is for. Events and wake-ups are sent once and can be lost, a process can be killed between two steps,
and a failover can bring back what was removed. The sweep compares what is stored; it is never the main path.

What triggers it. Every `interval` (60 s) one node does a round, the one that acquires the leadership of the
job "sweep" for it. After `trigger` (events may have been missed, Redis was away, expiry was suspended) each
node sweeps at once, even if it is not the leader.

What it guarantees. After a round without an error, every member whose presence key was gone when the round
began has departed, and every connection of a node that is no longer registered is detached. For each shard it

1. scans the deadlines that have passed, as the pacemaker does;
2. audits all members: is the presence key of each there? (It may have been deleted or evicted early.)
3. detaches the nodes that the shard knows and the registry does not.

A round costs in proportion to the members, in pages, so that no call blocks Redis for long.
"""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.expiry.reaper import Reaper
from reactor.fleet.registry import Registry
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store

log = structlog.get_logger()

ROWS_PER_SCAN = 1000
CLAIM_RETRY_MS = 1000
"""Milliseconds until a room with members found gone comes up again, in case their claim fails."""
TRIGGER_DELAY = 0.05
"""Seconds from the trigger to the round, so that several triggers lead to one round."""
RETRY_DELAY = 1.0
"""Seconds until a round that failed is repeated."""


class Sweep:
    """Sweeps one namespace. `serve` has to run.

    interval: seconds between regular rounds, 0 for none. detach_unregistered: awaited with each shard, to
    detach the nodes that the shard knows and the registry does not. `rounds` counts the completed rounds.
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
    ) -> None:
        self._store, self._registry, self._reaper = store, registry, reaper
        self._node, self._interval = node, interval
        self._detach_unregistered = detach_unregistered
        self._triggered = asyncio.Event()
        self.rounds = 0

    def trigger(self) -> None:
        """Start a round as soon as possible, whichever node leads."""
        self._triggered.set()

    async def serve(self) -> None:
        """Sweep until cancelled."""
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
            except Unavailable as error:
                log.warning("sweep_failed", reason=str(error))
                self._triggered.set()
                await anyio.sleep(RETRY_DELAY)

    async def sweep(self) -> None:
        """Do one whole round. Raises Unavailable."""
        for shard in range(SHARDS):
            await self._scan(shard)
            await self._audit(shard)
            await self._detach_unregistered(shard)
        self.rounds += 1

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
            for room_id in page.large_rooms:
                await self._audit_room(shard, room_id)
            cursor = page.cursor
            if cursor == 0:
                return

    async def _audit_room(self, shard: int, room_id: str) -> None:
        cursor = 0
        while True:
            page = await self._store.audit_room(room_id, cursor)
            await self._claim(shard, page.gone)
            cursor = page.cursor
            if cursor == 0:
                return

    async def _claim(self, shard: int, gone: list[str]) -> None:
        for start in range(0, len(gone), ROWS_PER_SCAN):
            await self._reaper.claim(shard, gone[start : start + ROWS_PER_SCAN], {})
