"""What the node is asked to do in Redis: a connection's request, checked and complete. PURE.

Ids are clean text and data is compact JSON. `id` is the request's own, to be repeated in the reply.
"""

from msgspec import Struct

from reactor.protocol.membership import Membership
from reactor.protocol.messages import RequestId, View


class Authenticate(Struct, frozen=True):
    """Check this token."""

    token: str
    id: RequestId | None


class Join(Struct, frozen=True):
    """Join the room, or rejoin it; an empty `username` or a `data_json` of None keeps the present value."""

    room_id: str
    user_id: str
    username: str
    data_json: bytes | None
    view: View
    id: RequestId | None


class Refresh(Struct, frozen=True):
    """Renew the TTL of these memberships; `room_id` is None where the client meant all its rooms."""

    memberships: tuple[Membership, ...]
    room_id: str | None
    id: RequestId | None


class UpdateMember(Struct, frozen=True):
    """Change the member's name or data; None keeps the present value."""

    membership: Membership
    username: str | None
    data_json: bytes | None
    id: RequestId | None


class SetAway(Struct, frozen=True):
    """Mark these memberships as away, or as back; `room_id` is None where the client meant all its rooms."""

    memberships: tuple[Membership, ...]
    away: bool
    room_id: str | None
    id: RequestId | None


class ListMembers(Struct, frozen=True):
    """Reply with the room's members."""

    room_id: str
    id: RequestId | None


class CountMembers(Struct, frozen=True):
    """Reply with the number of the room's members."""

    room_id: str
    id: RequestId | None


class AskPresent(Struct, frozen=True):
    """Reply whether the user is in the room."""

    room_id: str
    user_id: str
    id: RequestId | None


class Leave(Struct, frozen=True):
    """Remove the connection from the room, and with the last connection the member."""

    membership: Membership
    id: RequestId | None


Intent = (
    Authenticate | Join | Refresh | UpdateMember | SetAway | ListMembers | CountMembers | AskPresent | Leave
)
