"""Claims members found gone, which makes their departures.

What it is for. It is the one place where the expiry path changes Redis: the listener, the pacemaker and the
sweep only find members whose presence key is gone.

What triggers it. `enqueue`, by the listener and the pacemaker, in batches as fast as Redis takes them; the
sweep calls `claim` itself, so that its round ends when its claims are done.

Where Redis may evict keys, a member found gone without an `expired` event may have been evicted. Then the
nodes are asked, and it is claimed ANSWER_TIME later, unless the one that has its connection restored it.

What it guarantees. A claim is one atomic script: where the presence key is gone and the member's row is still
there, it removes the row, publishes the diff and records the departure; else it does nothing. So a departure
happens exactly once, however often the member was found, and on whichever node. A batch that Redis did
not take is claimed again, once the nodes were asked again where that is needed.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.histogram import LATENESS, Histogram
from reactor.presence.replies import Claimed
from reactor.presence.store import ANSWER_TIME, Store

log = structlog.get_logger()

MAX_CLAIMS = 250
"""Members in one call of the script: about 10 ms of Redis's time."""
MAX_CALLS = 4
"""Calls under way at the same time: heartbeats and liveness marks wait behind no more than these."""
RETRY_DELAY = 0.2
"""Seconds until a batch that Redis did not take is claimed again."""

FoundBy = Literal["event", "pacemaker", "sweep"]


class Reaper:
    """Claims the members that are enqueued. `serve` has to run.

    `found_by` counts the departures made, by what found the member; `lateness` has their delays (s).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queues: dict[int, dict[str, FoundBy]] = defaultdict(dict)
        self._asked: dict[int, set[str]] = defaultdict(set)
        self._wakeup = asyncio.Event()
        self._places = asyncio.Semaphore(MAX_CALLS)
        self._under_way = 0
        self.found_by: Counter[str] = Counter()
        self.lateness = Histogram(LATENESS)

    @property
    def pending(self) -> int:
        """How many members are enqueued, or in a call that was not answered yet."""
        return self._under_way + sum(map(len, self._queues.values()))

    def enqueue(self, shard: int, suffixes: Iterable[str], found_by: FoundBy) -> None:
        """Enqueue members for their claim. suffixes: of their presence keys, behind the shard's tag."""
        queue, asked = self._queues[shard], self._asked[shard]
        for suffix in suffixes:
            if found_by == "event" or suffix not in asked:
                queue.setdefault(suffix, found_by)
        if queue:
            self._wakeup.set()

    async def serve(self) -> None:
        """Claim what is enqueued until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            async with anyio.create_task_group() as tasks:
                for shard, queue in list(self._queues.items()):
                    if queue:
                        self._queues[shard] = {}
                        tasks.start_soon(self._claim_all, shard, queue)

    async def _claim_all(self, shard: int, queue: dict[str, FoundBy]) -> None:
        # Sorted, so that those of one room are claimed together: in one diff, and not in one each.
        suffixes, claimed = sorted(queue), 0
        self._under_way += len(suffixes)
        try:
            while claimed < len(suffixes):
                batch = suffixes[claimed : claimed + MAX_CLAIMS]
                async with self._places:
                    await self._claim_or_ask(shard, batch, queue)
                claimed += len(batch)
                self._under_way -= len(batch)
        except Unavailable:
            for suffix in suffixes[claimed:]:
                self._queues[shard].setdefault(suffix, queue[suffix])
            await anyio.sleep(RETRY_DELAY)
            self._wakeup.set()
        finally:
            self._under_way -= len(suffixes) - claimed

    async def claim_found(self, shard: int, suffixes: list[str]) -> None:
        """Claim members that the sweep found gone. Raises Unavailable.

        Where Redis may evict keys this only begins it: see `_claim_or_ask`.
        """
        await self._claim_or_ask(shard, suffixes, dict.fromkeys(suffixes, "sweep"))

    async def _claim_or_ask(self, shard: int, suffixes: list[str], found_by: dict[str, FoundBy]) -> None:
        """Claim members; those that are gone without an event only after their nodes could object to it."""
        asked = self._asked[shard]
        certain = [suffix for suffix in suffixes if found_by[suffix] == "event" or suffix in asked]
        other = [suffix for suffix in suffixes if found_by[suffix] != "event" and suffix not in asked]
        if other and await self._store.ask_nodes(shard, other):
            asked.update(other)
            waiting = {suffix: found_by[suffix] for suffix in other}
            asyncio.get_running_loop().call_later(ANSWER_TIME, self._enqueue_asked, shard, waiting)
        else:
            certain = suffixes
        if certain:
            # Also where the claim fails, to ask for them again: no node can object while Redis is full.
            asked.difference_update(certain)
            await self.claim(shard, certain, found_by)

    def _enqueue_asked(self, shard: int, waiting: dict[str, FoundBy]) -> None:
        self._queues[shard] = waiting | self._queues[shard]
        self._wakeup.set()

    async def claim(self, shard: int, suffixes: list[str], found_by: dict[str, FoundBy]) -> list[Claimed]:
        """Claim members at once, and return the departures made. Raises Unavailable.

        One missing in found_by counts as found by the sweep.
        """
        made = await self._store.claim(shard, suffixes)
        for claimed in made:
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
        return made
