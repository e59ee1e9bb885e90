"""The requests of a client, one struct each. Decoding checks types, the session checks values. PURE."""

from typing import Any

from msgspec import UNSET, UnsetType

from reactor.protocol.messages import Message, RequestId, View

AnyId = str | int
"""An id of a room or a user as received: text or a whole number. The session converts it to text."""


class Auth(Message, tag="auth", frozen=True, gc=False):
    """Authenticate this connection, or renew its token."""

    token: str
    id: RequestId | None = None


class JoinRoom(Message, tag="join_room", frozen=True):
    """Join a room, or rejoin it; `user_id` may be left out where a token names the user."""

    room_id: AnyId
    user_id: AnyId | UnsetType = UNSET
    username: str | None = None
    data: Any = UNSET
    view: View = "members"
    id: RequestId | None = None


class Heartbeat(Message, tag="room:heartbeat", frozen=True, gc=False):
    """Renew the TTL of one membership or, without a room, of all of this connection."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Update(Message, tag="room:update", frozen=True):
    """Change the member's own name or data."""

    room_id: AnyId
    username: str | None = None
    data: Any = UNSET
    id: RequestId | None = None


class Away(Message, tag="room:away", frozen=True, gc=False):
    """Mark the member as away (the app is in the background): in one room, or in all of this connection."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Back(Message, tag="room:back", frozen=True, gc=False):
    """Mark the member as back: in one room, or in all of this connection."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Members(Message, tag="room:members", frozen=True, gc=False):
    """Ask for the members of a room."""

    room_id: AnyId
    id: RequestId | None = None


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


Request = Auth | JoinRoom | Heartbeat | Update | Away | Back | Members | Count | IsPresent | LeaveRoom

TYPES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in Request.__args__)
"""The `type` of every request, in the order of the error message for an unknown one."""
