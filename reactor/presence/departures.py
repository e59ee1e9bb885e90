"""The durable record of departures and their reasons: a capped stream a shard, and totals without a cap."""

from asyncio import gather
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from time import time
from typing import Any

import anyio
from redis.asyncio import Redis

from reactor.backend.clients import errors_as_unavailable
from reactor.presence.keys import Keyspace
from reactor.presence.rows import Departure, departure_from_stream

PAGE = 1000
POLL_INTERVAL = 0.5
"""Seconds between reads of streams without new entries. On a cluster no single command waits for all."""

REASONS_PAGE, MAX_READ = 500, 20_000
CLOCK_MARGIN = 60_000
"""Milliseconds by which the clocks of a primary and of the replica that replaced it may differ."""

MembershipKey = tuple[str, int]
"""A user's id and when it joined (ms): what distinguishes one membership in a room from another."""

MAX_CONCURRENT = 4
"""Commands in progress at most, each of which takes a connection: after a gap all rooms are read at once."""


class Departures:
    """Reads the streams of one namespace. All calls raise Unavailable when Redis does not answer.

    client_of: returns the client of the server that has a key.
    """

    def __init__(self, client_of: Callable[[str], Redis], keys: Keyspace) -> None:
        self._client_of = client_of
        self._limiter = anyio.CapacityLimiter(MAX_CONCURRENT)
        self._keys = keys

    def _streams(self, room_id: str | None) -> list[str]:
        shards = self._keys.shards if room_id is None else (self._keys.shard_of(room_id),)
        return [self._keys.departures_stream(shard) for shard in shards]

    async def positions(self, room_id: str | None = None) -> dict[str, str]:
        """Return the newest entry of each stream: `read` up to them and `follow` from them omit nothing."""
        return {stream: await self._last_id(stream) for stream in self._streams(room_id)}

    async def read(
        self, *, room_id: str | None = None, since: int = 0, until: dict[str, str] | None = None
    ) -> list[Departure]:
        """Return departures of one room or all, oldest first, from `since` (ms, Redis's clock) to `until`."""
        found: list[Departure] = []
        for stream in self._streams(room_id):
            start, end = str(since), (until or {}).get(stream, "+")
            while True:
                page = await self._run("xrange", stream, min=start, max=end, count=PAGE)
                found += _departures(page)
                if len(page) < PAGE:
                    break
                start = f"({page[-1][0].decode()}"
        return _of_room(found, room_id)

    async def page(
        self, after: Mapping[str, str], *, room_id: str | None = None, since: int = 0, limit: int
    ) -> tuple[list[Departure], dict[str, str]]:
        """Return up to `limit` departures after some positions, oldest first, and the positions after those.

        since: ms, for streams without a position. Departures of other rooms are skipped, up to `PAGE` a
        stream: where the positions have moved there may be more, although none was found.
        """
        streams = self._streams(room_id)
        starts = [f"({after[stream]}" if stream in after else str(since) for stream in streams]
        count = limit if room_id is None else PAGE
        pages = await _all(
            self._run("xrange", stream, min=start, max="+", count=count)
            for stream, start in zip(streams, starts, strict=True)
        )
        entries = [(stream, entry) for stream, page in zip(streams, pages, strict=True) for entry in page]
        entries.sort(key=lambda one: _entry_order(one[1][0]))
        found: list[Departure] = []
        positions = dict(after)
        for stream, (entry_id, fields) in entries:
            if len(found) == limit:
                break
            positions[stream] = entry_id.decode()
            departure = departure_from_stream(entry_id, fields)
            if departure is not None and room_id in (None, departure.room_id):
                found.append(departure)
        return found, positions

    async def follow(
        self, positions: dict[str, str], *, room_id: str | None = None
    ) -> AsyncIterator[Departure]:
        """Yield departures after some positions, also those to come."""
        after = dict(positions)
        while True:
            pages = await _all(self._newer(stream, after[stream]) for stream in after)
            found: list[Departure] = []
            for stream, page in zip(list(after), pages, strict=True):
                if page:
                    after[stream] = page[-1][0].decode()
                    found += _departures(page)
            for departure in _of_room(found, room_id):
                yield departure
            if not found:
                await anyio.sleep(POLL_INTERVAL)

    async def _newer(self, stream: str, after: str) -> list[Any]:
        reply = await self._run("xread", stream, {stream: after}, count=PAGE)
        return reply[0][1] if reply else []

    async def _last_id(self, stream: str) -> str:
        newest = await self._run("xrevrange", stream, count=1)
        return str(newest[0][0].decode()) if newest else "0"

    async def totals(self) -> Counter[str]:
        """Return the number of departures by reason, in all rooms, since the namespace was created."""
        totals: Counter[str] = Counter()
        for prefix in self._keys.prefixes:
            counts = await self._run("hgetall", f"{prefix}:totals")
            for reason, number in counts.items():
                if number.isdigit():  # another program may have written there
                    totals[reason.decode(errors="replace")] += int(number)
        return totals

    async def reasons(self, room_id: str, memberships: Iterable[MembershipKey]) -> dict[MembershipKey, str]:
        """Return why memberships ended, for those whose departure is recorded.

        At most `MAX_READ` entries are read, and none older than `CLOCK_MARGIN` before the first began.
        """
        wanted, found = set(memberships), dict[MembershipKey, str]()
        stream, newest = self._keys.departures_stream(self._keys.shard_of(room_id)), "+"
        for _ in range(MAX_READ // REASONS_PAGE):
            if not wanted:
                break
            oldest = max(0, min(joined_at for _, joined_at in wanted) - CLOCK_MARGIN)
            page = await self._run("xrevrange", stream, max=newest, min=str(oldest), count=REASONS_PAGE)
            for one in _departures(page):
                key = one.user_id, one.joined_at
                if one.room_id == room_id and key in wanted:
                    found[key] = one.reason
                    wanted.discard(key)
            if len(page) < REASONS_PAGE:
                break
            newest = f"({page[-1][0].decode()}"
        return found

    async def _run(self, command: str, key: str, *args: Any, **options: Any) -> Any:
        async with self._limiter:
            with errors_as_unavailable():
                client = self._client_of(key)
                arguments = args or (key,)
                return await getattr(client, command)(*arguments, **options)


def _departures(page: Iterable[Any]) -> list[Departure]:
    found = (departure_from_stream(entry_id, fields) for entry_id, fields in page)
    return [departure for departure in found if departure is not None]


def _of_room(found: list[Departure], room_id: str | None) -> list[Departure]:
    chosen = (one for one in found if room_id is None or one.room_id == room_id)
    return sorted(chosen, key=lambda one: one.left_at)


def _entry_order(entry_id: bytes) -> tuple[int, int]:
    at, _, number = entry_id.partition(b"-")
    return int(at), int(number)


def milliseconds_ago(seconds: float) -> int:
    """Return the time (ms since 1970) that many seconds ago, by this machine's clock."""
    return int((time() - seconds) * 1000)


async def _all(commands: Iterable[Awaitable[Any]]) -> list[Any]:
    """Return all replies once every command has ended, so that none goes on after one of them has failed."""
    replies = await gather(*commands, return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return replies
