"""What happens in a room, one thing at a time: the events that a client and a back end iterate over."""

from typing import Literal

from msgspec import Struct

from reactor.protocol.messages import Member, RoomDiff

Kind = Literal["sync", "join", "update", "leave"]


class RoomEvent(Struct, frozen=True, kw_only=True):
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


def events_of(diff: RoomDiff, before: dict[str, Member]) -> list[RoomEvent]:
    """The events of a diff that is about to be applied to `before`, in the order in which it applies."""
    room_id, count = diff.room_id, diff.count
    events = [
        RoomEvent(kind="leave", room_id=room_id, count=count, member=member, reason=left.reason)
        for left in diff.left
        if (member := before.get(left.user_id)) is not None
    ]
    changes: tuple[tuple[Kind, list[Member]], ...] = (("join", diff.joined), ("update", diff.updated))
    for kind, members in changes:
        events += [RoomEvent(kind=kind, room_id=room_id, count=count, member=member) for member in members]
    return events
