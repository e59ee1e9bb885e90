"""What a client may say, one struct a request; the fields come as they are, and the session checks them."""

from typing import Any

from msgspec import UNSET, UnsetType

from reactor.protocol.messages import Message, RequestId, View

AnyId = str | int
"""An id of a room or a user as it comes in: text or a whole number; it is text from the session on."""


class Auth(Message, tag="auth", frozen=True, gc=False):
    """Say who this connection is."""

    token: str
    id: RequestId | None = None


class JoinRoom(Message, tag="join_room", frozen=True):
    """Enter a room, or return to it; `user_id` may be left out where a token names the user."""

    room_id: AnyId
    user_id: AnyId | UnsetType = UNSET
    username: str | None = None
    data: Any = UNSET
    view: View = "members"
    id: RequestId | None = None


class Heartbeat(Message, tag="room:heartbeat", frozen=True, gc=False):
    """Say "still here", in one room or, without a room, in all of this connection's."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Update(Message, tag="room:update", frozen=True):
    """Change the own name or data in a room."""

    room_id: AnyId
    username: str | None = None
    data: Any = UNSET
    id: RequestId | None = None


class Away(Message, tag="room:away", frozen=True, gc=False):
    """Say that the app is in the background: in one room, or in all of this connection's."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Back(Message, tag="room:back", frozen=True, gc=False):
    """Say that the app is in the foreground again."""

    room_id: AnyId | None = None
    id: RequestId | None = None


class Members(Message, tag="room:members", frozen=True, gc=False):
    """Ask who is in a room."""

    room_id: AnyId
    id: RequestId | None = None


class Count(Message, tag="room:count", frozen=True, gc=False):
    """Ask how many are in a room."""

    room_id: AnyId
    id: RequestId | None = None


class IsPresent(Message, tag="room:is_present", frozen=True, gc=False):
    """Ask whether a user is in a room."""

    room_id: AnyId
    user_id: AnyId
    id: RequestId | None = None


class LeaveRoom(Message, tag="leave_room", frozen=True, gc=False):
    """Leave a room at once."""

    room_id: AnyId
    id: RequestId | None = None


Request = Auth | JoinRoom | Heartbeat | Update | Away | Back | Members | Count | IsPresent | LeaveRoom

TYPES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in Request.__args__)
"""The `type` of every request, in the order in which they are told to one who sends another."""
