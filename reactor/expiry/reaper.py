"""Claims members found gone, which makes their departures.

What it is for. It is the one place where the expiry path changes Redis: the listener, the pacemaker and the
sweep only find members whose presence key is gone.

What triggers it. `enqueue`, by the listener and the pacemaker, in batches as fast as Redis takes them; the
sweep calls `claim` itself, so that its round ends when its claims are done.

What it guarantees. A claim is one atomic script: where the presence key is gone and the member's row is still
there, it removes the row, publishes the diff and records the departure; else it does nothing. So a departure
happens exactly once, however often the member was found, and on whichever node. A batch that Redis did
not take is claimed again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.histogram import LATENESS, Histogram
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store

log = structlog.get_logger()

MAX_CLAIMS = 500
"""Members in one call of the script."""
RETRY_DELAY = 0.2
"""Seconds until a batch that Redis did not take is claimed again."""

FoundBy = Literal["event", "pacemaker", "sweep"]


class Reaper:
    """Claims the members that are enqueued. `serve` has to run.

    `found_by` counts the departures made, by what found the member; `lateness` has their delays (s).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queues: list[dict[str, FoundBy]] = [{} for _ in range(SHARDS)]
        self._wakeup = asyncio.Event()
        self.found_by: Counter[str] = Counter()
        self.lateness = Histogram(LATENESS)

    def enqueue(self, shard: int, suffixes: Iterable[str], found_by: FoundBy) -> None:
        """Enqueue members for their claim. suffixes: of their presence keys, behind the shard's tag."""
        queue = self._queues[shard]
        for suffix in suffixes:
            queue.setdefault(suffix, found_by)
        if queue:
            self._wakeup.set()

    async def serve(self) -> None:
        """Claim what is enqueued until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            async with anyio.create_task_group() as tasks:
                for shard, queue in enumerate(self._queues):
                    if queue:
                        self._queues[shard] = {}
                        tasks.start_soon(self._claim_all, shard, queue)

    async def _claim_all(self, shard: int, queue: dict[str, FoundBy]) -> None:
        suffixes = list(queue)
        for start in range(0, len(suffixes), MAX_CLAIMS):
            try:
                await self.claim(shard, suffixes[start : start + MAX_CLAIMS], queue)
            except Unavailable:
                for suffix in suffixes[start:]:
                    self._queues[shard].setdefault(suffix, queue[suffix])
                await anyio.sleep(RETRY_DELAY)
                self._wakeup.set()
                return

    async def claim(self, shard: int, suffixes: list[str], found_by: dict[str, FoundBy]) -> None:
        """Claim members at once; one missing in found_by counts as found by the sweep. Raises Unavailable."""
        for claimed in await self._store.claim(shard, suffixes):
            path = found_by.get(claimed.suffix, "sweep")
            self.found_by[path] += 1
            self.lateness.add(claimed.lateness / 1000)
            log.debug(
                "member_expired",
                member=claimed.suffix,
                reason=claimed.reason,
                found_by=path,
                late_ms=round(claimed.lateness),
            )
