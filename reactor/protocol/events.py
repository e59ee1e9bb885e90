"""What happens in a room, one thing at a time: the events that a client and a back end iterate over."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import visible_fields

Kind = Literal["sync", "join", "update", "leave"]


class RoomEvent(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One thing that happened.

    `member` is the one concerned, as it was last known; `reason` goes with a leave.

    A `sync` says that the whole list is known (first of all, and anew after a gap); `members` holds it.
    """

    kind: Kind
    room_id: str
    count: int
    member: Member | None = None
    reason: str | None = None
    members: tuple[Member, ...] = ()


def events_of(diff: RoomDiff, before: Mapping[str, Member]) -> list[RoomEvent]:
    """The events of a diff that is about to be applied to `before`, in the order in which it applies.

    A diff may tell again what a snapshot has told, so an event comes only of what is new to `before`: who is
    there already does not join, and who is not there does not leave.
    """
    room_id, count = diff.room_id, diff.count
    gone = {left.user_id for left in diff.left}
    events = [
        RoomEvent(kind="leave", room_id=room_id, count=count, member=member, reason=left.reason)
        for left in diff.left
        if (member := before.get(left.user_id)) is not None
    ]
    for member in (*diff.joined, *diff.updated):
        known = None if member.user_id in gone else before.get(member.user_id)
        if known is None:
            events.append(RoomEvent(kind="join", room_id=room_id, count=count, member=member))
        elif visible_fields(known) != visible_fields(member):
            events.append(RoomEvent(kind="update", room_id=room_id, count=count, member=member))
    return events
