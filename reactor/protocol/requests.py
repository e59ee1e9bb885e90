"""The requests of a client, one struct each. Decoding checks types, the session checks values. PURE."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from reactor.protocol.messages import Message, RequestId, View, WatchView

AnyId = str | int
"""An id of a room or a user as received: text or a whole number. The session converts it to text."""


class Auth(Message, tag="auth", frozen=True, gc=False):
    """Authenticate this connection, or renew its token."""

    token: str
    id: RequestId | None = None


class Resume(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """The joining that a client had before it lost its connection.

    epoch, version: the last position of the room that it knows. joined_at: its own, from `room:joined` (ms).
    members: the number of members in its list at that position, of a client that takes `diffs` for an answer.
    """

    epoch: Annotated[str, Meta(max_length=64)]
    version: Annotated[int, Meta(ge=0, lt=2**53)]
    joined_at: Annotated[int, Meta(ge=0, lt=2**53)]
    members: Annotated[int, Meta(ge=0, lt=2**53)] | None = None


class JoinRoom(Message, tag="join_room", frozen=True):
    """Join a room, or rejoin it; `user_id` may be left out where a token names the user.

    resume: for a client that returns by itself. Its username and data then only replace what Redis has lost.
    """

    room_id: AnyId
    user_id: AnyId | UnsetType = UNSET
    username: str | None = None
    data: Any = UNSET
    view: View = "members"
    id: RequestId | None = None
    resume: Resume | None = None


class Heartbeat(Message, tag="room:heartbeat", frozen=True, gc=False):
    """Renew the TTL of one membership or, without a room, of all of this connection."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Update(Message, tag="room:update", frozen=True):
    """Change the member's own name or data; `patch` (RFC 7396) changes the fields that it names."""

    room_id: AnyId
    username: str | None = None
    data: Any = UNSET
    id: RequestId | None = None
    patch: Any = UNSET


class Away(Message, tag="room:away", frozen=True, gc=False):
    """Mark the member as away (the app is in the background): in one room, or in all of this connection."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Back(Message, tag="room:back", frozen=True, gc=False):
    """Mark the member as back: in one room, or in all of this connection."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Members(Message, tag="room:members", frozen=True, gc=False):
    """Ask for the members of a room, or for a page of them."""

    room_id: AnyId
    id: RequestId | None = None
    limit: int | None = None
    cursor: str | None = None


class Count(Message, tag="room:count", frozen=True, gc=False):
    """Ask for the number of members of a room."""

    room_id: AnyId
    id: RequestId | None = None


class IsPresent(Message, tag="room:is_present", frozen=True, gc=False):
    """Ask whether a user is in a room."""

    room_id: AnyId
    user_id: AnyId
    id: RequestId | None = None


class LeaveRoom(Message, tag="leave_room", frozen=True, gc=False):
    """Leave a room, without the grace of a lost connection."""

    room_id: AnyId
    id: RequestId | None = None


class Send(Message, tag="room:send", frozen=True):
    """Send the other members something that is stored nowhere, or only those whose user ids are in `to`."""

    room_id: AnyId
    data: Any
    to: list[AnyId] | None = None
    id: RequestId | None = None


class Watch(Message, tag="room:watch", frozen=True, gc=False):
    """Follow a room without being a member: its members or their number; with `room_ids` those of several."""

    room_id: AnyId | None = None
    view: WatchView = "members"
    id: RequestId | None = None
    room_ids: list[AnyId] | None = None


class Unwatch(Message, tag="room:unwatch", frozen=True, gc=False):
    """Stop following rooms."""

    room_id: AnyId | None = None
    id: RequestId | None = None
    room_ids: list[AnyId] | None = None


class WatchPeople(Message, tag="people:watch", frozen=True):
    """Follow whether these users are online, until `people:unwatch` or the end of the connection."""

    user_ids: list[AnyId]
    id: RequestId | None = None


class UnwatchPeople(Message, tag="people:unwatch", frozen=True):
    """Follow these users no more; without `user_ids`, none."""

    user_ids: list[AnyId] | None = None
    id: RequestId | None = None


class Closing(Message, tag="closing", frozen=True, gc=False):
    """The page is being closed or reloaded: the connection is about to close. There is no reply."""

    id: RequestId | None = None


Request = (
    Auth
    | JoinRoom
    | Heartbeat
    | Update
    | Away
    | Back
    | Members
    | Count
    | IsPresent
    | LeaveRoom
    | Send
    | Watch
    | Unwatch
    | WatchPeople
    | UnwatchPeople
    | Closing
)

TYPES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in Request.__args__)
"""The `type` of every request, in the order of the error message for an unknown one."""
