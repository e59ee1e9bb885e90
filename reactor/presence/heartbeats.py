"""Heartbeats in batches: those that arrive while a batch is being sent form the next one.

Several heartbeats of one member in a batch, from several tabs, cost one entry. They are acknowledged only
after Redis has applied the batch; while Redis does not answer, they wait here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import anyio

from reactor.errors import Unavailable
from reactor.histogram import SIZES, Histogram
from reactor.presence.attachment import Attachment
from reactor.presence.store import Store

MAX_MEMBERS = 500
"""Members in one script call: about a millisecond of Redis's time."""

BATCH_DELAY = 0.1
"""Seconds for which a batch collects heartbeats, unless it is full before. At 200 heartbeats a second this
saves a third of the node's cost and two thirds of Redis's; half the delay costs the node an eighth more."""

FULL_BATCH = 32
"""Members, in all shards together, with which the batches are sent at once."""

MAX_WAITING = 32
"""Heartbeats of one connection in a room that wait at most: one renews the TTL as well as all, so further
ones are answered with the last of these. Not of one member: among many tabs each has one that waits."""

RETRY_DELAY = 0.2
"""Seconds between attempts while Redis does not answer."""


class Beat(Protocol):
    """A heartbeat that waits for its acknowledgement."""

    def acknowledged(self, now: int) -> None:
        """Redis has renewed the member's TTL, at this time of its clock (ms)."""

    def refused(self, attachment: Attachment) -> None:
        """The member is not alive in Redis, or this node was judged lost."""

    def ended(self) -> None:
        """The connection is no longer in the room, so nothing was sent to Redis."""

    def absorb(self, other: Any) -> bool:
        """MAX_WAITING heartbeats of the connection wait: answer another one with this, if that can be."""

    def overflowed(self) -> None:
        """The heartbeat was not absorbed either, so it does not wait."""


Waiting = list[tuple[Attachment, Beat]]


class Heartbeats:
    """The batches of one node, which `serve` sends.

    node: returns the node's present name.
    """

    def __init__(self, store: Store, node: Callable[[], str]) -> None:
        self._store = store
        self._node = node
        self._pending: dict[int, dict[str, Waiting]] = defaultdict(dict)
        self._waiting = 0
        self._wakeup, self._full = asyncio.Event(), asyncio.Event()
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
            elif self._waiting == FULL_BATCH:
                self._full.set()
        elif len(waiting) < MAX_WAITING or sum(one is attachment for one, _ in waiting) < MAX_WAITING:
            waiting.append((attachment, beat))
        elif not next(one for at, one in reversed(waiting) if at is attachment).absorb(beat):
            beat.overflowed()

    async def serve(self) -> None:
        """Send batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            # A round trip costs as much as twenty heartbeats, so single ones wait for more.
            if self._waiting < FULL_BATCH:
                self._full.clear()
                timer = loop.call_later(BATCH_DELAY, self._full.set)
                await self._full.wait()
                timer.cancel()
            else:
                # Sockets that are readable in this iteration of the event loop still add to the batch.
                await asyncio.sleep(0)
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits, all shards concurrently."""
        due = [(shard, pending) for shard, pending in self._pending.items() if pending]
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
                    del batch[name]  # answered here, and must not be again when the batch is retried
                    for _, beat in waiting:
                        beat.ended()
            if members and not await self._refresh(shard, batch, members):
                self._put_back(shard, batch | later)
                await anyio.sleep(RETRY_DELAY)
                self._wakeup.set()
                return
            batch, later = later, {}

    async def _refresh(self, shard: int, batch: dict[str, Waiting], members: list[tuple[str, int]]) -> bool:
        """Send one batch and pass on the replies; return False when Redis does not answer."""
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
                if flag == 49:  # "1"
                    attachment.acknowledged(now)
                    beat.acknowledged(now)
                else:
                    beat.refused(attachment)
        return True

    def _put_back(self, shard: int, batch: dict[str, Waiting]) -> None:
        pending = self._pending[shard]
        self._waiting += len(batch.keys() - pending.keys())
        for name, waiting in batch.items():
            pending[name] = waiting + pending.get(name, [])
