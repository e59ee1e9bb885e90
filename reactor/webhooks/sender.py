"""Sends one endpoint all that happens, in order, until it has taken it.

How far it was served is noted in Redis only after it said so: a server that dies in between leaves the last
request to be sent again. So an endpoint hears of each event at least once, and knows one that is repeated
by its `id`.
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
from reactor.webhooks.endpoint import Answer, Endpoint
from reactor.webhooks.events import Event, events_of

log = structlog.get_logger()

LOOK_EVERY = 0.25
"""Seconds between looks at logs in which nothing came."""
CHANGES = 200
"""Changes of all shards in one request; the events of one change are never parted."""
SHARE = CHANGES // SHARDS
"""Changes of one shard, and more of it where others have fewer."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds until the next attempt: doubled each time, the second half of it by chance."""

_encode = msgspec.json.Encoder().encode


class Place(NamedTuple):
    """How far a shard's log is read: its last entry, the `number`th."""

    shard: int
    last: str
    number: int


class Batch(NamedTuple):
    """What one request holds, and the places that it serves up to."""

    events: list[Event]
    places: list[Place]

    @property
    def message_id(self) -> str:
        """The same for the same events, so that an attempt made again is known."""
        names = ",".join(event.id for event in self.events)
        return f"msg_{sha256(names.encode()).hexdigest()[:32]}"


class Sender:
    """Serves one endpoint while `turn` is set. `serve` has to run.

    Attributes:
        delivered: Events that the endpoint took.
        attempts: Requests, by what came of them: delivered, failed, gone.
        missed: Changes that the log's cap took away before they could be sent.

    """

    def __init__(
        self, endpoint: Endpoint, changes: ChangeLog, wanted: frozenset[str], turn: asyncio.Event
    ) -> None:
        self._endpoint, self._changes, self._wanted, self._turn = endpoint, changes, wanted, turn
        self.delivered = 0
        self.attempts: Counter[str] = Counter()
        self.missed = 0

    async def begin(self) -> None:
        """See that the endpoint has a place in every log. Raises Unavailable."""
        await self._read(range(SHARDS), limit=1)

    async def serve(self) -> None:
        """Send until cancelled, or until the endpoint wants no more."""
        async with self._endpoint:
            while True:
                await self._turn.wait()
                try:
                    batch = await self._next()
                    if batch.events and not await self._send(batch):
                        if self.attempts["gone"]:
                            return
                        continue
                    await asyncio.gather(*map(self._served, batch.places))
                except Unavailable:
                    await anyio.sleep(FIRST_PAUSE)
                    continue
                if not batch.places:
                    await anyio.sleep(LOOK_EVERY)

    async def _next(self) -> Batch:
        """The oldest changes that were not told, of every shard."""
        pages = await self._read(range(SHARDS), limit=SHARE)
        busy = [shard for shard, page in pages.items() if len(page.entries) == SHARE]
        spare = CHANGES - sum(len(page.entries) for page in pages.values())
        if busy and (more := spare // len(busy)):
            pages |= await self._read(busy, limit=SHARE + more)
        found: list[Change] = []
        places: list[Place] = []
        for shard, page in pages.items():
            if page.missed:
                self.missed += page.missed
                log.error("webhook_changes_lost", endpoint=self._endpoint.name, shard=shard, lost=page.missed)
            if page.entries:
                found += page.entries
                places.append(Place(shard, page.entries[-1].id, page.first + len(page.entries)))
        # Each room lives in one shard, so ordering by time keeps each room's own order.
        found.sort(key=lambda change: change.at)
        events = [event for change in found for event in events_of(change) if event.type in self._wanted]
        return Batch(events, places)

    async def _read(self, shards: Sequence[int], *, limit: int) -> dict[int, Changes]:
        # Together, so that it is one round trip where the shards are on one server.
        pages = (self._changes.read(shard, self._endpoint.name, limit=limit) for shard in shards)
        return dict(zip(shards, await asyncio.gather(*pages), strict=True))

    async def _served(self, place: Place) -> None:
        await self._changes.served(place.shard, self._endpoint.name, place.last, place.number)

    async def _send(self, batch: Batch) -> bool:
        """Whether the endpoint took it; False when that is not this node's business any more."""
        message_id, body = batch.message_id, _encode({"events": batch.events})
        pause = FIRST_PAUSE
        while True:
            answer = await self._endpoint.post(message_id, body)
            if answer.delivered:
                self.attempts["delivered"] += 1
                self.delivered += len(batch.events)
                return True
            if answer.gone:
                self.attempts["gone"] += 1
                log.error(
                    "webhook_gone", endpoint=self._endpoint.name, mend="take its URL out of webhook_urls"
                )
                return False
            self.attempts["failed"] += 1
            await self._wait(answer, pause)
            if not self._turn.is_set():
                return False
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _wait(self, answer: Answer, pause: float) -> None:
        seconds = answer.after if answer.after is not None else random.uniform(pause / 2, pause)  # noqa: S311
        log.warning(
            "webhook_failed", endpoint=self._endpoint.name, why=answer.why, again_in=round(seconds, 1),
            failed=self.attempts["failed"],
        )  # fmt: skip
        await anyio.sleep(seconds)
