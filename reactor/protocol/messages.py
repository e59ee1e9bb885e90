"""The messages of the server, one struct each: its replies, and what it sends by itself. PURE.

A message is an object with a `type`; field names are camelCase on the wire and snake_case here. A request may
carry an `id`, which its reply repeats. Times are integer milliseconds since 1970, by Redis's clock. Receivers
ignore unknown fields, so that either side may be newer.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

RequestId = Annotated[str, Meta(max_length=128)] | Annotated[int, Meta(ge=-(2**53) + 1, le=2**53 - 1)]
"""A request's `id`: bounded, since replies repeat it; a number within the exact range of JavaScript."""

View = Literal["members", "count", "none"]
"""What a connection receives of a room: its members, only their count, or nothing."""

WatchView = Literal["members", "count"]
"""What an observer receives of a room."""

ErrorCode = Literal[
    "bad_json",
    "bad_message",
    "unknown_type",
    "bad_id",
    "data_too_big",
    "not_joined",
    "already_joined",
    "too_many_rooms",
    "too_many_people",
    "room_full",
    "banned",
    "too_many_connections",
    "too_many_pending",
    "unavailable",
    "auth_disabled",
    "unauthorized",
    "token_expired",
    "forbidden",
    "too_many_requests",
    "internal",
    "not_utf8",
]
"""The stable codes of `error`. `not_utf8` is never sent: the connection is closed with 1007 instead."""


class Message(Struct, frozen=True, rename="camel", tag_field="type", omit_defaults=True):
    """Base of all messages; optional fields that are unset are left out."""


class ErrorMessage(Message, tag="error", frozen=True, gc=False):
    """A request was refused: a stable code, a sentence on how to fix it, and when to try again (ms).

    `until`: when the ban of a user ends (ms since 1970), with the code `banned` alone.
    """

    code: str
    message: str
    id: RequestId | None = None
    room_id: str | None = None
    retry_after: int | None = None
    until: int | None = None


class ProtocolError(Exception):
    """A client's mistake: the connection stays open, and the client receives `reply()`."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        id: RequestId | None = None,  # noqa: A002 - the name on the wire
        room_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.id = id
        self.room_id = room_id

    def reply(self) -> ErrorMessage:
        """Return the `error` message to send."""
        return ErrorMessage(self.code, self.message, self.id, self.room_id)


# Parts of messages.


class Member(Struct, frozen=True, rename="camel"):
    """A user in a room; `joined_at` and `last_active_at` in milliseconds, `data` any JSON or unset."""

    user_id: str
    username: str
    joined_at: int
    last_active_at: int
    away: bool = False
    connections: int = 1
    data: Any = UNSET


PersonStatus = Literal["online", "away", "offline"]
"""Of a user over all rooms; `away` where all of the user's connections are."""


