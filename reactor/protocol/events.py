"""A room's events, one for each change: what the clients and `Presence.watch` iterate over. PURE."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import visible_fields

EventKind = Literal["sync", "join", "update", "leave"]


class _Event(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What all events have: the number of members after the change, and the fields that only some fill."""

    room_id: str
    count: int
    members: tuple[Member, ...] = ()


class SyncEvent(_Event, frozen=True, kw_only=True):
    """All `members`, at first and again after a gap; none where the server sends only their count."""

    kind: Literal["sync"]
    member: None = None
    reason: None = None


class JoinEvent(_Event, frozen=True, kw_only=True):
    """A member has joined."""

    kind: Literal["join"]
    member: Member
    reason: None = None


class UpdateEvent(_Event, frozen=True, kw_only=True):
    """A member has changed: name, data, away, or connections."""

    kind: Literal["update"]
    member: Member
    reason: None = None


class LeaveEvent(_Event, frozen=True, kw_only=True):
    """A member has left, here as last known; `reason` is None only where a room is watched by listing it."""

    kind: Literal["leave"]
    member: Member
    reason: str | None = None


RoomEvent = SyncEvent | JoinEvent | UpdateEvent | LeaveEvent
"""One change of a room. `kind` says which: a type checker knows the other fields once it is compared."""


def events_of(diff: RoomDiff, before: Mapping[str, Member]) -> list[RoomEvent]:
    """Return the events of a diff that is about to be applied to `before`, in the order of application.

    A diff may repeat what a snapshot already held, so there are events only for what is new to `before`: a
    member that is already there does not join, and one that is not there does not leave.
    """
    room_id, count = diff.room_id, diff.count
    left_users = {left.user_id for left in diff.left}
    events: list[RoomEvent] = [
        LeaveEvent(kind="leave", room_id=room_id, count=count, member=member, reason=left.reason)
        for left in diff.left
        if (member := before.get(left.user_id)) is not None
    ]
    for member in (*diff.joined, *diff.updated):
        known = None if member.user_id in left_users else before.get(member.user_id)
        if known is None:
            events.append(JoinEvent(kind="join", room_id=room_id, count=count, member=member))
        elif visible_fields(known) != visible_fields(member):
            events.append(UpdateEvent(kind="update", room_id=room_id, count=count, member=member))
    return events
