"""A room's events, one for each change: what the clients and `Presence.watch` iterate over. PURE."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import visible_fields

EventKind = Literal["sync", "join", "update", "leave"]


class RoomEvent(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One change of a room.

    Attributes:
        kind: `join`, `update` or `leave` of a member; or `sync`: `members` is the whole list, at first and
            again after a gap.
        room_id: The room.
        count: The number of members after the change.
        member: The member, as last known; None for a `sync`.
        reason: Why the member left; only for a `leave`.
        members: All members; only for a `sync`.

    """

    kind: EventKind
    room_id: str
    count: int
    member: Member | None = None
    reason: str | None = None
    members: tuple[Member, ...] = ()


def events_of(diff: RoomDiff, before: Mapping[str, Member]) -> list[RoomEvent]:
    """Return the events of a diff that is about to be applied to `before`, in the order of application.

    A diff may repeat what a snapshot already held, so there are events only for what is new to `before`: a
    member that is already there does not join, and one that is not there does not leave.
    """
    room_id, count = diff.room_id, diff.count
    left_users = {left.user_id for left in diff.left}
    events = [
        RoomEvent(kind="leave", room_id=room_id, count=count, member=member, reason=left.reason)
        for left in diff.left
        if (member := before.get(left.user_id)) is not None
    ]
    for member in (*diff.joined, *diff.updated):
        known = None if member.user_id in left_users else before.get(member.user_id)
        if known is None:
            events.append(RoomEvent(kind="join", room_id=room_id, count=count, member=member))
        elif visible_fields(known) != visible_fields(member):
            events.append(RoomEvent(kind="update", room_id=room_id, count=count, member=member))
    return events
