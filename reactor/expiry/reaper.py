"""Makes departures of members found gone, whoever found them: the one place where the expiry path writes.

Names queue up here and are claimed in batches. A claim that Redis did not take is tried again; one that
comes twice finds nothing the second time.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.histogram import LATENESS, Histogram
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store

log = structlog.get_logger()

MAX_CLAIMS = 500
RETRY_AFTER = 0.2


class Reaper:
    """Claims what it is given. `serve` has to run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queued: list[dict[str, str]] = [{} for _ in range(SHARDS)]
        self._wakeup = asyncio.Event()
        self.found_by: Counter[str] = Counter()
        self.lateness = Histogram(LATENESS)

    def found_gone(self, shard: int, suffixes: Iterable[str], path: str) -> None:
        """Queue members for their claim. path: who found them (event, pacemaker, sweep)."""
        queued = self._queued[shard]
        for suffix in suffixes:
            queued.setdefault(suffix, path)
        if queued:
            self._wakeup.set()

    async def serve(self) -> None:
        """Claim until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            async with anyio.create_task_group() as tasks:
                for shard, queued in enumerate(self._queued):
                    if queued:
                        self._queued[shard] = {}
                        tasks.start_soon(self._claim_all, shard, queued)

    async def _claim_all(self, shard: int, queued: dict[str, str]) -> None:
        names = list(queued)
        for start in range(0, len(names), MAX_CLAIMS):
            batch = names[start : start + MAX_CLAIMS]
            try:
                await self.claim(shard, batch, queued)
            except Unavailable:
                for name in names[start:]:
                    self._queued[shard].setdefault(name, queued[name])
                await anyio.sleep(RETRY_AFTER)
                self._wakeup.set()
                return

    async def claim(self, shard: int, suffixes: list[str], paths: dict[str, str]) -> None:
        """Claim at once. Raises Unavailable."""
        for claimed in await self._store.claim(shard, suffixes):
            path = paths.get(claimed.suffix, "sweep")
            self.found_by[path] += 1
            self.lateness.add(claimed.lateness / 1000)
            log.debug(
                "departed",
                member=claimed.suffix,
                reason=claimed.reason,
                found_by=path,
                late_ms=round(claimed.lateness),
            )
