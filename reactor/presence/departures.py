"""The durable record of who left and why: a capped stream for each shard, and totals that outlive the cap."""

from asyncio import gather
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from time import time
from typing import Any

import anyio
from redis.asyncio import Redis

from reactor.backend.clients import errors_as_unavailable
from reactor.presence.keys import SHARDS, departures_stream, shard_of, shard_prefix
from reactor.presence.rows import Departure, departure_from_stream

PAGE = 1000
FOLLOW_EVERY = 0.5
"""Seconds between looks at streams in which nothing came. On a cluster no one command waits for all."""

PAGE_BACK, LOOKED_THROUGH = 500, 20_000
MARGIN = 60_000
"""Milliseconds by which the clocks of a primary and of the replica that took over may differ."""

MembershipKey = tuple[str, int]
"""A user's id, and when it joined (ms): what tells one stay in a room from another."""

AT_ONCE = 4
"""Questions on their way at most, each of which takes a connection: after a gap all rooms ask at once."""


class Departures:
    """Reads the streams of one namespace. All raise Unavailable when Redis does not answer.

    client_of: the client of the server that has a key.
    """

    def __init__(self, client_of: Callable[[str], Redis], namespace: str) -> None:
        self._client_of = client_of
        self._turns = anyio.CapacityLimiter(AT_ONCE)
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
        found: list[Departure] = []
        for stream in self._streams(room_id):
            start, end = str(since), (until or {}).get(stream, "+")
            while True:
                page = await self._ask("xrange", stream, min=start, max=end, count=PAGE)
                found += _departures(page)
                if len(page) < PAGE:
                    break
                start = f"({page[-1][0].decode()}"
        return _of_room(found, room_id)

    async def page(
        self, after: Mapping[str, str], *, room_id: str | None = None, since: int = 0, limit: int
    ) -> tuple[list[Departure], dict[str, str]]:
        """Up to `limit` departures behind some positions, oldest first; and the positions behind those.

        since: ms, where there is no position. What is of other rooms is passed over, up to `PAGE` of it a
        stream: there may be more although none was found, if the positions have moved.
        """
        streams = self._streams(room_id)
        starts = [f"({after[stream]}" if stream in after else str(since) for stream in streams]
        count = limit if room_id is None else PAGE
        pages = await _all(
            self._ask("xrange", stream, min=start, max="+", count=count)
            for stream, start in zip(streams, starts, strict=True)
        )
        entries = [(stream, entry) for stream, page in zip(streams, pages, strict=True) for entry in page]
        entries.sort(key=lambda one: _place(one[1][0]))
        found: list[Departure] = []
        positions = dict(after)
        for stream, (entry_id, fields) in entries:
            if len(found) == limit:
                break
            positions[stream] = entry_id.decode()
            departure = departure_from_stream(entry_id, fields)
            if room_id is None or departure.room_id == room_id:
                found.append(departure)
        return found, positions

    async def follow(
        self, positions: dict[str, str], *, room_id: str | None = None
    ) -> AsyncIterator[Departure]:
        """Those that come after some positions, as they come."""
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
                await anyio.sleep(FOLLOW_EVERY)

    async def _newer(self, stream: str, after: str) -> list[Any]:
        answer = await self._ask("xread", stream, {stream: after}, count=PAGE)
        return answer[0][1] if answer else []

    async def _last_id(self, stream: str) -> str:
        newest = await self._ask("xrevrange", stream, count=1)
        return str(newest[0][0].decode()) if newest else "0"

    async def totals(self) -> Counter[str]:
        """How many left for each reason, in all rooms, since the namespace began."""
        totals: Counter[str] = Counter()
        for shard in range(SHARDS):
            counts = await self._ask("hgetall", f"{shard_prefix(self._namespace, shard)}:totals")
            totals.update({reason.decode(): int(number) for reason, number in counts.items()})
        return totals

    async def reasons(self, room_id: str, joinings: Iterable[MembershipKey]) -> dict[MembershipKey, str]:
        """Why these joinings ended, of those whose end is on record: for whoever missed the diff.

        Nothing is older than `MARGIN` before the earliest of them began, and no more than `LOOKED_THROUGH`
        entries are read.
        """
        wanted, found = set(joinings), dict[MembershipKey, str]()
        stream, newest = departures_stream(self._namespace, shard_of(room_id)), "+"
        for _ in range(LOOKED_THROUGH // PAGE_BACK):
            if not wanted:
                break
            oldest = max(0, min(joined_at for _, joined_at in wanted) - MARGIN)
            page = await self._ask("xrevrange", stream, max=newest, min=str(oldest), count=PAGE_BACK)
            for one in _departures(page):
                joining = one.user_id, one.joined_at
                if one.room_id == room_id and joining in wanted:
                    found[joining] = one.reason
                    wanted.discard(joining)
            if len(page) < PAGE_BACK:
                break
            newest = f"({page[-1][0].decode()}"
        return found

    async def _ask(self, command: str, key: str, *args: Any, **options: Any) -> Any:
        async with self._turns:
            with errors_as_unavailable():
                client = self._client_of(key)
                arguments = args or (key,)
                return await getattr(client, command)(*arguments, **options)


def _departures(page: Iterable[Any]) -> list[Departure]:
    return [departure_from_stream(entry_id, fields) for entry_id, fields in page]


def _of_room(found: list[Departure], room_id: str | None) -> list[Departure]:
    chosen = (one for one in found if room_id is None or one.room_id == room_id)
    return sorted(chosen, key=lambda one: one.left_at)


def _place(entry_id: bytes) -> tuple[int, int]:
    at, _, number = entry_id.partition(b"-")
    return int(at), int(number)


def milliseconds_ago(seconds: float) -> int:
    """The time (ms since 1970) that many seconds ago, by this machine's clock."""
    return int((time() - seconds) * 1000)


async def _all(asked: Iterable[Awaitable[Any]]) -> list[Any]:
    """All answers; where one fails none goes on behind the caller's back, over a closed client."""
    answers = await gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
