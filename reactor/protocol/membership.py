"""One connection's membership in one room: a state machine, as a table. PURE.

A membership is in one of five states:

    OUT        The connection is not in the room; such a membership is not kept.
    JOINING    A join was sent to Redis and is not answered yet.
    IN         Redis has the member with this connection.
    REJOINING  As IN, while the client joins once more (it may have lost the first reply).
    LEAVING    A leave was sent to Redis and is not answered yet.

Three events come from the client: JOIN, LEAVE, and USE, which stands for every request that only a member can
make (heartbeat, update, away, back). Five come from the node: JOINED, REFUSED and LEFT are the outcome of a
join or a leave, exactly one for each; EXPELLED says that the membership ended in Redis (its TTL expired, the
member was kicked, ...); CLOSED says that the connection is closed.

`TRANSITIONS` holds every change of state, and only `Membership.advance` reads it. An event that the table
does not have raises `IllegalEvent` and changes nothing. The table leaves out:

- The client's events in JOINING, REJOINING and LEAVING. The session defers such requests until the outcome is
  known, so that Redis sees the requests of one connection for one room one at a time, in the client's order.
- The client's events in OUT. They are the client's mistake: `not_joined`.
- All other events of the node. They would be a mistake in the node, which reported an outcome twice.

EXPELLED may arrive at any time. During JOINING it is about an earlier membership, and the outcome of the join
decides; REJOINING becomes JOINING, since the membership to resume has ended. LEAVING ends the membership
anyway.
"""

from typing import Any

from reactor.protocol.messages import View
from reactor.protocol.state_table import IllegalEvent, TableKey


class MembershipState(TableKey):
    """The state of a connection's membership in a room."""

    OUT = "out"
    JOINING = "joining"
    IN = "in"
    REJOINING = "rejoining"
    LEAVING = "leaving"


class MembershipEvent(TableKey):
    """What can happen to a membership: three events from the client, five from the node."""

    JOIN = "join"
    USE = "use"
    LEAVE = "leave"
    JOINED = "joined"
    REFUSED = "refused"
    LEFT = "left"
    EXPELLED = "expelled"
    CLOSED = "closed"


TRANSITIONS: dict[MembershipState, dict[MembershipEvent, MembershipState]] = {
    MembershipState.OUT: {
        MembershipEvent.JOIN: MembershipState.JOINING,
        MembershipEvent.EXPELLED: MembershipState.OUT,
        MembershipEvent.CLOSED: MembershipState.OUT,
    },
    MembershipState.JOINING: {
        MembershipEvent.JOINED: MembershipState.IN,
        MembershipEvent.REFUSED: MembershipState.OUT,
        MembershipEvent.EXPELLED: MembershipState.JOINING,
        MembershipEvent.CLOSED: MembershipState.OUT,
    },
    MembershipState.IN: {
        MembershipEvent.JOIN: MembershipState.REJOINING,
        MembershipEvent.USE: MembershipState.IN,
        MembershipEvent.LEAVE: MembershipState.LEAVING,
        MembershipEvent.EXPELLED: MembershipState.OUT,
        MembershipEvent.CLOSED: MembershipState.OUT,
    },
    MembershipState.REJOINING: {
        MembershipEvent.JOINED: MembershipState.IN,
        MembershipEvent.REFUSED: MembershipState.IN,
        MembershipEvent.EXPELLED: MembershipState.JOINING,
        MembershipEvent.CLOSED: MembershipState.OUT,
    },
    MembershipState.LEAVING: {
        MembershipEvent.LEFT: MembershipState.OUT,
        MembershipEvent.REFUSED: MembershipState.IN,
        MembershipEvent.EXPELLED: MembershipState.LEAVING,
        MembershipEvent.CLOSED: MembershipState.OUT,
    },
}

PENDING = frozenset({MembershipState.JOINING, MembershipState.REJOINING, MembershipState.LEAVING})
"""The states in which a reply of Redis is awaited, and requests for the room are deferred."""


class Membership:
    """A connection's membership in a room.

    Attributes:
        room_id: The room.
        user_id: The user as which this connection is in the room.
        username: The user's name, from the last accepted join or as set by the node.
        view: What this connection receives of the room's changes.
        heartbeat_interval: How often the client is asked to send a heartbeat (seconds), as set by the node.
        state: A `MembershipState`; only `advance` changes it.
        attachment: The node's own record of this membership; the protocol never reads it.

    """

    __slots__ = ("attachment", "heartbeat_interval", "room_id", "state", "user_id", "username", "view")

    def __init__(self, room_id: str, user_id: str) -> None:
        self.room_id = room_id
        self.user_id = user_id
        self.username = user_id
        self.view: View = "members"
        self.heartbeat_interval = 0.0
        self.state = MembershipState.OUT
        self.attachment: Any = None

    def __repr__(self) -> str:
        return f"Membership({self.room_id!r}, {self.user_id!r}, {self.state.name})"

    def advance(self, event: MembershipEvent) -> MembershipState:
        """Change the state as the table says, and return the new state.

        Raises:
            IllegalEvent: The table does not have this event in this state; nothing has changed.

        """
        after = TRANSITIONS[self.state].get(event)
        if after is None:
            raise IllegalEvent(f"{event.name} while {self.state.name} in room {self.room_id!r}")
        self.state = after
        return after