class Person(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Whether a user is online, in any room.

    last_seen: ms, of a user who is offline and on record.
    rooms: sorted ids; only for those who may learn them.
    """

    user_id: str
    status: PersonStatus
    last_seen: int | UnsetType = UNSET
    rooms: list[str] | UnsetType = UNSET


class Departed(Struct, frozen=True, rename="camel", gc=False):
    """A member that has left, and why: one of `REASONS`, or any text of a newer server."""

    user_id: str
    reason: str


# Replies.


class AuthOk(Message, tag="auth:ok", frozen=True, gc=False):
    """The token was accepted; it expires at `expires_at` and in `expires_in` milliseconds, or never."""

    user_id: str
    expires_at: int | None = None
    expires_in: int | None = None
    id: RequestId | None = None


class MessageLimits(Struct, frozen=True, gc=False):
    """What the server takes of one connection, in bytes.

    message: a whole message. data: a member's `data` as compact JSON. id: an id of a room or a user, or a
    name, in UTF-8.
    """

    message: int
    data: int
    id: int


class RoomChanges(Struct, frozen=True, rename="camel"):
    """The changes of a room from version `from_` to `version`: a `RoomDiff` within a reply about the room."""

    from_: int = field(name="from")
    version: int
    count: int
    joined: list[Member]
    updated: list[Member]
    left: list[Departed]


class RoomJoined(Message, tag="room:joined", frozen=True):
    """The room was joined; `ttl` and `heartbeat_interval` in milliseconds, `members` for a `members` view.

    A client that returns with `members` in its `resume` may receive `diffs` in place of `members`: what has
    changed since the list that it has, in order. `joined_at` and `limits` are unset where the server is
    older.
    """

    room_id: str
    user_id: str
    socket_id: str
    ttl: int
    heartbeat_interval: int
    resumed: bool
    epoch: str
    version: int
    count: int
    view: View
    joined_at: int | UnsetType = UNSET
    limits: MessageLimits | UnsetType = UNSET
    members: list[Member] | UnsetType = UNSET
    diffs: list[RoomChanges] | UnsetType = UNSET
    id: RequestId | None = None


class HeartbeatAck(Message, tag="room:heartbeat:ack", frozen=True, gc=False):
    """Redis has accepted the heartbeat."""

    timestamp: int
    room_id: str | None = None
    id: RequestId | None = None


class RoomUpdated(Message, tag="room:updated", frozen=True, gc=False):
    """The change was accepted; it is part of the room from this version on."""

    room_id: str
    version: int
    id: RequestId | None = None


class RoomSent(Message, tag="room:sent", frozen=True, gc=False):
    """The message was published."""

    room_id: str
    id: RequestId | None = None


class AwayOk(Message, tag="room:away:ok", frozen=True, gc=False):
    """The member is marked as away."""

    room_id: str | None = None
    id: RequestId | None = None


class BackOk(Message, tag="room:back:ok", frozen=True, gc=False):
    """The member is marked as back."""

    room_id: str | None = None
    id: RequestId | None = None


class MembersReply(Message, tag="room:members", frozen=True):
    """A snapshot of a room, requested or not; without `members` where the room is served as a count.

    As a page of the list it has a `cursor` unless it is the last one.
    """

    room_id: str
    epoch: str
    version: int
    count: int
    members: list[Member] | UnsetType = UNSET
    id: RequestId | None = None
    cursor: str | None = None


class CountReply(Message, tag="room:count", frozen=True, gc=False):
    """The number of members: as a reply, or, without an `id`, sent to a `count` view by itself."""

    room_id: str
    epoch: str
    version: int
    count: int
    id: RequestId | None = None


CountChanged = CountReply


class IsPresentReply(Message, tag="room:is_present", frozen=True, gc=False):
    """Whether the user is in the room."""

    room_id: str
    user_id: str
    present: bool
    id: RequestId | None = None


class RoomLeft(Message, tag="room:left", frozen=True, gc=False):
    """The room was left."""

    room_id: str
    id: RequestId | None = None


class RefusedRoom(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """A room that was not watched, with an error code and a sentence.

    `until`: when the ban of the user ends (ms since 1970), with the code `banned` alone.
    """

    room_id: str
    code: str
    message: str
    until: int | None = None


class RoomCounted(Struct, frozen=True, rename="camel", gc=False):
    """The number of members of one of several rooms."""

    room_id: str
    epoch: str
    version: int
    count: int


class RoomWatching(Message, tag="room:watching", frozen=True):
    """The room is watched; `members` for a `members` view, unless the room is served as a count."""

    room_id: str
    epoch: str
    version: int
    count: int
    view: WatchView
    members: list[Member] | UnsetType = UNSET
    id: RequestId | None = None


class RoomUnwatched(Message, tag="room:unwatched", frozen=True, gc=False):
    """The room, or those of the request, are watched no more."""

    room_id: str | None = None
    id: RequestId | None = None
    room_ids: list[str] | None = None


class PeopleState(Message, tag="people:state", frozen=True):
    """The present state of the people of a request, in its order; they are watched from here on."""

    people: list[Person]
    id: RequestId | None = None


class PeopleUnwatched(Message, tag="people:unwatched", frozen=True, gc=False):
    """The people of the request are not watched any more."""

    id: RequestId | None = None


# Sent without a request.


class RoomCounts(Message, tag="room:counts", frozen=True):
    """The counts of several rooms that this connection watches, those that have changed.

    With an `id` it is the reply to a request to watch several rooms; `refused` are those not watched.
    """

    rooms: list[RoomCounted]
    refused: list[RefusedRoom] = []
    id: RequestId | None = None


class RoomDiff(Message, tag="room:diff", frozen=True):
    """The changes of a room from version `from_` to `version`; to be applied as left, joined, updated."""

    room_id: str
    epoch: str
    from_: int = field(name="from")
    version: int
    count: int
    joined: list[Member]
    updated: list[Member]
    left: list[Departed]


class RoomForceLeave(Message, tag="room:force-leave", frozen=True, gc=False):
    """This connection's membership has ended: `message` is for the user, `reason` as in `Departed`.

    With an `id` it answers a join with `resume`: the membership to resume had ended before. `until`: when the
    ban ends, with the reason `banned` alone.
    """

    room_id: str
    message: str
    reason: str
    timestamp: int
    id: RequestId | None = None
    until: int | None = None


class RoomMessage(Message, tag="room:message", frozen=True):
    """A message to a room, of the application or, with `user_id`, of a member; `data` is any JSON."""

    room_id: str
    data: Any
    timestamp: int
    user_id: str | UnsetType = UNSET
    socket_id: str | UnsetType = UNSET


class PeopleDiff(Message, tag="people:diff", frozen=True):
    """The people who are watched and have changed, as they are now."""

    changed: list[Person]


class HeartbeatDue(Message, tag="room:heartbeat:due", frozen=True, gc=False):
    """A heartbeat of this connection is overdue by half an interval: send one now.

    The timers of a hidden page may run only once a minute, while a message that arrives is handled at once.
    """


class ServiceDegraded(Message, tag="service:degraded", frozen=True, gc=False):
    """Redis does not respond; the connection stays open, and requests are refused meanwhile."""

    reason: str


class ServiceRestored(Message, tag="service:restored", frozen=True, gc=False):
    """Redis responds again, and the state is complete."""

    reason: str


ServerMessage = (
    AuthOk
    | RoomJoined
    | HeartbeatAck
    | RoomUpdated
    | RoomSent
    | AwayOk
    | BackOk
    | MembersReply
    | CountReply
    | IsPresentReply
    | RoomLeft
    | RoomWatching
    | RoomUnwatched
    | RoomCounts
    | RoomDiff
    | RoomForceLeave
    | RoomMessage
    | PeopleState
    | PeopleUnwatched
    | PeopleDiff
    | HeartbeatDue
    | ServiceDegraded
    | ServiceRestored
    | ErrorMessage
)
