"""Presence in Redis: one typed coroutine for each script in `lua/`.

Each raises Unavailable when Redis did not answer; whether the script ran is then unknown. All can be
repeated: a connection that has joined joins as before, and one that was removed leaves nothing to remove.
Times are milliseconds, by Redis's clock.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from reactor.backend.interface import Runner
from reactor.errors import Unavailable
from reactor.presence.keys import Entry, escape, shard_of, shard_prefix
from reactor.presence.rows import members_from_flat, room_from
from reactor.protocol.messages import Member

PAGE = 1000
"""Rows a page when a large room is listed or audited."""
AUDIT_PAGE = 20
"""Rooms a page of the sweep's audit."""
ROOMS_PAGE = 100
"""Rooms a page when a shard's rooms are listed, or a lost node's."""


class Joined(Struct, frozen=True, gc=False):
    """An accepted join. `diff` is what was published for it, or empty when nothing visible changed.

    resumed: the user was a member before, by another connection or within the disconnect grace.
    """

    resumed: bool
    now: int
    epoch: str
    version: int
    count: int
    joined_at: int
    diff: bytes


class JoinRefused(Struct, frozen=True, gc=False):
    """Why a join was refused.

    reason: `full` (the room has `count` members); `departed` (the membership that was to be registered again
    has ended, or the connection was detached); `fenced` (this node was judged lost).
    """

    reason: Literal["full", "departed", "fenced"]
    count: int = 0


class Updated(Struct, frozen=True, gc=False):
    """An accepted change of a member, and the room's version from which on it holds."""

    now: int
    epoch: str
    version: int
    diff: bytes


class Position(Struct, frozen=True, gc=False):
    """A room's epoch, version and exact count at a time."""

    now: int
    epoch: str
    version: int
    count: int


class RoomListing(Struct, frozen=True, gc=False):
    """A room's members, at `position` or newer; the diffs after that position make the list exact."""

    position: Position
    members: list[Member]


class Claimed(Struct, frozen=True, gc=False):
    """A departure that this call made; lateness: ms after the stored deadline, 0 before it."""

    suffix: str
    reason: str
    lateness: float


class Due(Struct, frozen=True, gc=False):
    """The result of a scan of a shard's deadlines.

    next_deadline: of the shard, or None when it is empty. moved: members whose deadline moved forward. gone:
    suffixes of members whose presence key is gone.
    """

    now: int
    next_deadline: int | None
    moved: int
    gone: list[str]


class Audit(Struct, frozen=True, gc=False):
    """A page of the sweep's audit: rooms too large for it, and suffixes of members whose key is gone."""

    cursor: int
    large_rooms: list[str]
    gone: list[str]


