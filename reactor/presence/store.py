"""Presence in Redis: one typed coroutine for each transition in `lua/`.

Each raises `Unavailable` when Redis did not answer. All are safe to ask for again: a connection that is
already there joins as before, and one that is gone leaves nothing to take away.
"""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from reactor.backend.interface import Runner
from reactor.errors import Unavailable
from reactor.presence.keys import Entry, escape, shard_of, shard_prefix
from reactor.presence.rows import members_from_flat, room_from
from reactor.protocol.messages import Member

PAGE = 1000
"""Rows a page when a large room is listed or audited."""


class Joined(Struct, frozen=True, gc=False):
    """A joining that Redis took. `diff` is what was published for it, or empty when nobody had to be told."""

    resumed: bool
    now: int
    epoch: str
    version: int
    count: int
    joined_at: int
    diff: bytes


class JoinRefused(Struct, frozen=True, gc=False):
    """Why a joining was not taken.

    The room is full, the member departed meanwhile, or this node was judged lost.
    """

    reason: Literal["full", "departed", "fenced"]
    count: int = 0


class Updated(Struct, frozen=True, gc=False):
    """A change of a member that Redis took, and the room's version from which on it holds."""

    now: int
    epoch: str
    version: int
    diff: bytes


class Position(Struct, frozen=True, gc=False):
    """Where a room stands, exactly, by Redis's clock."""

    now: int
    epoch: str
    version: int
    count: int


class RoomListing(Struct, frozen=True, gc=False):
    """A room's members. They are those of `position`, or newer by what diffs after it say."""

    position: Position
    members: list[Member]


class Claimed(Struct, frozen=True, gc=False):
    """A departure that this call made, with how late it was (ms after the deadline noted; 0 without one)."""

    suffix: str
    reason: str
    lateness: float


class Due(Struct, frozen=True, gc=False):
    """What a look at a shard's deadlines found. `next_deadline` is None for a shard with nobody in it."""

    now: int
    next_deadline: int | None
    moved: int
    gone: list[str]


class Audit(Struct, frozen=True, gc=False):
    """A page of the sweep's audit."""

    cursor: int
    large_rooms: list[str]
    gone: list[str]


