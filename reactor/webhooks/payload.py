"""The body of a webhook request: the events that follow from a change of a room."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from reactor.presence.changes import Change, PersonLogged

EventType = Literal[
    "member_joined", "member_left", "room_occupied", "room_vacated", "user_online", "user_offline"
]


class WebhookEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One event. `id` stays the same when the event is sent again. Times are ms, by Redis's clock.

    count, version: the room's after the event. Departures of one change share the version; each has its own
    count. Events of a user have a user_id in place of room, count and position.
    """

    id: str
    type: EventType
    timestamp: int
    room_id: str | msgspec.UnsetType = msgspec.UNSET
    count: int | msgspec.UnsetType = msgspec.UNSET
    epoch: str | msgspec.UnsetType = msgspec.UNSET
    version: int | msgspec.UnsetType = msgspec.UNSET
    user_id: str | None = None
    username: str | None = None
    data: Any = msgspec.UNSET
    joined_at: int | None = None
    reason: str | None = None
    last_seen: int | None = None


def events_of(change: Change) -> Iterator[WebhookEvent]:
    """The events of one change, in the order in which they happened; none of one that cannot be read.

    Raises msgspec.DecodeError when a member's data is not JSON.
    """
    diff = change.diff
    if diff is None:
        return
    if isinstance(diff, PersonLogged):
        offline = diff.status == "offline"
        yield WebhookEvent(
            id=f"{change.shard}-{change.id}-1",
            type="user_offline" if offline else "user_online",
            timestamp=change.at,
            user_id=change.room_id,
            last_seen=(diff.at or None) if offline else None,
        )
        return
    count = diff.count + len(diff.left) - len(diff.joined)
    number = 0

    def event(kind: EventType, **fields: Any) -> WebhookEvent:
        nonlocal number
        number += 1
        return WebhookEvent(
            id=f"{change.shard}-{change.id}-{number}", type=kind, timestamp=change.at,
            room_id=change.room_id, count=count, epoch=diff.epoch, version=diff.version, **fields,
        )  # fmt: skip

    for row in diff.left:
        count -= 1
        yield event("member_left", user_id=row.user_id, reason=str(row.reason))
        if count == 0:
            yield event("room_vacated")
    for member in (row.member() for row in diff.joined):
        count += 1
        if count == 1:
            yield event("room_occupied")
        yield event(
            "member_joined", user_id=member.user_id, username=member.username, data=member.data,
            joined_at=member.joined_at,
        )  # fmt: skip