class Store:
    """The scripts of one namespace."""

    def __init__(self, runner: Runner, namespace: str) -> None:
        self._runner = runner
        self.namespace = namespace

    # One member

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
        """Join a user to a room over one connection (`NODE.SEQUENCE`), or register a membership again.

        ttl: ms. data: JSON, or empty to keep the stored one, as for username. max_members: 0 for no limit.

        To register again: known_epoch, the room's epoch in which the connection was a member (`*` for any);
        replaces, the connection's former name; joined_at, when the member had joined (ms).
        """
        reply = await _until_settled(
            self._run_for_member, "join", entry, *entry, username, data, connection, ttl, max_members,
            known_epoch, replaces, int(away), joined_at or "",
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
        """Renew the TTL of a node's members, given as (suffix, TTL in ms).

        Returns Redis's time and a byte for each member: `1` if it is alive, else `0`. All are `0` when the
        node is fenced.
        """
        flat = [part for member in members for part in member]
        now, alive = await self._runner.run("refresh", shard_prefix(self.namespace, shard), node, *flat)
        return now, alive

    async def update(self, entry: Entry, *, username: str = "", data: bytes = b"") -> Updated | None:
        """Change a member's username or data (JSON); empty keeps the stored one. None for no member."""
        reply = await self._run_for_member("update", entry, username, data)
        if reply[0] == b"absent":
            return None
        _, now, epoch, version, diff = reply
        return Updated(now, epoch.decode(), version, diff)

    async def set_away(self, entry: Entry, connection: str, *, away: bool) -> bytes | None:
        """Set whether a connection is in the background.

        Returns the published diff, b"" when nothing visible changed, or None when the connection is not in
        the room.
        """
        reply = await self._run_for_member("set_away", entry, connection, int(away))
        return None if reply[0] == b"absent" else reply[2]

    async def detach(
        self, entry: Entry, connection: str, *, grace: int, away_grace: int, join_unanswered: bool = False
    ) -> Literal["absent", "kept", "grace", "departed"]:
        """Detach a lost connection; with the member's last one its grace begins (ms; 0 removes it at once).

        join_unanswered: a join of it got no reply and may still arrive; it is then refused.

        Returns `kept` while the member has other connections, and `absent` when there is no such member.
        """
        reply = await self._run_for_member(
            "detach", entry, connection, grace, away_grace, int(join_unanswered)
        )
        return reply[0].decode()  # type: ignore[no-any-return]

    async def leave(
        self, entry: Entry, connection: str, *, known: Member | None = None, known_epoch: str = ""
    ) -> Literal["absent", "kept", "left"]:
        """Remove a connection by request; with the member's last one the member leaves.

        known, known_epoch: the member as last seen, and the room's epoch then. If Redis lost it since, its
        departure is recorded from them.
        """
        last_seen = (known_epoch, known.username, known.joined_at) if known is not None else ("", "", "")
        reply = await self._run_for_member("leave", entry, connection, *last_seen)
        return reply[0].decode()  # type: ignore[no-any-return]

    async def kick(self, entry: Entry, message: str = "") -> bool:
        """Remove a member with all its connections; return whether the user was a member."""
        found: int = await self._run_for_member("kick", entry, message)
        return found == 1

    async def is_present(self, entry: Entry) -> bool:
        """Return whether the user is in the room now."""
        found: int = await self._run_for_member("is_present", entry)
        return found == 1

    async def repeat_departure(self, entry: Entry, *, joined_at: int, reason: str, left_at: int) -> bool:
        """Remove a member that Redis holds again after it went back to an older state.

        joined_at: of the membership that ended, left_at: when it did (ms). Returns whether it was removed.
        """
        found: int = await self._run_for_member("repeat_departure", entry, joined_at, reason, left_at)
        return found == 1

    async def record_lost_member(self, room_id: str, member: Member, reason: str) -> str | None:
        """Record the departure of a member that Redis lost.

        Returns the recorded reason, which is an earlier one where there is one; None when it is a member.
        """
        recorded: bytes = await self._run_for_member(
            "record_lost_member", Entry(room_id, member.user_id), member.username, reason,
            member.joined_at, member.last_active_at,
        )  # fmt: skip
        return recorded.decode() or None

    # One room

    async def count(self, room_id: str) -> Position:
        """Return a room's position and exact count."""
        now, epoch, version, count = await _until_settled(self._run_for_room, "count", room_id)
        return Position(now, epoch.decode(), version, count)

    async def members(self, room_id: str) -> RoomListing:
        """Return a room's members."""
        first: Position | None = None
        members: dict[str, Member] = {}
        cursor: int | bytes = 0
        while True:
            now, epoch, version, count, cursor, *flat = await _until_settled(
                self._run_for_room, "list", room_id, cursor, PAGE
            )
            first = first or Position(now, epoch.decode(), version, count)
            members.update((member.user_id, member) for member in members_from_flat(flat))
            if cursor == b"0":
                return RoomListing(first, list(members.values()))

    async def still_members(self, room_id: str, members: Sequence[Member]) -> list[Member]:
        """Return those of some members, whom a list of the room lacks, whose membership has not ended."""
        found: list[Member] = []
        for start in range(0, max(len(members), 1), PAGE):
            page = {escape(one.user_id).encode(): one for one in members[start : start + PAGE]}
            flat = [part for user, one in page.items() for part in (user, one.joined_at)]
            found += [page[user] for user in await self._run_for_room("still_members", room_id, *flat)]
        return found

    async def publish_message(self, room_id: str, data: bytes) -> tuple[int, int]:
        """Publish a message (JSON) to a room; return Redis's time and how many nodes received it."""
        now, nodes = await self._run_for_room("publish_message", room_id, data)
        return now, nodes

    async def renew_epoch(self, room_id: str, run: str) -> bool:
        """Begin a new epoch of the room, once for each life of the server, which `run` names.

        Returns whether this call began it.
        """
        begun: int = await self._run_for_room("renew_epoch", room_id, run)
        return begun == 1

    async def audit_room(self, room_id: str, cursor: int) -> Audit:
        """Audit a page of one large room; cursor: 0 to begin, and 0 in the result of the last page."""
        following, gone = await self._run_for_room("audit_room", room_id, cursor, PAGE)
        return Audit(int(following), [], [text.decode() for text in gone])

    async def detach_node(self, node: str, room_id: str, *, grace: int, away_grace: int) -> None:
        """Detach all connections of a lost node from one room. grace, away_grace: ms, as for `detach`."""
        prefix = self._prefix(room_id)
        while await self._runner.run("detach_node", prefix, node, escape(room_id), grace, away_grace) == 1:
            pass

    # One shard

    async def rooms(self, shard: int) -> dict[str, int]:
        """Return the shard's rooms with their counts."""
        found: dict[str, int] = {}
        cursor: int | bytes = 0
        while True:
            cursor, *flat = await self._run_in_shard("list_rooms", shard, cursor, ROOMS_PAGE)
            found.update((room_from(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2))
            if cursor == b"0":
                return found

    async def claim(self, shard: int, suffixes: Sequence[str]) -> list[Claimed]:
        """Make the departures of those members whose key is gone, and return those that this call made."""
        flat = [part for text in suffixes for part in text.split(":user:", 1)]
        now, *rows = await self._run_in_shard("claim", shard, *flat)
        return [
            Claimed(rows[i].decode(), rows[i + 1].decode(), max(0.0, now - float(rows[i + 2])))
            for i in range(0, len(rows), 3)
        ]

    async def due(self, shard: int, *, limit: int, retry: int) -> Due:
        """Scan the members whose stored deadline has passed.

        limit: rows at most. retry: ms until a room with members that are gone is due again.
        """
        now, following, moved, gone = await self._run_in_shard("due", shard, limit, retry)
        return Due(now, None if following < 0 else following, moved, [text.decode() for text in gone])

    async def audit(self, shard: int, cursor: int) -> Audit:
        """Audit a page of the shard's rooms; the result names large ones, for `audit_room`."""
        following, large, gone = await self._run_in_shard("audit_rooms", shard, cursor, AUDIT_PAGE)
        return Audit(int(following), [room_from(room) for room in large], [text.decode() for text in gone])

    async def mark_shard_alive(
        self, shard: int, *, lease: int, servers: str = "", all_there: bool = False
    ) -> int:
        """Mark a shard as alive for one lease (ms).

        servers: the run ids of the primaries, see `Backend.run_id`. all_there: every node has registered its
        members on these. Returns the time until which expiry is suspended, or 0.
        """
        suspended_until: int = await self._run_in_shard(
            "mark_shard_alive", shard, lease, servers, int(all_there)
        )
        return suspended_until

    async def fence_node(self, shard: int, node: str) -> list[str]:
        """Refuse a lost node's calls from here on.

        Returns some of the rooms that still need `detach_node`, and none once all are done.
        """
        rooms = await self._run_in_shard("fence_node", shard, node, ROOMS_PAGE)
        return [room_from(room) for room in rooms]

    # Private methods

    def _prefix(self, room_id: str) -> str:
        return shard_prefix(self.namespace, shard_of(room_id))

    async def _run_in_shard(self, script: str, shard: int, *args: str | bytes | int) -> Any:
        return await self._runner.run(script, shard_prefix(self.namespace, shard), *args)

    async def _run_for_room(self, script: str, room_id: str, *args: str | bytes | int) -> Any:
        return await self._runner.run(script, self._prefix(room_id), escape(room_id), *args)

    async def _run_for_member(self, script: str, entry: Entry, *args: str | bytes | int) -> Any:
        room_id, user_id = entry
        return await self._runner.run(script, self._prefix(room_id), escape(room_id), escape(user_id), *args)


async def _until_settled(run: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Repeat a script that settles a limited number of members a call, until it answers."""
    while True:
        reply = await run(*args)
        if reply[0] != b"again":
            return reply
