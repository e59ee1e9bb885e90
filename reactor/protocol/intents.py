"""What the node is asked to do in Redis: a connection's request, checked and complete. PURE.

Ids are clean text and data is compact JSON. `id` is the request's own, to be repeated in the reply.
"""

from msgspec import Struct

from reactor.protocol.membership import Membership
from reactor.protocol.messages import RefusedRoom, RequestId, View, WatchView


class Authenticate(Struct, frozen=True):
    """Check this token."""

    token: str
    id: RequestId | None


class FormerJoining(Struct, frozen=True, gc=False):
    """What a client that returns says of its joining before.

    epoch, version: the last position of the room that it saw. joined_at: ms. members: how many it has in its
    list at that position; None where it needs a list. keep_username, keep_data: a present value is kept, and
    that of the join used only where Redis has none.
    """

    epoch: str
    version: int
    joined_at: int
    members: int | None = None
    keep_username: bool = True
    keep_data: bool = True


class Join(Struct, frozen=True):
    """Join the room, or rejoin it; an empty `username` or a `data_json` of None keeps the present value."""

    room_id: str
    user_id: str
    username: str
    data_json: bytes | None
    view: View
    id: RequestId | None
    former: FormerJoining | None = None


class Refresh(Struct, frozen=True):
    """Renew the TTL of these memberships; `room_id` is None where the client meant all its rooms."""

    memberships: tuple[Membership, ...]
    room_id: str | None
    id: RequestId | None


class UpdateMember(Struct, frozen=True):
    """Change the member's name or data; None keeps the present value.

    patch_json: a JSON merge patch (RFC 7396) of the data, an object; only without `data_json`.
    """

    membership: Membership
    username: str | None
    data_json: bytes | None
    id: RequestId | None
    patch_json: bytes | None = None


class SendMessage(Struct, frozen=True):
    """Send the room's other members a message, or only those in `to`."""

    membership: Membership
    data_json: bytes
    to: tuple[str, ...] | None
    id: RequestId | None


class SetAway(Struct, frozen=True):
    """Mark these memberships as away, or as back; `room_id` is None where the client meant all its rooms."""

    memberships: tuple[Membership, ...]
    away: bool
    room_id: str | None
    id: RequestId | None


class ListMembers(Struct, frozen=True):
    """Reply with the room's members, or with a page of about `limit` of them, from `cursor` on."""

    room_id: str
    id: RequestId | None
    limit: int | None = None
    cursor: str | None = None


class CountMembers(Struct, frozen=True):
    """Reply with the number of the room's members."""

    room_id: str
    id: RequestId | None


class AskPresent(Struct, frozen=True):
    """Reply whether the user is in the room."""

    room_id: str
    user_id: str
    id: RequestId | None


class FollowPeople(Struct, frozen=True):
    """Reply with the state of these users, and with each change from here on."""

    user_ids: tuple[str, ...]
    id: RequestId | None


class UnfollowPeople(Struct, frozen=True):
    """Follow these users no more; None is for all."""

    user_ids: tuple[str, ...] | None
    id: RequestId | None


class Leave(Struct, frozen=True):
    """Remove the connection from the room, and with the last connection the member."""

    membership: Membership
    id: RequestId | None


class WatchRooms(Struct, frozen=True):
    """Follow rooms without being a member; `single` where the request names one room and not a list.

    added: those that the connection did not watch before. refused: rooms of a list that may not be watched.
    """

    room_ids: tuple[str, ...]
    view: WatchView
    single: bool
    id: RequestId | None
    added: tuple[str, ...] = ()
    refused: tuple[RefusedRoom, ...] = ()

    @property
    def room_id(self) -> str | None:
        """The room, where the request names a single one."""
        return self.room_ids[0] if self.single else None


class UnwatchRooms(Struct, frozen=True):
    """Stop following rooms; those that are not watched are ignored."""

    room_ids: tuple[str, ...]
    single: bool
    id: RequestId | None

    @property
    def room_id(self) -> str | None:
        """The room, where the request names a single one."""
        return self.room_ids[0] if self.single else None


Intent = (
    Authenticate
    | Join
    | Refresh
    | UpdateMember
    | SetAway
    | ListMembers
    | CountMembers
    | AskPresent
    | Leave
    | SendMessage
    | WatchRooms
    | UnwatchRooms
    | FollowPeople
    | UnfollowPeople
)
