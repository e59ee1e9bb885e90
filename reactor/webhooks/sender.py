"""Delivers all events to one endpoint, in order and at least once.

The endpoint's position in the change log is stored in Redis only after the endpoint accepted a request. What
a request is made of is stored before it is sent: a server that dies in between leaves that very request to
be sent again, with the same `webhook-id`.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.log import RateLimitedLog
from reactor.presence.changes import Change, ChangeLog, Changes, RequestRecord
from reactor.webhooks.batch import Backlog, Batch
from reactor.webhooks.endpoint import DeliveryResult, Endpoint

log = structlog.get_logger()

POLL_INTERVAL = 0.25
"""Seconds between two reads of logs that hold nothing new."""
MAX_BODY = 65_536
"""Bytes of a request's body; a single event may be larger. It is below the limit of common web frameworks."""
BATCH_CHANGES = 200
"""Changes of all shards that are read at once."""
MIN_RETRY_DELAY, MAX_RETRY_DELAY = 1.0, 300.0
"""Seconds until the next attempt: doubled each time, with the second half of it at random."""
_SENT_IN_HALVES: Mapping[str, int] = {"too_large": 1, "invalid": 1, "timed_out": 1, "broken": 3}
"""Outcomes that may be due to the size or to one event, and how many of them lead to smaller requests.

Some servers close the connection on a large body; but most connections that break do so by chance.
"""
_MAX_REFUSALS: Mapping[str, int] = {"too_large": 1, "invalid": 10}
"""Refusals of a single event after which it is given up, so that it does not hold up all later ones."""
REFUSAL_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refused events; the metric counts each."""
ATTEMPTS = ("delivered", "failed", "gone")


class Sender:
    """Delivers events to one endpoint while `leading` is set. `serve` must run.

    Attributes:
        delivered: Events that the endpoint accepted.
        attempts: Requests by outcome: delivered, failed, gone.
        refused: Events that the endpoint refused for good, and that went to the stream of refused events.
        missed: Changes that the log's length limit removed before they could be sent.

    """

    def __init__(
        self, endpoint: Endpoint, changes: ChangeLog, event_types: frozenset[str], leading: asyncio.Event
    ) -> None:
        self._endpoint, self._changes, self._event_types = endpoint, changes, event_types
        self._leading = leading
        self._max_bytes = self._ceiling = MAX_BODY
        self.delivered = 0
        self.attempts: Counter[str] = Counter(dict.fromkeys(ATTEMPTS, 0))
        self.refused = 0
        self._refusal_log = RateLimitedLog(REFUSAL_LOG_INTERVAL)
        self.missed = 0

    def use_keys(self, keys: tuple[bytes, ...]) -> None:
        """Sign with these keys from now on."""
        self._endpoint.keys = keys

    async def begin(self) -> None:
        """Create the endpoint's position in every log. Raises Unavailable."""
        await self._read(self._changes.keys.shards, limit=1)

    async def serve(self) -> None:
        """Send until cancelled, or until the endpoint answers 410 Gone."""
        async with self._endpoint:
            while not self.attempts["gone"]:
                await self._leading.wait()
                try:
                    await self._send()
                except Unavailable:
                    await anyio.sleep(MIN_RETRY_DELAY)

    async def _send(self) -> None:
        """Send while this node leads, beginning with the request that a former leader may have begun."""
        recorded: RequestRecord | None = None
        backlog = Backlog(self._event_types)
        backlog.add(await self._read_open_request())
        while self._leading.is_set() and not self.attempts["gone"]:
            if not backlog:
                backlog.add(await self._read_waiting())
                if not backlog:
                    await anyio.sleep(POLL_INTERVAL)
                    continue
            batch = backlog.next_batch(self._max_bytes)
            if batch.events:
                if (record := batch.record(self._max_bytes)) != recorded:
                    await self._changes.begin_request(self._endpoint.name, record)
                    recorded = record
                if not await self._deliver(batch):
                    continue
            backlog.remove(batch)
            last = {change.shard: change for change in batch.completed}
            await asyncio.gather(
                *(self._changes.confirm(change, self._endpoint.name) for change in last.values())
            )

    async def _read_open_request(self) -> list[Change]:
        """The changes of the last request, unless the endpoint is known to have received all of them."""
        record = await self._changes.last_request(self._endpoint.name)
        if record is None:
            return []
        pages = await asyncio.gather(
            *(self._changes.read_range(self._endpoint.name, part) for part in record.ranges)
        )
        if all(received for received, _ in pages):
            return []
        self._max_bytes = min(record.max_bytes, MAX_BODY)
        return [change for _, changes in pages for change in changes]

    async def _read_waiting(self) -> list[Change]:
        """The oldest changes of every shard that the endpoint has not received."""
        shards = self._changes.keys.shards
        share = max(1, BATCH_CHANGES // len(shards))
        pages = await self._read(shards, limit=share)
        # A busy shard also gets what idle shards leave over.
        busy = [shard for shard, page in pages.items() if len(page.entries) == share]
        left_over = BATCH_CHANGES - sum(len(page.entries) for page in pages.values())
        if busy and (more := left_over // len(busy)):
            pages |= await self._read(busy, limit=share + more)
        for shard, page in pages.items():
            if page.missed:
                self.missed += page.missed
                log.error("webhook_changes_lost", endpoint=self._endpoint.name, shard=shard, lost=page.missed)
        return [change for page in pages.values() for change in page.entries]

    async def _read(self, shards: Sequence[int], *, limit: int) -> dict[int, Changes]:
        # Concurrently, so that shards on the same server share one round trip.
        pages = (self._changes.read(shard, self._endpoint.name, limit=limit) for shard in shards)
        return dict(zip(shards, await asyncio.gather(*pages), strict=True))

    async def _deliver(self, batch: Batch) -> bool:
        """Whether the batch is done with: accepted, or one event that was refused for good.

        False when a smaller batch is to be sent instead, after 410 Gone, or when this node leads no more.
        """
        message_id, body = batch.message_id, batch.body
        delay, attempts = MIN_RETRY_DELAY, 0
        while self._leading.is_set():
            attempts += 1
            result = await self._endpoint.post(message_id, body)
            if result.outcome == "delivered":
                self.attempts["delivered"] += 1
                self.delivered += len(batch.events)
                self._max_bytes = min(self._max_bytes * 2, self._ceiling)
                return True
            if result.outcome == "gone":
                self.attempts["gone"] += 1
                log.error(
                    "webhook_gone", endpoint=self._endpoint.name, fix="remove its URL from webhook_urls"
                )
                return False
            self.attempts["failed"] += 1
            if attempts >= _SENT_IN_HALVES.get(result.outcome, math.inf) and len(batch.events) > 1:
                self._max_bytes = len(body) // 2
                if result.outcome == "too_large":
                    self._ceiling = self._max_bytes
                await self._wait(result, delay if result.outcome in {"timed_out", "broken"} else 0.0)
                return False
            if attempts >= _MAX_REFUSALS.get(result.outcome, math.inf):
                await self._give_up(batch, result)
                return True
            await self._wait(result, delay)
            delay = min(delay * 2, MAX_RETRY_DELAY)
        return False

    async def _give_up(self, batch: Batch, result: DeliveryResult) -> None:
        (event,) = batch.events
        await self._changes.record_refused(self._endpoint.name, event.json, result.error)
        self.refused += 1
        if self._refusal_log.is_due("webhook_event_refused", monotonic()):
            log.error(
                "webhook_event_refused", endpoint=self._endpoint.name, event_id=event.id,
                reason=result.error, bytes=len(event.json), refused=self.refused,
            )  # fmt: skip

    async def _wait(self, result: DeliveryResult, delay: float) -> None:
        if result.retry_after is not None:
            seconds = max(result.retry_after, MIN_RETRY_DELAY)
        else:
            seconds = random.uniform(delay / 2, delay)  # noqa: S311
        log.warning(
            "webhook_failed", endpoint=self._endpoint.name, reason=result.error, retry_in=round(seconds, 1),
            failed=self.attempts["failed"], max_bytes=self._max_bytes,
        )  # fmt: skip
        await anyio.sleep(seconds)
