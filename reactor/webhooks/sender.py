"""Delivers all events to one endpoint, in order and at least once.

The endpoint's position in the change log is stored in Redis only after the endpoint accepted a request. A
server that dies in between leaves that request to be sent again, with the same event ids.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import anyio
import msgspec
import structlog

from reactor.errors import Unavailable
from reactor.presence.changes import Change, ChangeLog, Changes
from reactor.presence.keys import SHARDS
from reactor.webhooks.endpoint import DeliveryResult, Endpoint
from reactor.webhooks.payload import WebhookEvent, events_of

log = structlog.get_logger()

POLL_INTERVAL = 0.25
"""Seconds between two reads of logs that hold nothing new."""
BATCH_CHANGES = 200
"""Changes of all shards in one request. The events of one change are always in the same request."""
SHARD_CHANGES = BATCH_CHANGES // SHARDS
"""Changes of one shard in one request; a busy shard also gets what idle shards leave over."""
MIN_RETRY_DELAY, MAX_RETRY_DELAY = 1.0, 300.0
"""Seconds until the next attempt: doubled each time, with the second half of it at random."""

_encode = msgspec.json.Encoder().encode


class LogPosition(NamedTuple):
    """How far a shard's log has been read: the id of its last entry, which is the `number`th of the log."""

    shard: int
    last: str
    number: int


class Batch(NamedTuple):
    """The content of one request, and the positions that are stored once it is delivered."""

    events: list[WebhookEvent]
    positions: list[LogPosition]

    @property
    def message_id(self) -> str:
        """The same for the same events, so that the endpoint recognises a repeated request."""
        ids = ",".join(event.id for event in self.events)
        return f"msg_{sha256(ids.encode()).hexdigest()[:32]}"


class Sender:
    """Delivers events to one endpoint while `leading` is set. `serve` must run.

    Attributes:
        delivered: Events that the endpoint accepted.
        attempts: Requests by outcome: delivered, failed, gone.
        missed: Changes that the log's length limit removed before they could be sent.

    """

    def __init__(
        self, endpoint: Endpoint, changes: ChangeLog, event_types: frozenset[str], leading: asyncio.Event
    ) -> None:
        self._endpoint, self._changes, self._event_types = endpoint, changes, event_types
        self._leading = leading
        self.delivered = 0
        self.attempts: Counter[str] = Counter()
        self.missed = 0

    async def begin(self) -> None:
        """Create the endpoint's position in every log. Raises Unavailable."""
        await self._read(range(SHARDS), limit=1)

    async def serve(self) -> None:
        """Send until cancelled, or until the endpoint answers 410 Gone."""
        async with self._endpoint:
            while True:
                await self._leading.wait()
                try:
                    batch = await self._next_batch()
                    if batch.events and not await self._deliver(batch):
                        if self.attempts["gone"]:
                            return
                        continue
                    await asyncio.gather(*map(self._store_position, batch.positions))
                except Unavailable:
                    await anyio.sleep(MIN_RETRY_DELAY)
                    continue
                if not batch.positions:
                    await anyio.sleep(POLL_INTERVAL)

    async def _next_batch(self) -> Batch:
        """The oldest undelivered changes of every shard."""
        pages = await self._read(range(SHARDS), limit=SHARD_CHANGES)
        busy = [shard for shard, page in pages.items() if len(page.entries) == SHARD_CHANGES]
        left_over = BATCH_CHANGES - sum(len(page.entries) for page in pages.values())
        if busy and (more := left_over // len(busy)):
            pages |= await self._read(busy, limit=SHARD_CHANGES + more)
        changes: list[Change] = []
        positions: list[LogPosition] = []
        for shard, page in pages.items():
            if page.missed:
                self.missed += page.missed
                log.error("webhook_changes_lost", endpoint=self._endpoint.name, shard=shard, lost=page.missed)
            if page.entries:
                changes += page.entries
                positions.append(LogPosition(shard, page.entries[-1].id, page.first + len(page.entries)))
        # All changes of a room are in one shard, so this stable sort by time keeps the order within a room.
        changes.sort(key=lambda change: change.at)
        events = [
            event for change in changes for event in events_of(change) if event.type in self._event_types
        ]
        return Batch(events, positions)

    async def _read(self, shards: Sequence[int], *, limit: int) -> dict[int, Changes]:
        # Concurrently, so that shards on the same server share one round trip.
        pages = (self._changes.read(shard, self._endpoint.name, limit=limit) for shard in shards)
        return dict(zip(shards, await asyncio.gather(*pages), strict=True))

    async def _store_position(self, position: LogPosition) -> None:
        await self._changes.confirm(position.shard, self._endpoint.name, position.last, position.number)

    async def _deliver(self, batch: Batch) -> bool:
        """Whether the endpoint accepted the batch; False after 410 Gone, or when this node leads no more."""
        message_id, body = batch.message_id, _encode({"events": batch.events})
        delay = MIN_RETRY_DELAY
        while True:
            result = await self._endpoint.post(message_id, body)
            if result.delivered:
                self.attempts["delivered"] += 1
                self.delivered += len(batch.events)
                return True
            if result.gone:
                self.attempts["gone"] += 1
                log.error(
                    "webhook_gone", endpoint=self._endpoint.name, fix="remove its URL from webhook_urls"
                )
                return False
            self.attempts["failed"] += 1
            await self._wait(result, delay)
            if not self._leading.is_set():
                return False
            delay = min(delay * 2, MAX_RETRY_DELAY)

    async def _wait(self, result: DeliveryResult, delay: float) -> None:
        seconds = result.retry_after
        if seconds is None:
            seconds = random.uniform(delay / 2, delay)  # noqa: S311
        log.warning(
            "webhook_failed", endpoint=self._endpoint.name, reason=result.error, retry_in=round(seconds, 1),
            failed=self.attempts["failed"],
        )  # fmt: skip
        await anyio.sleep(seconds)
