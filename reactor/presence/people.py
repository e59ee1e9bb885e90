"""People in Redis: one typed coroutine for each script of the index of people.

The index says in which rooms a user may be; the presence keys say whether that is so. Each call raises
Unavailable when Redis did not answer, and can be repeated. Times are milliseconds, by Redis's clock.
"""

from asyncio import gather
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import Struct, msgpack

from reactor.backend.interface import Runner
from reactor.presence.keys import Entry, Keyspace, escape, parse_suffix, unescape
from reactor.protocol.identity import OWN_ROOM
from reactor.protocol.messages import PersonStatus

T = TypeVar("T")
R = TypeVar("R")

MAX_USERS = 200
"""Users in one call of a script: about a millisecond of Redis's time."""
MAX_ROOMS = 500
"""Memberships in one call of a script."""
PAGE = 500
"""Departures, or users to forget, in one call."""

ERASED_KEPT = 60_000
"""Milliseconds for which departures from before an erasure are recognised: none waits so long for a node."""

_AWAY_MARK, _JOINING_MARK = "~", "?"  # as in lua/lib/people.lua


class Entered(StrEnum):
    """What a room that was added to a record asks for once the join has succeeded."""

    NOTHING, CONFIRM, VERIFY = "0", "1", "2"


class PersonRecord(NamedTuple):
    """What the index says of a user.

    since: when the user came online; None while offline. last_seen: the last activity of a membership that
    has ended, None where none is on record. rooms: those in which the user may be, with the token of the
    join to each. away: those of them in which the user is away. joining: those whose join is not confirmed,
    which do not count.
    """

    since: int | None
    last_seen: int | None
    rooms: dict[str, str]
    away: frozenset[str]
    joining: frozenset[str] = frozenset()

    @property
    def counted(self) -> set[str]:
        """Return the rooms whose join is confirmed."""
        return self.rooms.keys() - self.joining

    @property
    def status(self) -> PersonStatus:
        """Return the status, as far as the index knows."""
        counted = len(self.rooms) - len(self.joining)
        if not counted:
            return "offline"
        return "away" if len(self.away) >= counted else "online"


class InRoom(NamedTuple):
    """What the presence key says of a user in a room.

    present: whether it lives. suspended: it does not, and the departure does not count yet. details: the
    tokens of the joins in the index, the newest first, or the ids of the connections, as was asked for.
    last_active: of a membership whose departure the index has yet to take in, in ms.
    """

    present: bool
    suspended: bool
    away: bool
    details: tuple[str, ...]
    last_active: int | None = None


class Exit(NamedTuple):
    """A departure that the index has yet to take in.

    tokens: of the joins to the membership, between spaces. last_active: '' for a join that was refused.
    """

    entry: Entry
    tokens: str
    last_active: str


class Correction(NamedTuple):
    """What a record should say of a room. token: that it has now, '' for any; new_token: '' to keep it."""

    entry: Entry
    away: bool
    token: str = ""
    new_token: str = ""


class PersonChange(Struct, frozen=True, array_like=True):
    """What is published of a user.

    at: since when the user is online, or when last seen; 0 where that is unknown or did not change. room: the
    room that was added or removed, escaped, behind a plus or a minus sign; or ''.
    """

    status: str
    at: int
    room: str


decode_person_change = msgpack.Decoder(PersonChange).decode
"""Return a published change of a person. Raises msgspec.MsgspecError."""


class PersonInfo(Struct, frozen=True, kw_only=True, rename="camel"):
    """A user, over all rooms.

    since: when the user came online; last_seen: the last activity before that, or before the user went
    offline. Both are None where unknown, in milliseconds otherwise. connections: those that are open, on all
    nodes.
    """

    user_id: str
    status: PersonStatus
    since: int | None = None
    last_seen: int | None = None
    rooms: list[str] = []
    connections: int = 0


