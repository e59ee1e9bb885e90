"""Heartbeats, coalesced: whatever comes in while a batch is on its way goes out in the next one.

A member that beats from five tabs within a batch costs one entry. An acknowledgement goes back only after
Redis has taken the batch; while Redis is away, heartbeats wait here and count when it is back.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import anyio

from reactor.errors import Unavailable
from reactor.histogram import SIZES, Histogram
from reactor.presence.attachment import Attachment
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store

MAX_MEMBERS = 500
"""Members in one script call: about a millisecond of Redis's time."""

GATHER = 0.1
"""Seconds that a heartbeat waits at most for others, which come 25 s apart; a busy node does not wait. At
200 a second a third of their cost is saved, and two thirds of what they cost Redis; half as long a wait
costs the node an eighth more."""

ENOUGH = 32
"""Members for which nobody waits."""

MOST_WAITING = 32
"""Heartbeats of one member that wait at most: one is as good as all, but each is answered."""

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""


class Beat(Protocol):
    """A heartbeat that waits for its acknowledgement."""

    def acknowledged(self, now: int) -> None:
        """Redis has it, at this time of its clock (ms)."""

    def refused(self, attachment: Attachment) -> None:
        """The member is not alive in Redis, or this node was judged lost."""

    def ended(self) -> None:
        """The connection is out of the room, so there is nothing for Redis to take."""

    def overflowed(self) -> None:
        """As many wait for Redis as may: this one does not."""


Waiting = list[tuple[Attachment, Beat]]


class Heartbeats:
    """The batches of one node. `serve` has to run for anything to be taken."""

    def __init__(self, store: Store, node: Callable[[], str]) -> None:
        self._store = store
        self._node = node
        self._pending: list[dict[str, Waiting]] = [{} for _ in range(SHARDS)]
        self._waiting = 0
        self._wakeup, self._enough = asyncio.Event(), asyncio.Event()
        self.batches = 0
        self.members = 0
        self.acknowledged = 0
        self.sizes = Histogram(SIZES)

    def add(self, attachment: Attachment, beat: Beat) -> None:
        """Put a heartbeat into the next batch of its shard."""
        pending = self._pending[attachment.shard]
        waiting = pending.get(attachment.suffix)
        if waiting is None:
            pending[attachment.suffix] = [(attachment, beat)]
            self._waiting += 1
            if self._waiting == 1:
                self._wakeup.set()
            elif self._waiting == ENOUGH:
                self._enough.set()
        elif len(waiting) < MOST_WAITING:
            waiting.append((attachment, beat))
        else:
            beat.overflowed()

    async def serve(self) -> None:
        """Send batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            # A round trip costs as much as twenty heartbeats. Single ones wait for company.
            if self._waiting < ENOUGH:
                self._enough.clear()
                timer = loop.call_later(GATHER, self._enough.set)
                await self._enough.wait()
                timer.cancel()
            else:
                # Sockets that are readable in this turn of the loop get their say before the batch closes.
                await asyncio.sleep(0)
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits, the shards side by side."""
        due = [(shard, pending) for shard, pending in enumerate(self._pending) if pending]
        self._waiting = 0
        for shard, _ in due:
            self._pending[shard] = {}
        if len(due) == 1:
            await self._flush_shard(*due[0])
            return
        ends = await asyncio.gather(*(self._flush_shard(*one) for one in due), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    async def _flush_shard(self, shard: int, pending: dict[str, Waiting]) -> None:
        batch, later = pending, dict[str, Waiting]()
        while batch:
            if len(batch) > MAX_MEMBERS:
                items = list(batch.items())
                batch, later = dict(items[:MAX_MEMBERS]), dict(items[MAX_MEMBERS:])
            members = []
            for name, waiting in list(batch.items()):
                if waiting[0][0].live or any(attachment.live for attachment, _ in waiting):
                    members.append((name, waiting[0][0].terms.ttl))
                else:
                    del batch[name]  # it is answered here, and must not be again if Redis does not answer
                    for _, beat in waiting:
                        beat.ended()
            if members and not await self._refresh(shard, batch, members):
                self._put_back(shard, batch | later)
                await anyio.sleep(RETRY_AFTER)
                self._wakeup.set()
                return
            batch, later = later, {}

    async def _refresh(self, shard: int, batch: dict[str, Waiting], members: list[tuple[str, int]]) -> bool:
        """Send one batch and hand out what Redis says; False when it does not answer."""
        try:
            now, alive = await self._store.refresh(shard, self._node(), members)
        except Unavailable:
            return False
        self.batches += 1
        self.members += len(members)
        self.acknowledged += sum(map(len, batch.values()))
        self.sizes.add(len(members))
        for (name, _), flag in zip(members, alive, strict=True):
            for attachment, beat in batch[name]:
                if flag == 49:  # "1"; a refused heartbeat is the rare case
                    beat.acknowledged(now)
                else:
                    beat.refused(attachment)
        return True

    def _put_back(self, shard: int, batch: dict[str, Waiting]) -> None:
        pending = self._pending[shard]
        self._waiting += len(batch.keys() - pending.keys())
        for name, waiting in batch.items():
            pending[name] = waiting + pending.get(name, [])
