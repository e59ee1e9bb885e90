"""What a connection's request comes down to, checked and complete: what the node is to do in Redis.

Ids are clean text, data is compact JSON. `id` is the request's own, for the reply to repeat.
"""

from msgspec import Struct

from reactor.protocol.membership import Membership
from reactor.protocol.messages import RequestId, View


class Authenticate(Struct, frozen=True):
    """Check this token."""

    token: str
    id: RequestId | None


class Join(Struct, frozen=True):
    """Enter the room, or return to it; an empty `username` and a `data_json` of None keep what is there."""

    room_id: str
    user_id: str
    username: str
    data_json: bytes | None
    view: View
    id: RequestId | None


class Refresh(Struct, frozen=True):
    """Give these memberships their full TTL again; `room_id` is None where the client meant all its rooms."""

    memberships: tuple[Membership, ...]
    room_id: str | None
    id: RequestId | None


class UpdateMember(Struct, frozen=True):
    """Change the member's name or data; None leaves the one or the other as it is."""

    membership: Membership
    username: str | None
    data_json: bytes | None
    id: RequestId | None


class SetAway(Struct, frozen=True):
    """Note these memberships as away, or as here again."""

    memberships: tuple[Membership, ...]
    away: bool
    room_id: str | None
    id: RequestId | None


class ListMembers(Struct, frozen=True):
    """Say who is in the room."""

    room_id: str
    id: RequestId | None


class CountMembers(Struct, frozen=True):
    """Say how many are in the room."""

    room_id: str
    id: RequestId | None


class AskPresent(Struct, frozen=True):
    """Say whether the user is in the room."""

    room_id: str
    user_id: str
    id: RequestId | None


class Leave(Struct, frozen=True):
    """Take the member out of the room."""

    membership: Membership
    id: RequestId | None


Intent = (
    Authenticate | Join | Refresh | UpdateMember | SetAway | ListMembers | CountMembers | AskPresent | Leave
)
