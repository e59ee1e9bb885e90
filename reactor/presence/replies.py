"""What the scripts of `lua/` answer, as `store.py` passes it on. Times are milliseconds, by Redis's clock."""

from typing import Literal, NamedTuple

from msgspec import Struct

from reactor.presence.bans import Ban
from reactor.presence.rows import LeftRow
from reactor.protocol.messages import Member


class Joined(Struct, frozen=True, gc=False):
    """An accepted join. `diff` is what was published for it, or empty when nothing visible changed.

    New members of a room whose joins shared a call are in one diff, which the first of them has; it is empty
    for the others, whose `version` is its version.

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

    reason: `full` (the room has `count` members); `crowded` (the user has `count` connections in it);
    `departed` (the membership that was to be registered again has ended, or the connection was detached);
    `fenced` (this node was judged lost); `removed` (the client returns from a membership that ended
    meanwhile, as `departure` says); `banned` (by `ban`, at Redis's time `now`).
    """

    reason: Literal["full", "crowded", "departed", "fenced", "removed", "banned"]
    count: int = 0
    departure: LeftRow | None = None
    ban: Ban | None = None
    now: int = 0


DetachOutcome = Literal["absent", "kept", "grace", "departed"]


class Updated(Struct, frozen=True, gc=False):
    """An accepted change of a member, and the room's version from which on it holds.

    read: bytes of the data that a patch was merged into.
    """

    now: int
    epoch: str
    version: int
    diff: bytes
    read: int


class UpdateRefused(Struct, frozen=True, gc=False):
    """Why a change was refused: there is no such member, or its data would have `size` bytes.

    read: bytes of the data that the patch was merged into.
    """

    reason: Literal["absent", "too_big"]
    size: int = 0
    read: int = 0


class Position(Struct, frozen=True, gc=False):
    """A room's epoch, version and exact count at a time."""

    now: int
    epoch: str
    version: int
    count: int


class RoomListing(Struct, frozen=True, gc=False):
    """A room's members, at `position` or newer; the diffs after that position make the list exact.

    size: the bytes of the members' data, as read from Redis.
    """

    position: Position
    members: list[Member]
    size: int = 0


class ShardMark(NamedTuple):
    """What marking a shard has shown.

    suspended_until: the time until which expiry is suspended (ms), or 0. step: the milliseconds by which
    Redis's clock went back since the last mark, or 0: the caller has to have the deadlines follow. restored:
    the rooms come from a server that no mark named, as one that was restarted from a file: its state may be
    older than what clients know.
    """

    suspended_until: int
    step: int
    restored: bool


class Claimed(Struct, frozen=True, gc=False):
    """A departure that this call made; at: ms; lateness: ms after the stored deadline, 0 before it."""

    suffix: str
    reason: str
    lateness: float
    at: int


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
    """A page of the sweep's audit.

    large_rooms: rooms too large for it, as the shard has them. gone: suffixes of members whose key is gone.
    """

    cursor: int
    large_rooms: list[bytes]
    gone: list[str]
