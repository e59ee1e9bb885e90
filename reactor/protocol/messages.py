"""What the server says, one struct a message: its answers, and what it tells by itself.

A message is an object with a `type`; field names are camelCase on the wire and snake_case here. A request may
carry an `id`, which its reply repeats. Times are integer milliseconds since 1970, by Redis's clock. Fields
that the receiver does not know are ignored, so that either side may be the newer one.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

RequestId = Annotated[str, Meta(max_length=128)] | Annotated[int, Meta(ge=-(2**53) + 1, le=2**53 - 1)]
"""A request's own `id`: repeated as it came, so bounded; a number as far as JavaScript is exact."""

View = Literal["members", "count", "none"]
"""What a connection wants to hear of a room: who is there, only how many, or nothing."""

ErrorCode = Literal[
    "bad_json",
    "bad_message",
    "unknown_type",
    "bad_id",
    "data_too_big",
    "not_joined",
    "already_joined",
    "too_many_rooms",
    "room_full",
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
"""The codes of `error`, stable, for programs. `not_utf8` is not sent: the connection is closed with 1007."""


class Message(Struct, frozen=True, rename="camel", tag_field="type", omit_defaults=True):
    """Base of all that is sent: optional fields are left out while they are unset."""


class ErrorMessage(Message, tag="error", frozen=True, gc=False):
    """Something a client asked was refused: a stable code, and a sentence that says how to mend it."""

    code: str
    message: str
    id: RequestId | None = None
    room_id: str | None = None


class ProtocolError(Exception):
    """A client's mistake: the connection stays, and the client gets `reply()`."""

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


# What a room is made of.


class Member(Struct, frozen=True, rename="camel"):
    """A user in a room; `joined_at` and `last_active_at` in milliseconds, `data` any JSON or unset."""

    user_id: str
    username: str
    joined_at: int
    last_active_at: int
    away: bool = False
    connections: int = 1
    data: Any = UNSET


class Departed(Struct, frozen=True, rename="camel", gc=False):
    """A member that has left, and why: one of `REASONS`, or any text of a newer server."""

    user_id: str
    reason: str


# What it answers.


class AuthOk(Message, tag="auth:ok", frozen=True, gc=False):
    """The token was taken; it runs out at `expires_at`, milliseconds since 1970, or never."""

    user_id: str
    expires_at: int | None = None
    id: RequestId | None = None


class RoomJoined(Message, tag="room:joined", frozen=True):
    """The room was entered: its terms (milliseconds) and, to a `members` view, its members."""

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
    members: list[Member] | UnsetType = UNSET
    id: RequestId | None = None


class HeartbeatAck(Message, tag="room:heartbeat:ack", frozen=True, gc=False):
    """Redis has taken the heartbeat."""

    timestamp: int
    room_id: str | None = None
    id: RequestId | None = None


class RoomUpdated(Message, tag="room:updated", frozen=True, gc=False):
    """The change was taken and is in the room from this version on."""

    room_id: str
    version: int
    id: RequestId | None = None


class AwayOk(Message, tag="room:away:ok", frozen=True, gc=False):
    """The others see this member as away."""

    room_id: str | None = None
    id: RequestId | None = None


class BackOk(Message, tag="room:back:ok", frozen=True, gc=False):
    """The others see this member as here again."""

    room_id: str | None = None
    id: RequestId | None = None


class MembersReply(Message, tag="room:members", frozen=True):
    """A snapshot of a room; without `members` where the room is served as a count."""

    room_id: str
    epoch: str
    version: int
    count: int
    members: list[Member] | UnsetType = UNSET
    id: RequestId | None = None


class CountReply(Message, tag="room:count", frozen=True, gc=False):
    """How many are in a room: asked for, or told unasked to a `count` view and then without an `id`."""

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


# What it says by itself.


class RoomDiff(Message, tag="room:diff", frozen=True):
    """What changed in a room from version `from_` to `version`; applied as left, joined, updated."""

    room_id: str
    epoch: str
    from_: int = field(name="from")
    version: int
    count: int
    joined: list[Member]
    updated: list[Member]
    left: list[Departed]


class RoomForceLeave(Message, tag="room:force-leave", frozen=True, gc=False):
    """This connection's membership has ended: `message` is for the user, `reason` as in `Departed`."""

    room_id: str
    message: str
    reason: str
    timestamp: int


class RoomMessage(Message, tag="room:message", frozen=True):
    """Something that the application says to everyone in a room; `data` is any JSON."""

    room_id: str
    data: Any
    timestamp: int


class ServiceDegraded(Message, tag="service:degraded", frozen=True, gc=False):
    """Redis does not answer; the connection stays, and requests are refused until it does."""

    reason: str


class ServiceRestored(Message, tag="service:restored", frozen=True, gc=False):
    """Redis answers again, and the state is right."""

    reason: str


ServerMessage = (
    AuthOk
    | RoomJoined
    | HeartbeatAck
    | RoomUpdated
    | AwayOk
    | BackOk
    | MembersReply
    | CountReply
    | IsPresentReply
    | RoomLeft
    | RoomDiff
    | RoomForceLeave
    | RoomMessage
    | ServiceDegraded
    | ServiceRestored
    | ErrorMessage
)
