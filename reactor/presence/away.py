"""Changes of `away` in batches: one call of the script for each shard, and one write for each connection.

What a client changes within BATCH_DELAY is written once: away, back and away again are one change. A request
is answered after Redis has applied the state that it asked for, or a later one of the same connection.
"""

import asyncio
from collections import defaultdict
from typing import Protocol

from reactor.errors import Unavailable
from reactor.presence.attachment import Attachment
from reactor.presence.keys import Entry
from reactor.presence.store import Store
from reactor.tasks import Spawner

BATCH_DELAY = 0.05
"""Seconds for which changes are collected."""

MAX_CONNECTIONS = 50
"""Connections in one script call: about 5 ms of Redis's time where each is a change that others see."""

MAX_WAITING = 32
"""Requests at most that wait for the change of one connection in one room."""


class AwayRequest(Protocol):
    """A request to go away, or to be back, that waits for its answer."""

    def written(self, attachment: Attachment, diff: bytes | None) -> None:
        """Redis has the change of one connection, and published this diff; None: it is not in the room."""

    def ended(self) -> None:
        """One of the connections has left its room, so nothing was sent to Redis."""

    def failed(self) -> None:
        """Redis did not answer for one of the connections."""

    def overflowed(self) -> None:
        """MAX_WAITING requests wait for one of the connections already, so this one does not."""


_Waiting = tuple[Attachment, list[AwayRequest]]


class AwayChanges:
    """The changes of one node that are to be sent."""

    def __init__(self, store: Store, tasks: Spawner) -> None:
        self._store, self._tasks = store, tasks
        self._pending: dict[int, dict[Attachment, list[AwayRequest]]] = defaultdict(dict)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, attachment: Attachment, change: AwayRequest) -> None:
        """Write the attachment's present `away` with the next batch."""
        waiting = self._pending[attachment.shard].setdefault(attachment, [])
        if len(waiting) >= MAX_WAITING:
            change.overflowed()
            return
        waiting.append(change)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_DELAY, self._flush_all)

    def flush(self, attachment: Attachment) -> None:
        """Send the attachment's change at once, if it has one: a call that is made next has to come after it.

        Both go through the urgent lane, in order.
        """
        if attachment in self._pending[attachment.shard]:
            self._flush_shard(attachment.shard)

    def _flush_all(self) -> None:
        self._timer = None
        for shard in list(self._pending):
            self._flush_shard(shard)

    def _flush_shard(self, shard: int) -> None:
        pending, self._pending[shard] = self._pending[shard], {}
        batch: list[_Waiting] = []
        for attachment, waiting in pending.items():
            if not attachment.live:
                for change in waiting:
                    change.ended()
                continue
            batch.append((attachment, waiting))
            if len(batch) == MAX_CONNECTIONS:
                self._send_soon(shard, batch)
                batch = []
        if batch:
            self._send_soon(shard, batch)

    def _send_soon(self, shard: int, batch: list[_Waiting]) -> None:
        states = [(one.entry, one.connection, one.away) for one, _ in batch]
        self._tasks.start_soon(self._send, shard, batch, states)

    async def _send(self, shard: int, batch: list[_Waiting], states: list[tuple[Entry, str, bool]]) -> None:
        try:
            diffs = await self._store.set_away(shard, states)
        except Unavailable:
            for _, waiting in batch:
                for change in waiting:
                    change.failed()
            return
        for (attachment, waiting), diff in zip(batch, diffs, strict=True):
            for change in waiting:
                change.written(attachment, diff)
