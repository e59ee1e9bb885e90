"""The durable record of who left and why: a capped stream for each shard, and totals that outlive the cap."""

from collections import Counter
from collections.abc import AsyncIterator
from time import time
from typing import Any

from redis.asyncio import Redis

from reactor.presence.keys import SHARDS, departures_stream, shard_of, shard_prefix
from reactor.presence.rows import Departure, departure_from_stream

PAGE = 1000
FOLLOW_BLOCK_MS = 1000
RECENT = 200


class Departures:
    """Reads the streams of one namespace. All raise redis.RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace

    def _streams(self, room_id: str | None) -> list[str]:
        shards = range(SHARDS) if room_id is None else (shard_of(room_id),)
        return [departures_stream(self._namespace, shard) for shard in shards]

    async def positions(self, room_id: str | None = None) -> dict[str, str]:
        """The newest entry of each stream: `read` up to them and `follow` from them on leave nothing out."""
        return {stream: await self._last_id(stream) for stream in self._streams(room_id)}

    async def read(
        self, *, room_id: str | None = None, since: int = 0, until: dict[str, str] | None = None
    ) -> list[Departure]:
        """Departures of one room or of all, oldest first, from `since` (ms, Redis's clock) up to `until`."""
        found = []
        for stream in self._streams(room_id):
            start, end = str(since), (until or {}).get(stream, "+")
            while True:
                page: Any = await self._redis.xrange(stream, min=start, max=end, count=PAGE)
                found += [departure_from_stream(entry_id, fields) for entry_id, fields in page]
                if len(page) < PAGE:
                    break
                start = f"({page[-1][0].decode()}"
        return sorted(
            (one for one in found if room_id is None or one.room_id == room_id), key=lambda one: one.left_at
        )

    async def follow(
        self, positions: dict[str, str], *, room_id: str | None = None
    ) -> AsyncIterator[Departure]:
        """Those that come after some positions, as they come."""
        after: dict[Any, Any] = dict(positions)
        while True:
            answer: Any = await self._redis.xread(after, count=PAGE, block=FOLLOW_BLOCK_MS)
            batch = []
            for name, entries in answer or []:
                after[name.decode()] = entries[-1][0]
                batch += [departure_from_stream(entry_id, fields) for entry_id, fields in entries]
            for departure in sorted(batch, key=lambda one: one.left_at):
                if room_id is None or departure.room_id == room_id:
                    yield departure

    async def _last_id(self, stream: str) -> str:
        newest: Any = await self._redis.xrevrange(stream, count=1)
        return str(newest[0][0].decode()) if newest else "0"

    async def totals(self) -> Counter[str]:
        """How many left for each reason, in all rooms, since the namespace began."""
        totals: Counter[str] = Counter()
        for shard in range(SHARDS):
            counts: Any = await self._redis.hgetall(f"{shard_prefix(self._namespace, shard)}:totals")
            totals.update({reason.decode(): int(number) for reason, number in counts.items()})
        return totals

    async def recent_reasons(self, room_id: str) -> dict[str, str]:
        """Why the users who left this room lately did: for those whose diff was missed."""
        stream = departures_stream(self._namespace, shard_of(room_id))
        newest_first: Any = await self._redis.xrevrange(stream, count=RECENT)
        departures = [departure_from_stream(entry_id, fields) for entry_id, fields in reversed(newest_first)]
        return {one.user_id: one.reason for one in departures if one.room_id == room_id}


def milliseconds_ago(seconds: float) -> int:
    """The time (ms since 1970) that many seconds ago, by this machine's clock."""
    return int((time() - seconds) * 1000)