class Store:
    """The transitions of one namespace."""

    def __init__(self, runner: Runner, namespace: str) -> None:
        self._runner = runner
        self.namespace = namespace

    def _prefix(self, room_id: str) -> str:
        return shard_prefix(self.namespace, shard_of(room_id))

    async def _run_for_room(self, script: str, room_id: str, *args: str | bytes | int) -> Any:
        return await self._runner.run(script, self._prefix(room_id), escape(room_id), *args)

    async def _run_until_settled(self, script: str, room_id: str, *args: str | bytes | int) -> Any:
        """Run a script that settles at most one batch of lapsed members a call, until it could answer."""
        while True:
            reply = await self._run_for_room(script, room_id, *args)
            if reply[0] != b"again":
                return reply

    async def join(
        self,
        entry: Entry,
        connection: str,
        *,
        ttl: int,
        username: str = "",
        data: bytes = b"",
        max_members: int = 0,
        known_epoch: str = "",
        replaces: str = "",
        away: bool = False,
        joined_at: int | None = None,
    ) -> Joined | JoinRefused:
        """One connection of a user comes into a room. ttl: ms. data: JSON. See `join.lua`."""
        reply = await self._run_until_settled(
            "join", entry.room_id, escape(entry.user_id), entry.room_id, entry.user_id, username, data,
            connection, ttl, max_members, known_epoch, replaces, int(away), joined_at or "",
        )  # fmt: skip
        match reply:
            case [b"joined" | b"resumed" as status, now, epoch, version, count, joined_at, diff]:
                return Joined(status == b"resumed", now, epoch.decode(), version, count, joined_at, diff)
            case [b"full", count]:
                return JoinRefused("full", count)
            case [b"departed"]:
                return JoinRefused("departed")
            case [b"fenced"]:
                return JoinRefused("fenced")
            case _:
                raise Unavailable(f"Redis gave an unexpected reply to a join: {reply}")

    async def refresh(self, shard: int, node: str, members: Sequence[tuple[str, int]]) -> tuple[int, bytes]:
        """Heartbeats of a node's members, given as (suffix, ttl in ms).

        Returns Redis's time, and `1` or `0` for each member: alive or not. A fenced node's are all refused.
        """
        flat = [part for member in members for part in member]
        now, alive = await self._runner.run("refresh", shard_prefix(self.namespace, shard), node, *flat)
        return now, alive

    async def update(self, entry: Entry, *, username: str = "", data: bytes = b"") -> Updated | None:
        """Change a member's name or data (JSON); None when it is not there."""
        reply = await self._run_for_room("update", entry.room_id, escape(entry.user_id), username, data)
        if reply[0] == b"absent":
            return None
        _, now, epoch, version, diff = reply
        return Updated(now, epoch.decode(), version, diff)

    async def set_away(self, entry: Entry, connection: str, *, away: bool) -> bytes | None:
        """Note that a connection went to the background or came back.

        The diff (or b""), None when it is not there.
        """
        reply = await self._run_for_room(
            "set_away", entry.room_id, escape(entry.user_id), connection, int(away)
        )
        return None if reply[0] == b"absent" else reply[2]

    async def detach(
        self, entry: Entry, connection: str, *, grace: int, away_grace: int, join_unanswered: bool = False
    ) -> Literal["absent", "kept", "grace", "departed"]:
        """A connection is gone without a word. grace, away_grace: ms.

        join_unanswered: a join of it may still be on its way, and is to be refused when it comes.
        """
        reply = await self._run_for_room(
            "detach",
            entry.room_id,
            escape(entry.user_id),
            connection,
            grace,
            away_grace,
            int(join_unanswered),
        )
        return reply[0].decode()  # type: ignore[no-any-return]

    async def leave(
        self, entry: Entry, connection: str, *, known: Member | None = None, known_epoch: str = ""
    ) -> Literal["absent", "kept", "left"]:
        """A connection leaves by its own will. known: the member as it was, in that epoch of the room."""
        face = (known_epoch, known.username, known.joined_at) if known is not None else ("", "", "")
        reply = await self._run_for_room("leave", entry.room_id, escape(entry.user_id), connection, *face)
        return reply[0].decode()  # type: ignore[no-any-return]

    async def kick(self, entry: Entry, message: str = "") -> bool:
        """Put a member out; whether the user was there."""
        found: int = await self._run_for_room("kick", entry.room_id, escape(entry.user_id), message)
        return found == 1

    async def publish_message(self, room_id: str, data: bytes) -> tuple[int, int]:
        """Say something (JSON) to everyone in the room; Redis's time (ms), and how many nodes heard it."""
        now, nodes = await self._run_for_room("publish_message", room_id, data)
        return now, nodes

    async def is_present(self, entry: Entry) -> bool:
        """Whether the user is in the room now, by Redis's clock."""
        found: int = await self._run_for_room("is_present", entry.room_id, escape(entry.user_id))
        return found == 1

    async def count(self, room_id: str) -> Position:
        """Where the room stands, with those settled whose time is up."""
        now, epoch, version, count = await self._run_until_settled("count", room_id)
        return Position(now, epoch.decode(), version, count)

    async def members(self, room_id: str) -> RoomListing:
        """Who is in the room, at the position of the first page: the diffs after it make it exact."""
        first: Position | None = None
        members: dict[str, Member] = {}
        cursor: int | bytes = 0
        while True:
            now, epoch, version, count, cursor, *flat = await self._run_until_settled(
                "list", room_id, cursor, PAGE
            )
            first = first or Position(now, epoch.decode(), version, count)
            members.update((member.user_id, member) for member in members_from_flat(flat))
            if cursor == b"0":
                return RoomListing(first, list(members.values()))

    async def still_members(self, room_id: str, members: Sequence[Member]) -> list[Member]:
        """Of members that are not listed in the room, those whose departure is still to come."""
        found: list[Member] = []
        for start in range(0, max(len(members), 1), PAGE):
            page = {escape(one.user_id).encode(): one for one in members[start : start + PAGE]}
            flat = [part for user, one in page.items() for part in (user, one.joined_at)]
            found += [page[user] for user in await self._run_for_room("still_members", room_id, *flat)]
        return found

    async def rooms(self, shard: int) -> dict[str, int]:
        """The shard's rooms with their counts."""
        found: dict[str, int] = {}
        cursor: int | bytes = 0
        while True:
            cursor, *flat = await self._runner.run(
                "list_rooms", shard_prefix(self.namespace, shard), cursor, 100
            )
            found.update((room_from(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2))
            if cursor == b"0":
                return found

    async def claim(self, shard: int, suffixes: Sequence[str]) -> list[Claimed]:
        """Make the departures of those among the named whose key is gone and who were not claimed yet."""
        flat = [part for text in suffixes for part in text.split(":user:", 1)]
        now, *rows = await self._runner.run("claim", shard_prefix(self.namespace, shard), *flat)
        return [
            Claimed(rows[i].decode(), rows[i + 1].decode(), max(0.0, now - float(rows[i + 2])))
            for i in range(0, len(rows), 3)
        ]

    async def due(self, shard: int, *, limit: int, retry: int) -> Due:
        """Look at the members whose noted deadline has passed.

        Retry: ms until a room with gone ones comes up again.
        """
        now, following, moved, gone = await self._runner.run(
            "due", shard_prefix(self.namespace, shard), limit, retry
        )
        return Due(now, None if following < 0 else following, moved, [text.decode() for text in gone])

    async def audit(self, shard: int, cursor: int) -> Audit:
        """A page of the shard's rooms; large ones are named, for `audit_room`."""
        following, large, gone = await self._runner.run(
            "audit_rooms", shard_prefix(self.namespace, shard), cursor, 20
        )
        return Audit(int(following), [room_from(room) for room in large], [text.decode() for text in gone])

    async def audit_room(self, room_id: str, cursor: int) -> Audit:
        """A page of one large room."""
        following, gone = await self._run_for_room("audit_room", room_id, cursor, PAGE)
        return Audit(int(following), [], [text.decode() for text in gone])

    async def renew_epoch(self, room_id: str, run: str) -> bool:
        """Begin a new epoch of the room, once for each life of the server that `run` names."""
        begun: int = await self._run_for_room("renew_epoch", room_id, run)
        return begun == 1

    async def repeat_departure(self, entry: Entry, *, joined_at: int, reason: str, left_at: int) -> bool:
        """End a member that came back with an older state of Redis; whether it had. Times are ms."""
        found: int = await self._run_for_room(
            "repeat_departure", entry.room_id, escape(entry.user_id), joined_at, reason, left_at
        )
        return found == 1

    async def record_lost_member(self, room_id: str, member: Member, reason: str) -> str | None:
        """Put a departure on record of a member that Redis lost.

        The reason that is on record now, this one or an earlier one; None when the member is there.
        """
        recorded: bytes = await self._run_for_room(
            "record_lost_member", room_id, escape(member.user_id), member.username, reason,
            member.joined_at, member.last_active_at,
        )  # fmt: skip
        return recorded.decode() or None

    async def mark_shard_alive(
        self, shard: int, *, lease: int, servers: str = "", all_there: bool = False
    ) -> int:
        """Say that a node lives and the shard takes its writes. lease: ms. servers: see `Backend.run_id`.

        Returns the time (ms) until which ends by time do not count, since nobody could speak up for a
        while, or not all have on this server; or 0.
        """
        prefix = shard_prefix(self.namespace, shard)
        hold: int = await self._runner.run("mark_shard_alive", prefix, lease, servers, int(all_there))
        return hold

    async def fence_node(self, shard: int, node: str) -> list[str]:
        """Refuse a lost node's heartbeats from here on.

        Some of the rooms that `lose_node` has still to go through.
        """
        rooms = await self._runner.run("fence_node", shard_prefix(self.namespace, shard), node, 100)
        return [room_from(room) for room in rooms]

    async def detach_node(self, node: str, room_id: str, *, grace: int, away_grace: int) -> None:
        """Put a lost node's members of one room under the grace (ms)."""
        prefix = self._prefix(room_id)
        while await self._runner.run("detach_node", prefix, node, escape(room_id), grace, away_grace) == 1:
            pass
