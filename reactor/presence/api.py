"""The Python API for back ends: who is in which room, directly from Redis and without a server process.

    async with Presence.open("redis://localhost:6379") as presence:
        for member in await presence.members("lobby"):
            print(member.username)

Answers are exact by Redis's own clock: an expired member is never listed or counted.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct, json

from reactor.backend.connect import open_backend, target_of
from reactor.backend.interface import Backend
from reactor.backend.target import Target
from reactor.errors import FormatMismatch, RedisUnreachable, Refused, SettingError
from reactor.presence.bans import BY as BAN_BY
from reactor.presence.bans import FOR, Ban, Bans, TooManyBans
from reactor.presence.bans import MESSAGE as BAN_MESSAGE
from reactor.presence.departures import Departures
from reactor.presence.format import NamespaceFormat, default_shards
from reactor.presence.keys import Entry, Keyspace
from reactor.presence.lua_sources import lua_sources
from reactor.presence.people import PeopleStore, PersonInfo
from reactor.presence.person_watch import PersonWatches
from reactor.presence.revocations import RevocationStore, TooManyRevocations, checked_time
from reactor.presence.rows import Departure, built_member
from reactor.presence.store import Store
from reactor.presence.watch import Watches
from reactor.protocol.events import RoomEvent
from reactor.protocol.ids import clean_id
from reactor.protocol.json_value import json_copy
from reactor.protocol.messages import Member, ProtocolError
from reactor.settings import Settings
from reactor.settings.load import load

_LONGEST_ID = 4096
"""Bytes of the longest id that the setting `max_id` allows."""
READ_AGAIN = 60.0
"""Seconds after which users who are watched are read again, where the setting `sweep_interval` is off."""
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

    def __init__(self, settings: Settings, target: Target, backend: Backend, tasks: TaskGroup) -> None:
        keys = Keyspace(settings.namespace, target.db)
        self._format = NamespaceFormat(
            backend.runner, keys, shards=settings.shards, default=default_shards(target.kind),
            on_mismatch=self._on_mismatch,
        )  # fmt: skip
        self._store = Store(backend.runner, keys)
        self._departures = Departures(backend.client_of, keys)
        self._bans = Bans(backend.runner, keys)
        self._revocations = RevocationStore(backend.runner, keys)
        self._people = PeopleStore(backend.runner, keys)
        self._person_watches = PersonWatches(
            backend, self._people, tasks, interval=settings.sweep_interval or READ_AGAIN
        )
        self._watches = Watches(backend, self._store, self._departures, tasks)
        tasks.start_soon(self._format.serve)

    def _on_mismatch(self, error: FormatMismatch) -> None:
        self._watches.fail(error)
        self._person_watches.fail(error)

    @classmethod
    @asynccontextmanager
    async def open(cls, where: str | Settings | None = None) -> AsyncIterator[Self]:
        """Connect to the Redis at a URL (namespace `reactor`), or to the one that the settings name.

        Without an argument it finds what the command `reactor` finds: the Redis of the environment
        (`REACTOR_REDIS_URL`) or of the file that `REACTOR_CONFIG` names, or else the embedded server of a
        `reactor serve` that this user runs on this machine.

        Raises RedisUnreachable, RedisMisconfigured, RedisTooOld, FormatMismatch or SettingError, each with
        its fix.
        """
        if isinstance(where, str):
            settings = Settings(redis_url=where)
        else:
            settings = _with_redis(load() if where is None else where)
        target = target_of(settings)
        backend = await open_backend(
            target, lua_sources(departures_kept=settings.departures_kept, database=target.db)
        )
        raised: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                for loop in backend.loops:
                    tasks.start_soon(loop)
                try:
                    presence = cls(settings, target, backend, tasks)
                    await presence._format.check()
                    yield presence
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
        await self._format.check()
        found: list[RoomInfo] = []
        for shard in self._store.keys.shards:
            counts = await self._store.rooms(shard)
            found += [RoomInfo(room_id=room_id, count=count) for room_id, count in counts.items()]
        return sorted(found, key=lambda room: (-room.count, room.room_id))

    async def scan_rooms(self) -> AsyncIterator[RoomInfo]:
        """Yield the rooms that have members, in no order, while they are read; one may come twice."""
        await self._format.check()
        for shard in self._store.keys.shards:
            cursor = "0"
            while True:
                cursor, counts = await self._store.rooms_page(shard, cursor)
                for room_id, count in counts.items():
                    yield RoomInfo(room_id=room_id, count=count)
                if cursor == "0":
                    break

    async def members(self, room_id: str) -> list[Member]:
        """Return the room's members, in the order in which they joined."""
        await self._format.check()
        listing = await self._store.members(room_id)
        members = map(built_member, listing.members)
        return sorted(members, key=lambda member: (member.joined_at, member.user_id))

    async def count(self, room_id: str) -> int:
        """Return the number of the room's members."""
        await self._format.check()
        return (await self._store.count(room_id)).count

    async def is_present(self, room_id: str, user_id: str) -> bool:
        """Return whether the user is in the room."""
        await self._format.check()
        return await self._store.is_present(Entry(room_id, user_id))

    async def user(self, user_id: str) -> PersonInfo:
        """Return whether a user is online, since when or when last seen, and in which rooms.

        Raises SettingError for an id that no user can have.
        """
        (person,) = await self.users([user_id])
        return person

    async def users(self, user_ids: Iterable[str]) -> list[PersonInfo]:
        """Return the same of several users, in this order; a thousand take about as long as one.

        Raises SettingError.
        """
        users = _users(user_ids)
        await self._format.check()
        return await self._people.people(users)

    async def watch_users(self, user_ids: Iterable[str]) -> AsyncGenerator[PersonInfo]:
        """Yield users as they are now, and each of them again whenever it changes; without `connections`.

        What is yielded is what the index says: for the truth of the moment, ask `users`. Without any user it
        ends at once, since no one can be added. Raises SettingError.
        """
        users = _users(user_ids)
        await self._format.check()
        if not users:
            return
        self._format.pin()
        async with aclosing(self._person_watches.watch(users)) as people:
            async for person in people:
                yield person

    async def erase(self, user_id: str) -> bool:
        """Forget when a user was last seen; return whether that was on record.

        A user who is online leaves a new record with the next departure: kick the user first. The user's
        departures stay in the log of departures until they are too old. Raises SettingError.
        """
        user_id = _id("user_id", user_id)
        await self._format.check()
        return await self._people.erase(user_id)

    async def kick(self, room_id: str, user_id: str, message: str | None = None) -> bool:
        """Remove a user from a room, with all connections; return whether the user was a member.

        message: sent to the user's clients with `room:force-leave`.
        """
        await self._format.check()
        return await self._store.kick(Entry(room_id, user_id), message or "")

    async def ban(
        self,
        user_id: str,
        room_id: str | None = None,
        *,
        for_: float | str,
        message: str | None = None,
        by: str | None = None,
    ) -> Ban:
        """Ban a user from a room, or from every room; return the ban once it holds on every server.

        The user's memberships there end with the reason `banned`, and joins are refused until the ban ends.
        It replaces an earlier ban of the user there. Where this raises Unavailable it may hold in part:
        repeat it.

        for_: how long, in seconds or as text such as `10m` or `30d`; from 1 s to a year. message: a text of
        1 to 500 characters on one line that the user receives. by: who decided it, of 1 to 200 characters;
        it is kept for `bans`, and is not sent to clients. Raises SettingError for an argument that is not
        valid, and TooManyBans.
        """
        user_id = _id("user_id", user_id)
        room_id = _id("room_id", room_id) if room_id is not None else None
        seconds = FOR.read("for_", for_)
        await self._format.check()
        message = BAN_MESSAGE.read("message", message) if message else ""
        by = BAN_BY.read("by", by) if by else ""
        return await self._bans.ban(user_id, room_id, seconds=seconds, message=message or "", by=by or "")

    async def unban(self, user_id: str, room_id: str | None = None) -> bool:
        """Lift the ban of a user from a room, or the one from every room; return whether there was one.

        The two are separate: lifting one leaves the other. Raises SettingError.
        """
        user_id = _id("user_id", user_id)
        room_id = _id("room_id", room_id) if room_id is not None else None
        await self._format.check()
        return await self._bans.unban(user_id, room_id)

    async def bans(self) -> AsyncIterator[Ban]:
        """Yield the bans that have not ended, read in pages: those from every room first."""
        await self._format.check()
        async for ban in self._bans.all():
            yield ban

    async def revoke(self, user_id: str, issued_before: int | None = None) -> int:
        """Revoke the tokens of a user that were issued up to a time, on every server; return that time.

        Open sockets that such a token opened are closed (4001), and it is refused from now on, for the
        setting `revocation_kept`. A token without the claim `iat` counts as issued before. The memberships of
        the sockets have their disconnect grace.

        issued_before: milliseconds since 1970; None for now, as is a time to come. An earlier revocation up
        to a later time goes on. Raises SettingError for another argument, and TooManyRevocations.
        """
        user_id = _id("user_id", user_id)
        issued_before = checked_time("issued_before", issued_before)
        await self._format.check()
        return await self._revocations.revoke(user_id, issued_before)

    async def say(self, room_id: str, data: Any) -> int:
        """Send a message (any JSON value) to all members of a room; return how many servers received it.

        Clients receive it as `room:message`, at most once; it is not stored for members that join later.
        Raises Refused, with the code `bad_request` for data that is not JSON, `too_big` for more than 64 KiB.
        """
        encoded = json.encode(json_copy(data, "data"))
        if len(encoded) > MAX_MESSAGE_BYTES:
            raise Refused(
                f"data takes {len(encoded)} bytes as JSON, the limit is {MAX_MESSAGE_BYTES}: send less",
                "too_big",
            )
        await self._format.check()
        _, nodes = await self._store.publish_message(room_id, encoded)
        return nodes

    async def totals(self) -> Counter[str]:
        """Return the number of departures by reason, in all rooms, since the namespace was created."""
        await self._format.check()
        return await self._departures.totals()

    async def departures(
        self, room_id: str | None = None, *, since: int | None = None, follow: bool = False
    ) -> AsyncIterator[Departure]:
        """Yield departures and their reasons, oldest first.

        Of one room or all, since a time (ms since 1970); with `follow`, also those to come.
        """
        await self._format.check()
        if follow:
            self._format.pin()
        positions = await self._departures.positions(room_id) if follow else {}
        for departure in await self._departures.read(room_id=room_id, since=since or 0, until=positions):
            yield departure
        if follow:
            async for departure in self._departures.follow(positions, room_id=room_id):
                self._format.check_known()
                yield departure

    async def watch(self, room_id: str) -> AsyncGenerator[RoomEvent]:
        """Yield a room's events: first the whole list as a `sync`, then each join, update and leave.

        No event is repeated or omitted: after a lost connection the list is compared with the state
        before, and the differences follow as events.
        """
        await self._format.check()
        self._format.pin()
        async with aclosing(self._watches.watch(room_id)) as events:
            async for event in events:
                yield event


