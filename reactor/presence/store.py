"""Presence in Redis: one typed coroutine for each script in `lua/`.

Each raises Unavailable when Redis did not answer; whether the script ran is then unknown. All can be
repeated: a connection that has joined joins as before, and one that was removed leaves nothing to remove.
Times are milliseconds, by Redis's clock.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec import Raw, json

from reactor.backend.interface import Runner
from reactor.errors import Unavailable
from reactor.presence.bans import ban_from
from reactor.presence.changes import LOG_TTL_MS
from reactor.presence.keys import Entry, Keyspace, escape, raw_of, text_of, unescape
from reactor.presence.replies import (
    Audit,
    Claimed,
    DetachOutcome,
    Due,
    Joined,
    JoinRefused,
    Position,
    RoomListing,
    ShardMark,
    Updated,
    UpdateRefused,
)
from reactor.presence.rows import (
    MESSAGE_OF_APPLICATION,
    MESSAGE_OF_MEMBER,
    MIN_PAGE,
    LeftRow,
    MessageRow,
    data_size,
    members_from_flat,
    next_page_size,
    room_from,
)
from reactor.protocol.intents import FormerJoining
from reactor.protocol.messages import Member
from reactor.protocol.reasons import KICKED

T = TypeVar("T")

PAGE = 1000
"""Rows a page when a large room is audited, or members are looked up in it."""
MAX_LISTED = 100
"""Members of a page that a client asks for, at most, about: half a megabyte with the largest data."""
AUDIT_PAGE = 20
"""Rooms a page of the sweep's audit."""
ANSWER_TIME = 1.0
"""Seconds that nodes have, once `ask_nodes` asked, to register a member again that Redis may have evicted."""
ROOMS_PAGE = 100
"""Rooms a page when a shard's rooms are listed, or a lost node's."""


class LostConnection(NamedTuple):
    """A connection that is to be detached, and what `Store.detach` takes with it."""

    entry: Entry
    connection: str
    grace: int
    away_grace: int
    join_unanswered: bool


ReadOn = Callable[[int, int], Awaitable[None]]
"""Called with about how many members a room has, and how many bytes of their data."""


