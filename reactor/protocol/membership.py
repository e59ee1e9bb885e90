"""One connection's place in one room: the state machine, as a table.

Theory of operation. A connection meets a room in one of five states:

    OUT        Not in the room; such a membership is not kept.
    JOINING    A join is on its way to Redis.
    IN         Redis has the member with this connection.
    REJOINING  In the room, and the client joins once more (it may have lost the first answer).
    LEAVING    A leave is on its way to Redis.

Three events come from the client: JOIN, LEAVE, and USE, which is every request that only a member may make
(heartbeat, update, away, back). Five come from the node: JOINED, REFUSED and LEFT are the answers to what was
on its way, one for each; EXPELLED says that the membership ended in Redis (its TTL passed, it was kicked),
and CLOSED that the socket is gone.

Everything that changes a state is in `TRANSITIONS`, and `Membership.advance` is the only one to read it. An
event that the table does not have raises `IllegalEvent` and changes nothing. What the table leaves out means:

- A client's event in JOINING, REJOINING or LEAVING: the session holds the request back until the answer, so
  that Redis sees the requests of one connection for one room one after the other, in the client's order.
- A client's event in OUT: the client's mistake, `not_joined`.
- A node's event that is not there: a mistake in the node, which answered what nobody had asked.

EXPELLED can cross anything. While a join is on its way it speaks of an older membership, and the answer
decides; a re-join becomes a plain join by it, since what it would resume is over. A leave that is on its way
ends the room in any case.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any

from reactor.protocol.messages import View

if TYPE_CHECKING:
    from reactor.protocol.intents import Join


class State(Enum):
    """Where a connection stands with a room."""

    OUT = "out"
    JOINING = "joining"
    IN = "in"
    REJOINING = "rejoining"
    LEAVING = "leaving"


class Event(Enum):
    """What can happen to a membership: three from the client, five from the node."""

    JOIN = "join"
    USE = "use"
    LEAVE = "leave"
    JOINED = "joined"
    REFUSED = "refused"
    LEFT = "left"
    EXPELLED = "expelled"
    CLOSED = "closed"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.OUT: {
        Event.JOIN: State.JOINING,
        Event.EXPELLED: State.OUT,
        Event.CLOSED: State.OUT,
    },
    State.JOINING: {
        Event.JOINED: State.IN,
        Event.REFUSED: State.OUT,
        Event.EXPELLED: State.JOINING,
        Event.CLOSED: State.OUT,
    },
    State.IN: {
        Event.JOIN: State.REJOINING,
        Event.USE: State.IN,
        Event.LEAVE: State.LEAVING,
        Event.EXPELLED: State.OUT,
        Event.CLOSED: State.OUT,
    },
    State.REJOINING: {
        Event.JOINED: State.IN,
        Event.REFUSED: State.IN,
        Event.EXPELLED: State.JOINING,
        Event.CLOSED: State.OUT,
    },
    State.LEAVING: {
        Event.LEFT: State.OUT,
        Event.REFUSED: State.IN,
        Event.EXPELLED: State.LEAVING,
        Event.CLOSED: State.OUT,
    },
}

PENDING = frozenset({State.JOINING, State.REJOINING, State.LEAVING})
"""The states in which an answer is awaited, and requests for the room are held back."""


class IllegalEvent(RuntimeError):
    """An event that the table does not have: a mistake in this program, not of a client."""


class Membership:
    """A connection's place in a room.

    Attributes:
        room_id: The room.
        user_id: The user whom this connection is in that room.
        username: The name, as last asked for in a join or noted by the node.
        view: What the connection wants to hear of the room.
        state: One of `State`; changed by `advance` alone.
        asked: The join that awaits its answer.
        attachment: What the node notes for this membership; the protocol never looks into it.

    """

    __slots__ = ("asked", "attachment", "room_id", "state", "user_id", "username", "view")

    def __init__(self, room_id: str, user_id: str) -> None:
        self.room_id = room_id
        self.user_id = user_id
        self.username = user_id
        self.view: View = "members"
        self.state = State.OUT
        self.asked: Join | None = None
        self.attachment: Any = None

    def __repr__(self) -> str:
        return f"Membership({self.room_id!r}, {self.user_id!r}, {self.state.name})"

    def advance(self, event: Event) -> State:
        """Change the state as the table says, and return the new one.

        Raises:
            IllegalEvent: The table does not have this event in this state; nothing has changed.

        """
        after = TRANSITIONS[self.state].get(event)
        if after is None:
            raise IllegalEvent(f"{event.name} while {self.state.name} in room {self.room_id!r}")
        self.state = after
        return after