class PeopleStore:
    """The index of people of one namespace. keys: the names of its keys and channels."""

    def __init__(self, runner: Runner, keys: Keyspace) -> None:
        self._runner = runner
        self.keys = keys

    def channel(self, user_id: str) -> str:
        """Return the channel of a user's changes."""
        return self.keys.person_channel(user_id)

    # Changes of the index

    async def enter(self, shard: int, joins: Sequence[tuple[Entry, str]]) -> list[Entered]:
        """Add rooms to the records of users of one shard, before their joins: (member, token of the join).

        Returns for each join what is to be done once Redis has taken it.
        """
        flat = [part for entry, token in joins for part in (*_user_room(entry), token)]
        return list(map(Entered, (await self._run("enter_people", shard, *flat)).decode()))

    async def exit(self, exits: Iterable[Exit], *, keep: int) -> list[tuple[Entry, str]]:
        """Remove rooms from the records of users.

        keep: ms for which it is kept when users were last seen, 0 for not at all. Returns those with another
        token, and that token.
        """

        async def exit_of_shard(shard: int, page: Sequence[Exit]) -> list[tuple[Entry, str]]:
            flat = [part for one in page for part in (*_user_room(one.entry), one.tokens, one.last_active)]
            reply = await self._run("exit_people", shard, keep, *flat)
            return [
                (page[reply[i] - 1].entry, reply[i + 1].decode(errors="replace"))
                for i in range(0, len(reply), 2)
            ]

        return await _by_shard(
            exits, lambda one: self.keys.shard_of(one.entry.user_id), exit_of_shard, MAX_ROOMS
        )

    async def correct(self, corrections: Iterable[Correction]) -> list[Entry]:
        """Correct what records say of rooms, and confirm their joins; return those that the records lack."""

        async def correct_shard(shard: int, page: Sequence[Correction]) -> list[Entry]:
            flat = [
                part
                for one in page
                for part in (*_user_room(one.entry), one.token, one.new_token, int(one.away))
            ]
            return [page[place - 1].entry for place in await self._run("correct_people", shard, *flat)]

        return await _by_shard(
            corrections, lambda one: self.keys.shard_of(one.entry.user_id), correct_shard, MAX_ROOMS
        )

    async def erase(self, user_id: str) -> bool:
        """Forget when a user was last seen; return whether that was on record.

        That holds for departures from before, too, which are taken in within ERASED_KEPT.
        """
        erased: int = await self._run(
            "erase_person", self.keys.shard_of(user_id), escape(user_id), ERASED_KEPT
        )
        return erased == 1

    async def forget_old(self, shard: int, kept: int, most: int) -> None:
        """Forget the users of a shard who were last seen too long ago. kept: ms; 0 to forget all.

        most: users of the shard of whom it is kept; those last seen longest ago are forgotten first.
        """
        while await self._run("trim_seen", shard, kept, PAGE, most) == PAGE:
            pass

    # Departures that the index has yet to take in

    async def shards_with_exits(self) -> list[int]:
        """Return the shards that have such departures, where one server has all shards."""
        places = await self._run("find_exits", 0, *self.keys.prefixes)
        return [place - 1 for place in places]

    async def exits(self, shard: int, cursor: str) -> tuple[str, list[tuple[bytes, bytes]]]:
        """Return some departures from rooms of a shard, for `read_exit`, and the next cursor.

        cursor: "0" at first, and at the end.
        """
        following, flat = await self._run("take_exits", shard, cursor, PAGE)
        return following.decode(), list(zip(flat[::2], flat[1::2], strict=True))

    async def drop_exits(self, shard: int, exits: Sequence[tuple[bytes, bytes]]) -> None:
        """Remove departures that the index has taken in."""
        await self._run("drop_exits", shard, *[part for one in exits for part in one])

    # Reading

    async def records(self, user_ids: Iterable[str]) -> dict[str, PersonRecord]:
        """Return what the index says of users."""

        async def read_shard(shard: int, page: Sequence[str]) -> list[tuple[str, PersonRecord]]:
            reply = await self._run("read_people", shard, *map(escape, page))
            return [(user_id, _record(fields)) for user_id, fields in zip(page, reply, strict=True)]

        return dict(await _by_shard(user_ids, self.keys.shard_of, read_shard, MAX_USERS))

    async def memberships(
        self, entries: Iterable[Entry], detail: Literal["tokens", "connections"]
    ) -> dict[Entry, InRoom]:
        """Return what the presence keys say of users in rooms, and one detail."""

        async def read_shard(shard: int, page: Sequence[Entry]) -> list[tuple[Entry, InRoom]]:
            flat = [part for entry in page for part in (escape(entry.room_id), escape(entry.user_id))]
            reply = await self._run("read_memberships", shard, detail, *flat)
            return [(entry, _membership(state)) for entry, state in zip(page, reply, strict=True)]

        return dict(
            await _by_shard(entries, lambda entry: self.keys.shard_of(entry.room_id), read_shard, MAX_ROOMS)
        )

    async def people(self, user_ids: Sequence[str]) -> list[PersonInfo]:
        """Return users, in this order: where they may be by the index, and whether they are by the keys."""
        records = await self.records(dict.fromkeys(user_ids))
        entries = [Entry(room, user) for user, record in records.items() for room in record.rooms]
        states = await self.memberships(entries, "connections") if entries else {}
        return [_person(user_id, records[user_id], states) for user_id in user_ids]

    async def page(self, shard: int, cursor: str) -> tuple[str, dict[str, PersonRecord]]:
        """Return some users of a shard with a record, and the cursor of the next ones; "0" at both ends."""
        following, *flat = await self._run("audit_people", shard, cursor, MAX_USERS)
        records = {
            unescape(flat[i].decode(errors="replace")): _record(flat[i + 1]) for i in range(0, len(flat), 2)
        }
        return following.decode(), records

    # Members that records lack

    async def rooms(self, shard: int, cursor: str) -> tuple[str, dict[str, int]]:
        """Return some rooms of a shard, escaped, with their sizes, and the cursor of the next ones.

        cursor: "0" at first, and at the end.
        """
        following, *flat = await self._run("page_rooms", shard, cursor, MAX_USERS)
        return following.decode(), {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}

    async def tokens(
        self, shard: int, rooms: Sequence[tuple[str, str]], *, new_token: str
    ) -> tuple[list[tuple[str, str]], dict[Entry, str]]:
        """Return some members of rooms, each with the token of its latest join.

        rooms: (room, escaped; cursor, "0" at first). new_token: for members that have none. Returns also the
        rooms that have more, with their next cursors.
        """
        reply = await self._run(
            "page_tokens", shard, new_token, MAX_USERS, *[part for room in rooms for part in room]
        )
        more: list[tuple[str, str]] = []
        found: dict[Entry, str] = {}
        for (room, _), (cursor, *flat) in zip(rooms, reply, strict=True):
            if cursor != b"0":
                more.append((room, cursor.decode()))
            for i in range(0, len(flat), 2):
                entry = Entry(unescape(room), unescape(flat[i].decode()))
                found[entry] = flat[i + 1].decode().partition(" ")[0]
        return more, found

    async def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the members that the records of their users lack, or hold without a confirmed join."""

        async def missing_in(shard: int, page: Sequence[Entry]) -> list[Entry]:
            flat = [part for entry in page for part in _user_room(entry)]
            return [page[place - 1] for place in await self._run("missing_people", shard, *flat)]

        return await _by_shard(
            entries, lambda entry: self.keys.shard_of(entry.user_id), missing_in, MAX_ROOMS
        )

    # Private methods

    async def _run(self, script: str, shard: int, *args: str | bytes | int) -> Any:
        return await self._runner.run(script, self.keys.prefixes[shard], *args)


def read_exit(field: bytes, value: bytes) -> Exit:
    """Return a departure as `PeopleStore.exits` gives it."""
    last_active, _, tokens = value.decode(errors="replace").partition(" ")
    return Exit(parse_suffix(field.decode(errors="replace")), tokens, last_active)


async def _by_shard(
    items: Iterable[T],
    shard: Callable[[T], int],
    call: Callable[[int, Sequence[T]], Awaitable[Iterable[R]]],
    page: int,
) -> list[R]:
    """Call with the items of each shard, in pages, all at once; return all results."""
    shards: defaultdict[int, list[T]] = defaultdict(list)
    for item in items:
        shards[shard(item)].append(item)
    calls = [
        call(number, found[start : start + page])
        for number, found in shards.items()
        for start in range(0, len(found), page)
    ]
    return [result for results in await gather(*calls) for result in results]


def _user_room(entry: Entry) -> tuple[str, str]:
    return escape(entry.user_id), escape(entry.room_id)


def _record(reply: Any) -> PersonRecord:
    if not isinstance(reply, list):
        return PersonRecord(None, _time(reply), {}, frozenset())
    rooms: dict[str, str] = {}
    away: set[str] = set()
    joining: set[str] = set()
    noted: dict[str, bytes] = {}
    for i in range(0, len(reply), 2):
        field = reply[i].decode(errors="replace")
        if field.startswith(":"):
            noted[field] = reply[i + 1]
            continue
        room, token = unescape(field), reply[i + 1].decode(errors="replace")
        if token.startswith(_AWAY_MARK):
            away.add(room)
        elif token.startswith(_JOINING_MARK):
            joining.add(room)
        rooms[room] = token.removeprefix(_AWAY_MARK).removeprefix(_JOINING_MARK)
    since, last_seen = _time(noted.get(":s")), _time(noted.get(":l"))
    return PersonRecord(since, last_seen, rooms, frozenset(away), frozenset(joining))


def _time(field: bytes | None) -> int | None:
    try:
        return int(float(field)) if field else None
    except (ValueError, OverflowError):  # edited externally
        return None


def _membership(state: bytes) -> InRoom:
    kind, *details = state.decode(errors="replace").split(" ")
    if kind == "d":
        return InRoom(False, False, False, (), _time(details[0].encode()))
    return InRoom(kind in {"o", "a"}, kind == "s", kind == "a", tuple(filter(None, details)))


def _person(user_id: str, record: PersonRecord, states: Mapping[Entry, InRoom]) -> PersonInfo:
    present = {room: state for room in record.rooms if (state := states[Entry(room, user_id)]).present}
    if not present:
        # The index may have yet to take in the departures.
        known = [states[Entry(room, user_id)].last_active for room in record.rooms]
        last_seen = max(filter(None, [record.last_seen, *known]), default=None)
        return PersonInfo(user_id=user_id, status="offline", last_seen=last_seen)
    away = all(state.away for state in present.values())
    return PersonInfo(
        user_id=user_id,
        status="away" if away else "online",
        since=record.since,
        last_seen=record.last_seen,
        rooms=shown_rooms(present),
        connections=len({one for state in present.values() for one in state.details}),
    )


def shown_rooms(rooms: Iterable[str]) -> list[str]:
    """Return rooms as others see them: sorted, and without the user's own."""
    return sorted(room for room in rooms if not room.startswith(OWN_ROOM))