class Store:
    """The scripts of one namespace. keys: the names of its keys and channels."""

    def __init__(self, runner: Runner, keys: Keyspace) -> None:
        self._runner = runner
        self.keys = keys
        self.on_departed: Callable[[int], None] = lambda _shard: None
        """Called with the shard in which a call of this store made a departure."""
        self.on_kept: Callable[[Entry], None] = lambda _entry: None
        """Called with a member that has lost a connection and kept others."""
        self.last_seen_kept: int | None = None
        """Where joins, leaves and claims change the index of people in the same script: the milliseconds for
        which it is kept when users were last seen, 0 for not at all. None where they do not, as on a cluster:
        there the record of a user may be on another server than the room."""

    def diff_channel(self, room_id: str) -> str:
        """Return the channel of a room's diffs and messages."""
        return self.keys.diff_channel(room_id)

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
        former: FormerJoining | None = None,
        max_connections: int = 0,
        person: str = "",
    ) -> Joined | JoinRefused:
        """Join a user to a room over one connection (`NODE.SEQUENCE`), or register a membership again.

        ttl: ms. data: JSON, or empty to keep the stored one, as for username. max_members: 0 for no limit.
        max_connections: of the user in this room, likewise.
        former: of a client that returns by itself. person: the token of this join in the index of people.

        To register again: known_epoch, the room's epoch in which the connection was a member (`*` for any);
        replaces, the connection's former name; joined_at, when the member had joined (ms).
        """
        reply = await _until_settled(
            self._run_for_member, "join", entry, *entry, username, data, connection, ttl, max_members,
            known_epoch, replaces, int(away), joined_at or "", _resumed(former), max_connections, person,
            self._home(entry.user_id) if person else "",
        )  # fmt: skip
        match reply:
            case [b"joined" | b"resumed" as status, now, epoch, version, count, joined_at, diff]:
                return Joined(status == b"resumed", now, epoch.decode(), version, count, joined_at, diff)
            case [b"full" | b"crowded" as reason, count]:
                return JoinRefused("full" if reason == b"full" else "crowded", count)
            case [b"departed"]:
                return JoinRefused("departed")
            case [b"fenced"]:
                return JoinRefused("fenced")
            case [b"removed", reason, message, at]:
                departure = LeftRow(
                    entry.user_id, reason.decode(errors="replace"), at, message.decode(errors="replace")
                )
                return JoinRefused("removed", departure=departure)
            case [b"banned", now, record]:
                return JoinRefused("banned", ban=ban_from(record, entry.user_id, entry.room_id), now=now)
            case _:
                raise Unavailable(f"Redis gave an unexpected reply to a join: {reply}")

    async def trim_logs(self, shard: int, max_bytes: int, max_age: int) -> tuple[int, int]:
        """Trim a shard's logs; return how many departures and changes were removed.

        max_age: ms that departures are kept, or 0; changes are kept for LOG_TTL_MS. Both are -1 where the
        user may not trim.
        """
        prefix = self.keys.prefixes[shard]
        departures, changes = await self._runner.run("trim_logs", prefix, max_bytes, max_age, LOG_TTL_MS)
        return departures, changes

    async def refresh(self, shard: int, node: str, members: Sequence[tuple[str, int]]) -> tuple[int, bytes]:
        """Renew the TTL of a node's members, given as (suffix, TTL in ms).

        Returns Redis's time and a byte for each member: `1` if it is alive, else `0`. All are `0` when the
        node is fenced.
        """
        flat = [part for member in members for part in member]
        now, alive = await self._runner.run("refresh", self.keys.prefixes[shard], node, *flat)
        return now, alive

    async def update(
        self, entry: Entry, *, username: str = "", data: bytes = b"", patch: bytes = b"", max_data: int = 0
    ) -> Updated | UpdateRefused:
        """Change a member's username or data (JSON); empty keeps the stored one.

        patch: a JSON object, merged into the data as RFC 7396 says. max_data: bytes that result at most.
        """
        reply = await self._run_for_member("update", entry, username, data, patch, max_data)
        match reply:
            case [b"absent"]:
                return UpdateRefused("absent")
            case [b"too_big", size, read]:
                return UpdateRefused("too_big", size, read)
        _, now, epoch, version, diff, read = reply
        return Updated(now, epoch.decode(), version, diff, read)

    async def detach(
        self, entry: Entry, connection: str, *, grace: int, away_grace: int, join_unanswered: bool = False
    ) -> DetachOutcome:
        """Detach a lost connection; with the member's last one its grace begins (ms; 0 removes it at once).

        join_unanswered: a join of it got no reply and may still arrive; it is then refused.

        Returns `kept` while the member has other connections, and `absent` when there is no such member.
        """
        lost = LostConnection(entry, connection, grace, away_grace, join_unanswered)
        (outcome,) = await self.detach_all(self.keys.shard_of(entry.room_id), [lost])
        if isinstance(outcome, Unavailable):
            raise outcome
        return outcome

    async def detach_all(
        self, shard: int, lost: Sequence[LostConnection]
    ) -> list[DetachOutcome | Unavailable]:
        """Detach lost connections of one shard, as `detach` does one; return how each of them ended.

        One that Redis refuses, since its keys were damaged externally, fails no other.
        """
        flat: list[str | int] = []
        for (room_id, user_id), connection, grace, away_grace, join_unanswered in lost:
            flat += (escape(room_id), escape(user_id), connection, grace, away_grace, int(join_unanswered))
        replies = await self._run_in_shard("detach", shard, *flat)
        return [
            Unavailable(f"Redis refused a detach: {reply}")
            if isinstance(reply, Exception)
            else self._noted(one.entry, reply[0].decode())
            for one, reply in zip(lost, replies, strict=True)
        ]

    async def leave(
        self, entry: Entry, connection: str, *, known: Member | None = None, known_epoch: str = ""
    ) -> Literal["absent", "kept", "left"]:
        """Remove a connection by request; with the member's last one the member leaves.

        known, known_epoch: the member as last seen, and the room's epoch then. If Redis lost it since, its
        departure is recorded from them.
        """
        last_seen = (known_epoch, known.username, known.joined_at) if known is not None else ("", "", "")
        reply = await self._run_for_member(
            "leave", entry, connection, *last_seen, self._home(entry.user_id), self.last_seen_kept or 0
        )
        if reply[0] == b"left" and self.last_seen_kept is not None:
            return "left"
        return self._noted(entry, reply[0].decode())  # type: ignore[no-any-return]

    async def kick(self, entry: Entry, message: str = "", *, reason: str = KICKED, ends_at: int = 0) -> bool:
        """Remove a member with all its connections; return whether the user was a member.

        ends_at: when a ban ends (ms), where that is the reason.
        """
        found: int = await self._run_for_member("kick", entry, message, reason, ends_at)
        if found == 1:
            self.on_departed(self.keys.shard_of(entry.room_id))
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
        if found == 1:
            self.on_departed(self.keys.shard_of(entry.room_id))
        return found == 1

    async def record_lost_member(self, room_id: str, member: Member, reason: str) -> str | None:
        """Record the departure of a member that Redis lost.

        Returns the recorded reason, which is an earlier one where there is one; None when it is a member.
        """
        recorded: bytes = await self._run_for_member(
            "record_lost_member", Entry(room_id, member.user_id), member.username, reason,
            member.joined_at, member.last_active_at,
        )  # fmt: skip
        return recorded.decode(errors="replace") or None

    async def set_away(self, shard: int, states: Sequence[tuple[Entry, str, bool]]) -> list[bytes | None]:
        """Set which connections are in the background, given as (member, connection, away).

        Returns for each the published diff, b"" when nothing visible changed, or None when the connection is
        not in the room.
        """
        flat: list[str | int] = []
        for (room_id, user_id), connection, away in states:
            flat += (escape(room_id), escape(user_id), connection, int(away))
        diffs: list[bytes | None]
        _, *diffs = await self._run_in_shard("set_away", shard, *flat)
        return diffs

    # One room

    async def count(self, room_id: str) -> Position:
        """Return a room's position and exact count."""
        now, epoch, version, count = await _until_settled(self._run_for_room, "count", room_id)
        return Position(now, epoch.decode(), version, count)

    async def members(self, room_id: str, read_on: ReadOn | None = None) -> RoomListing:
        """Return a room's members.

        read_on: awaited before the rest of a list of more than one page is read.
        """
        first: Position | None = None
        members: dict[str, Member] = {}
        cursor: int | bytes = 0
        size, read = MIN_PAGE, 0
        while True:
            now, epoch, version, count, cursor, *flat = await _until_settled(
                self._run_for_room, "list", room_id, cursor, size
            )
            size, read = next_page_size(flat), read + data_size(flat)
            first = first or Position(now, epoch.decode(), version, count)
            members.update((member.user_id, member) for member in members_from_flat(flat))
            if cursor == b"0":
                return RoomListing(first, list(members.values()), read)
            if read_on is not None:
                await read_on(count, read * count // max(len(members), 1))
                read_on = None

    async def page(self, room_id: str, cursor: str, limit: int) -> tuple[RoomListing, str]:
        """Return about `limit` members of a room, and the cursor of the next page; "0" at both ends."""
        now, epoch, version, count, following, *flat = await _until_settled(
            self._run_for_room, "list", room_id, cursor, min(limit, MAX_LISTED)
        )
        at = Position(now, epoch.decode(), version, count)
        return RoomListing(at, members_from_flat(flat)), following.decode()

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
        _, now, nodes = await self._run_for_room("publish_message", room_id, MESSAGE_OF_APPLICATION, data, "")
        return now, nodes

    async def publish_member_message(
        self, entry: Entry, socket_id: str, data: bytes, to: Sequence[str] | None
    ) -> bool:
        """Publish a member's message (JSON) to other users, or to all; False where it is no member."""
        room_id, user_id = entry
        body = json.encode(MessageRow(user_id, socket_id, list(to) if to is not None else None, Raw(data)))
        reply = await self._run_for_room("publish_message", room_id, MESSAGE_OF_MEMBER, body, escape(user_id))
        return bool(reply[0] == b"published")

    async def renew_epoch(self, room_id: str, run: str) -> bool:
        """Begin a new epoch of the room, once for each life of the server, which `run` names.

        Returns whether this call began it.
        """
        begun: int = await self._run_for_room("renew_epoch", room_id, run)
        return begun == 1

    # One shard

    async def rooms(self, shard: int) -> dict[str, int]:
        """Return the shard's rooms with their counts."""
        found: dict[str, int] = {}
        cursor = "0"
        while True:
            cursor, rooms = await self.rooms_page(shard, cursor)
            found |= rooms
            if cursor == "0":
                return found

    async def rooms_page(self, shard: int, cursor: str) -> tuple[str, dict[str, int]]:
        """Return some of the shard's rooms with their counts, and the cursor of the next ones.

        cursor: "0" at first; it is again where there are no more. A room that has members all the while is
        in one page at least (https://redis.io/docs/latest/commands/scan/#scan-guarantees).
        """
        following, *flat = await self._run_in_shard("list_rooms", shard, cursor, ROOMS_PAGE)
        return following.decode(), {room_from(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}

    async def claim(self, shard: int, suffixes: Sequence[str]) -> list[Claimed]:
        """Make the departures of those members whose key is gone, and return those that this call made."""
        flat: list[str | bytes] = []
        for text in suffixes:
            room, _, user = text.partition(":user:")
            flat += (raw_of(room), raw_of(user), self._home(unescape(user)))
        now, *rows = await self._run_in_shard("claim", shard, self.last_seen_kept or 0, *flat)
        if rows and self.last_seen_kept is None:
            self.on_departed(shard)
        return [
            Claimed(
                text_of(rows[i]),
                rows[i + 1].decode(errors="replace"),
                max(0.0, now - float(rows[i + 2])),
                now,
            )
            for i in range(0, len(rows), 3)
        ]

    async def ask_nodes(self, shard: int, suffixes: Sequence[str]) -> bool:
        """Where Redis may evict keys, ask the nodes for members found gone; whether they were asked."""
        flat = [raw_of(part) for text in suffixes for part in text.split(":user:", 1)]
        return bool(await self._run_in_shard("ask_nodes", shard, *flat))

    async def due(self, shard: int, *, limit: int, retry: int) -> Due:
        """Scan the members whose stored deadline has passed.

        limit: rows at most. retry: ms until a room with members that are gone is due again.
        """
        now, following, moved, gone = await self._run_in_shard("due", shard, limit, retry)
        return Due(now, None if following < 0 else following, moved, list(map(text_of, gone)))

    async def audit(self, shard: int, cursor: int) -> Audit:
        """Audit a page of the shard's rooms; the result names large ones, for `audit_room`."""
        following, large, gone = await self._run_in_shard("audit_rooms", shard, cursor, AUDIT_PAGE)
        return Audit(int(following), large, list(map(text_of, gone)))

    async def audit_room(self, shard: int, room: bytes, cursor: int) -> Audit:
        """Audit a page of one large room; cursor: 0 to begin, and 0 in the result of the last page."""
        following, gone = await self._run_in_shard("audit_room", shard, room, cursor, PAGE)
        return Audit(int(following), [], list(map(text_of, gone)))

    async def audit_indexes(self, shard: int) -> None:
        """Read each index of a shard, so that one of a wrong type is found and renamed aside."""
        await self._run_in_shard("audit_indexes", shard)

    async def audit_connections(
        self, shard: int, node: str, connections: Sequence[tuple[str, str]]
    ) -> list[int]:
        """Complete what a shard's indexes lack of a node's connections, given as (suffix, connection).

        Returns the positions of those that have to be registered again: the member, or the connection, is
        not there.
        """
        flat = [part for text, connection in connections for part in (*text.split(":user:", 1), connection)]
        return [place - 1 for place in await self._run_in_shard("audit_connections", shard, node, *flat)]

    async def mark_shard_alive(
        self, shard: int, *, lease: int, servers: str = "", all_there: bool = False
    ) -> ShardMark:
        """Mark a shard as alive for one lease (ms).

        servers: the run ids of the primaries, see `Backend.run_id`. all_there: every node has registered its
        members on these.
        """
        suspended_until, step, restored = await self._run_in_shard(
            "mark_shard_alive", shard, lease, servers, int(all_there)
        )
        return ShardMark(suspended_until, step, restored == 1)

    async def follow_clock(self, shard: int, *, step: int, margin: int) -> None:
        """Move the deadlines of all members of a shard back as far as Redis's clock went.

        step: ms. margin: ms since then, at most: deadlines that were set meanwhile stay.
        """
        for room_id in await self.rooms(shard):
            cursor: int | bytes = 0
            while cursor != b"0":
                cursor = await self._run_for_room("follow_clock", room_id, cursor, PAGE, step, margin)

    async def fence_node(self, shard: int, node: str) -> list[bytes]:
        """Refuse a lost node's calls from here on.

        Returns some of the rooms that still need `detach_node`, and none once all are done. They are as the
        shard has them, escaped: one that another program wrote may be no room's name, or one of another
        shard, and has to be processed all the same.
        """
        rooms: list[bytes] = await self._run_in_shard("fence_node", shard, raw_of(node), ROOMS_PAGE)
        return rooms

    async def detach_node(self, shard: int, node: str, room: bytes, *, grace: int, away_grace: int) -> None:
        """Detach all connections of a lost node from one room. grace, away_grace: ms, as for `detach`."""
        name = raw_of(node)
        while await self._run_in_shard("detach_node", shard, name, room, grace, away_grace) == 1:
            pass

    # Private methods

    def _noted(self, entry: Entry, outcome: Any) -> Any:
        if outcome in {"left", "departed"}:
            self.on_departed(self.keys.shard_of(entry.room_id))
        elif outcome == "kept":
            self.on_kept(entry)
        return outcome

    def _home(self, user_id: str) -> str:
        """Return what the keys of the user's shard start with; "" where scripts do not change the index."""
        if self.last_seen_kept is None:
            return ""
        try:
            return self.keys.prefix_of(user_id)
        except UnicodeEncodeError:  # a member that another program wrote: see `text_of`
            return ""

    async def _run_in_shard(self, script: str, shard: int, *args: str | bytes | int) -> Any:
        return await self._runner.run(script, self.keys.prefixes[shard], *args)

    async def _run_for_room(self, script: str, room_id: str, *args: str | bytes | int) -> Any:
        return await self._runner.run(script, self.keys.prefix_of(room_id), escape(room_id), *args)

    async def _run_for_member(self, script: str, entry: Entry, *args: str | bytes | int) -> Any:
        room_id, user_id = entry
        prefix = self.keys.prefix_of(room_id)
        return await self._runner.run(script, prefix, escape(room_id), escape(user_id), *args)


def _resumed(former: FormerJoining | None) -> str:
    if former is None:
        return ""
    keep = "u" * former.keep_username + "d" * former.keep_data
    return f"{keep} {former.version} {former.joined_at} {former.epoch}"


async def _until_settled(run: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Repeat a script that settles a limited number of members a call, until it answers."""
    while True:
        reply = await run(*args)
        if reply[0] != b"again":
            return reply


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Await work for each item in turn; an Unavailable is raised at the end: no item affects another."""
    failed: Unavailable | None = None
    for item in items:
        try:
            await work(item)
        except Unavailable as error:
            failed = failed or error
    if failed is not None:
        raise failed
