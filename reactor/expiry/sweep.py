"""The safety net.

Every 60 s, or at once after a gap, it finds what a lost event, a crash or a failover left behind.

It goes through what is due, asks for every member whether its key exists, and looks for nodes that Redis
remembers and the registry does not. One node of the fleet does the regular round; after a gap each node
sweeps for itself.
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

ROWS_PER_LOOK = 1000
LOOK_AGAIN_MS = 1000
GATHERED_WITHIN = 0.05
"""Seconds. Gaps that are noticed together are swept once."""


class Sweep:
    """Sweeps one namespace. `serve` has to run.

    interval: seconds between regular rounds, 0 for none. detach_unregistered: awaited with each shard, to
    detach the nodes that the shard knows and the registry does not.
    """

    def __init__(
        self, store: Store, registry: Registry, reaper: Reaper, *, node: Callable[[], str], interval: float,
        detach_unregistered: Callable[[int], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._store, self._registry, self._reaper = store, registry, reaper
        self._node, self._interval = node, interval
        self._detach_unregistered = detach_unregistered
        self._now = asyncio.Event()
        self.rounds = 0

    def now(self) -> None:
        """Sweep as soon as possible, whoever's turn it is."""
        self._now.set()

    async def serve(self) -> None:
        """Sweep until cancelled."""
        while True:
            at_once = False
            with anyio.move_on_after(self._interval or None):
                await self._now.wait()
                at_once = True
                await anyio.sleep(GATHERED_WITHIN)
            self._now.clear()
            try:
                turn = await self._registry.acquire_leadership("sweep", self._node(), ttl_ms=self._turn_ms())
                if at_once or turn:
                    await self.sweep()
            except Unavailable as error:
                log.warning("sweep_failed", reason=str(error))
                self._now.set()
                await anyio.sleep(1.0)

    async def sweep(self) -> None:
        """One whole round. Raises Unavailable."""
        for shard in range(SHARDS):
            await self._sweep_due(shard)
            await self._audit(shard)
            await self._detach_unregistered(shard)
        self.rounds += 1

    def _turn_ms(self) -> int:
        return max(1000, int(self._interval * 900))

    async def _sweep_due(self, shard: int) -> None:
        while True:
            found = await self._store.due(shard, limit=ROWS_PER_LOOK, retry=LOOK_AGAIN_MS)
            await self._claim(shard, found.gone)
            if found.moved + len(found.gone) < ROWS_PER_LOOK:
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
        for start in range(0, len(gone), ROWS_PER_LOOK):
            await self._reaper.claim(shard, gone[start : start + ROWS_PER_LOOK], {})
