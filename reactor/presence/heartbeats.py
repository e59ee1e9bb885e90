"""Heartbeats, coalesced: whatever comes in while a batch is on its way goes out in the next one.

A member that beats from five tabs within a batch costs one entry. An acknowledgement goes back only after
Redis has taken the batch; while Redis is away, heartbeats wait here and count when it is back.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import anyio

from reactor.errors import Unavailable
from reactor.presence.attachment import Attachment
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store
from reactor.tally import SIZES, Tally

MAX_MEMBERS = 500
"""Members in one script call: about a millisecond of Redis's time."""

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""


class Beat(Protocol):
    """A heartbeat that waits for its acknowledgement."""

    def taken(self, now: int) -> None:
        """Redis has it, at this time of its clock (ms)."""

    def refused(self, attachment: Attachment) -> None:
        """The member is not alive in Redis, or this node was judged lost."""

    def ended(self) -> None:
        """The connection is out of the room, so there is nothing for Redis to take."""


Waiting = list[tuple[Attachment, Beat]]


class Heartbeats:
    """The batches of one node. `serve` has to run for anything to be taken."""

    def __init__(self, store: Store, node: Callable[[], str]) -> None:
        self._store = store
        self._node = node
        self._pending: list[dict[str, Waiting]] = [{} for _ in range(SHARDS)]
        self._wakeup = asyncio.Event()
        self.batches = 0
        self.members = 0
        self.taken = 0
        self.sizes = Tally(SIZES)

    def add(self, attachment: Attachment, beat: Beat) -> None:
        """Put a heartbeat into the next batch of its shard."""
        pending = self._pending[attachment.shard]
        waiting = pending.get(attachment.suffix)
        if waiting is None:
            pending[attachment.suffix] = [(attachment, beat)]
            if not self._wakeup.is_set():
                self._wakeup.set()
        else:
            waiting.append((attachment, beat))

    async def serve(self) -> None:
        """Send batches until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            # Sockets that are readable in this turn of the loop get their say before the batch closes.
            await asyncio.sleep(0)
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits, the shards side by side."""
        async with anyio.create_task_group() as tasks:
            for shard, pending in enumerate(self._pending):
                if pending:
                    self._pending[shard] = {}
                    tasks.start_soon(self._flush_shard, shard, pending)

    async def _flush_shard(self, shard: int, pending: dict[str, Waiting]) -> None:
        while pending:
            batch = dict(list(pending.items())[:MAX_MEMBERS]) if len(pending) > MAX_MEMBERS else pending
            pending = {name: pending[name] for name in pending if name not in batch}
            members = []
            for name, waiting in batch.items():
                if any(attachment.live for attachment, _ in waiting):
                    members.append((name, waiting[0][0].terms.ttl))
                else:
                    for _, beat in waiting:
                        beat.ended()
            if not members:
                continue
            try:
                now, alive = await self._store.refresh(shard, self._node(), members)
            except Unavailable:
                self._put_back(shard, batch | pending)
                await anyio.sleep(RETRY_AFTER)
                self._wakeup.set()
                return
            self.batches += 1
            self.members += len(members)
            self.taken += sum(map(len, batch.values()))
            self.sizes.add(len(members))
            for (name, _), flag in zip(members, alive, strict=True):
                for attachment, beat in batch[name]:
                    if flag == 49:  # "1"; a refused heartbeat is the rare case
                        beat.taken(now)
                    else:
                        beat.refused(attachment)

    def _put_back(self, shard: int, batch: dict[str, Waiting]) -> None:
        pending = self._pending[shard]
        for name, waiting in batch.items():
            pending[name] = waiting + pending.get(name, [])