def _id(name: str, value: object) -> str:
    """Return an id as text. Raises SettingError for one that no user and no room can have."""
    try:
        return clean_id(value, name, _LONGEST_ID)
    except ProtocolError as error:
        raise SettingError(f"{error.message}.") from None


def _users(user_ids: Iterable[str]) -> list[str]:
    if isinstance(user_ids, str):
        raise SettingError(f"user_ids takes a list of user ids, not the text {user_ids!r}: use user().")
    return [_id("a user in user_ids", user_id) for user_id in user_ids]


def _with_redis(settings: Settings) -> Settings:
    if settings.redis_url is not None:
        return settings
    try:
        from reactor.backend.embedded import running_urls  # noqa: PLC0415 - for POSIX alone
    except ImportError:
        urls = []
    else:
        urls = running_urls()
    if not urls:
        raise RedisUnreachable(
            "No Redis is named, and this user runs no `reactor serve` with an embedded server here. "
            "Name one as the argument of Presence.open, or by REACTOR_REDIS_URL."
        )
    return replace(settings, redis_url=urls[0])


__all__ = [
    "Ban",
    "Departure",
    "Member",
    "PersonInfo",
    "Presence",
    "RoomEvent",
    "RoomInfo",
    "TooManyBans",
    "TooManyRevocations",
]
