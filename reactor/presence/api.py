"""The Python API for back ends: who is in which room, directly from Redis and without a server process.

    async with Presence.open("redis://localhost:6379") as presence:
        for member in await presence.members("lobby"):
            print(member.username)

Answers are exact by Redis's own clock: an expired member is never listed or counted.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from reactor.backend.connect import open_backend
from reactor.backend.interface import Backend
from reactor.backend.target import parse_url
from reactor.presence.departures import Departures
from reactor.presence.keys import SHARDS, Entry
from reactor.presence.lua_sources import lua_sources
from reactor.presence.rows import Departure
from reactor.presence.store import Store
from reactor.presence.watch import Watches
from reactor.protocol.data import data_as_json
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Member
from reactor.settings import Settings

MAX_MESSAGE_BYTES = 65_536
"""Bytes of JSON that `say` accepts."""


class RoomInfo(Struct, frozen=True, kw_only=True, rename="camel"):
    """A room that has members, and how many."""

    room_id: str
    count: int


class Presence:
    """Reads and changes presence in one namespace; created by `Presence.open`.

    Every call raises Unavailable when Redis does not answer, and can be repeated.
    """

    def __init__(self, settings: Settings, backend: Backend, tasks: TaskGroup) -> None:
        self._store = Store(backend.runner, settings.namespace)
        self._departures = Departures(backend.client_of, settings.namespace)
        self._watches = Watches(backend, self._store, self._departures, tasks)

    @classmethod
    @asynccontextmanager
    async def open(cls, where: str | Settings) -> AsyncIterator[Self]:
        """Connect to the Redis at a URL (namespace `reactor`), or to the one that the settings name.

        Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with its fix.
        """
        settings = Settings(redis_url=where) if isinstance(where, str) else where
        target = parse_url(settings.redis_url or "")
        backend = await open_backend(target, lua_sources(departures_kept=settings.departures_kept))
        raised: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                for loop in backend.loops:
                    tasks.start_soon(loop)
                try:
                    yield cls(settings, backend, tasks)
                except BaseException as error:
                    raised = error
                    raise
                finally:
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup:
            # An exception of the caller's own block is raised as it was, not in the group of our tasks.
            if raised is None:
                raise
            raise raised from raised.__cause__
        finally:
            with anyio.CancelScope(shield=True):
                await backend.aclose()

    async def rooms(self) -> list[RoomInfo]:
        """Return the rooms that have members, the largest first."""
        found: list[RoomInfo] = []
        for shard in range(SHARDS):
            counts = await self._store.rooms(shard)
            found += [RoomInfo(room_id=room_id, count=count) for room_id, count in counts.items()]
        return sorted(found, key=lambda room: (-room.count, room.room_id))

    async def members(self, room_id: str) -> list[Member]:
        """Return the room's members, in the order in which they joined."""
        listing = await self._store.members(room_id)
        return sorted(listing.members, key=lambda member: (member.joined_at, member.user_id))

    async def count(self, room_id: str) -> int:
        """Return the number of the room's members."""
        return (await self._store.count(room_id)).count

    async def is_present(self, room_id: str, user_id: str) -> bool:
        """Return whether the user is in the room."""
        return await self._store.is_present(Entry(room_id, user_id))

    async def kick(self, room_id: str, user_id: str, message: str | None = None) -> bool:
        """Remove a user from a room, with all connections; return whether the user was a member.

        message: sent to the user's clients with `room:force-leave`.
        """
        return await self._store.kick(Entry(room_id, user_id), message or "")

    async def say(self, room_id: str, data: Any) -> int:
        """Send a message (any JSON value) to all members of a room; return how many servers received it.

        Clients receive it as `room:message`, at most once; it is not stored for members that join later.
        Raises ProtocolError for data that is not JSON, or more than 64 KiB of it.
        """
        _, nodes = await self._store.publish_message(room_id, data_as_json(data, MAX_MESSAGE_BYTES))
        return nodes

    async def totals(self) -> Counter[str]:
        """Return the number of departures by reason, in all rooms, since the namespace was created."""
        return await self._departures.totals()

    async def departures(
        self, room_id: str | None = None, *, since: int | None = None, follow: bool = False
    ) -> AsyncIterator[Departure]:
        """Yield departures and their reasons, oldest first.

        Of one room or all, since a time (ms since 1970); with `follow`, also those to come.
        """
        positions = await self._departures.positions(room_id) if follow else {}
        for departure in await self._departures.read(room_id=room_id, since=since or 0, until=positions):
            yield departure
        if follow:
            async for departure in self._departures.follow(positions, room_id=room_id):
                yield departure

    def watch(self, room_id: str) -> AsyncIterator[RoomEvent]:
        """Yield a room's events: first the whole list as a `sync`, then each join, update and leave.

        No event is repeated or omitted: after a lost connection the list is compared with the state
        before, and the differences follow as events.
        """
        return self._watches.watch(room_id)


__all__ = ["Departure", "Member", "Presence", "RoomEvent", "RoomInfo"]
