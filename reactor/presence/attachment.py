"""One connection's membership in a room as Redis knows it: the state machine, as a table. PURE.

`protocol/membership.py` follows what the client was answered; this follows what Redis was asked for on
behalf of the same connection. An attachment is in one of eight states:

    NEW            Nothing was sent to Redis yet.
    JOINING        Its first join is on the way.
    LIVE           Redis has the connection, or should have.
    REREGISTERING  Redis lost it, and the node registers it again.
    DEPARTED       Redis has removed the member. Its diff is still to come, and expels the
                   connection; where it is lost, the node does so after a second.
    LEAVING        The client's leave is on the way.
    DETACHING      The connection is gone. Redis is asked to forget it, and a member without connections
                   gets the disconnect grace.
    ENDED          Nothing is left to do.

What can happen, in the order in which it usually does:

    SUBMITTED              A join or a re-registration was sent.
    JOINED, REFUSED        The answer to a client's join. A client may join again while it is in the room, and
                           what it re-joined over may have ended meanwhile.
    CONTINUED              A new attachment takes over the connection of one that ended while its re-join was
                           on the way: Redis settled the old membership and began the new one by that join.
    MISSING                Redis does not know the connection.
    REREGISTERED,          How an attempt to register it again ended. Several may be on the way, and the
    REREGISTRATION_FAILED  first answer counts. An attempt that Redis did not answer is repeated.
    FOUND_DEPARTED         Redis did not take the re-registration: the member has departed.
    EXPELLED               The departure was seen, and the connection taken out of the room.
    LEAVE_SUBMITTED        The client leaves.
    LEFT, LEAVE_UNANSWERED How that ended. Without an answer the client is in the room as before.
    SOCKET_CLOSED          The socket is gone.
    DETACH_QUEUED          The detach queue has it.
    DETACHED               Redis has taken everything that the detach queue had of it.

Everything that changes a state is in `TRANSITIONS`, and `Attachment.advance` is the only one to read it. An
event that the table does not have raises `IllegalEvent` and changes nothing. Worth knowing:

- A heartbeat may lengthen the member's life only while the attachment is `live`. That becomes true once,
  and false for good unless a leave fails. So a heartbeat that still waits in a batch when its connection
  ends has no effect.
- A join or a re-registration that was on the way when the connection left the room may still reach Redis.
  Its answer then leads to DETACH_QUEUED, also in LEAVING and DEPARTED, where the state stays: what ends the
  membership is still to come.
- A re-registration in DEPARTED means that Redis lost the departure with its data. The departure holds.
"""

from typing import Protocol

from reactor.presence.keys import Entry
from reactor.protocol.messages import Member
from reactor.protocol.state_table import IllegalEvent, TableKey


class Terms(Protocol):
    """A room's terms, in milliseconds, as the settings give them."""

    @property
    def ttl(self) -> int:
        """Life of a presence key without a heartbeat."""

    @property
    def grace(self) -> int:
        """Life that is left when a member's last connection was lost."""

    @property
    def away_grace(self) -> int:
        """The same for a member who is away."""

    @property
    def max_members(self) -> int:
        """Most members of the room; 0 for no limit."""


class AttachmentState(TableKey):
    """Where a connection stands with a room in Redis."""

    NEW = "new"
    JOINING = "joining"
    LIVE = "live"
    REREGISTERING = "reregistering"
    DEPARTED = "departed"
    LEAVING = "leaving"
    DETACHING = "detaching"
    ENDED = "ended"


class AttachmentEvent(TableKey):
    """What can happen to an attachment."""

    SUBMITTED = "submitted"
    JOINED = "joined"
    REFUSED = "refused"
    CONTINUED = "continued"
    MISSING = "missing"
    REREGISTERED = "reregistered"
    REREGISTRATION_FAILED = "reregistration_failed"
    FOUND_DEPARTED = "found_departed"
    EXPELLED = "expelled"
    LEAVE_SUBMITTED = "leave_submitted"
    LEFT = "left"
    LEAVE_UNANSWERED = "leave_unanswered"
    SOCKET_CLOSED = "socket_closed"
    DETACH_QUEUED = "detach_queued"
    DETACHED = "detached"


_State, _Event = AttachmentState, AttachmentEvent

TRANSITIONS: dict[AttachmentState, dict[AttachmentEvent, AttachmentState]] = {
    _State.NEW: {
        _Event.SUBMITTED: _State.JOINING,
        _Event.REFUSED: _State.ENDED,  # before anything was sent
        _Event.CONTINUED: _State.LIVE,
    },
    _State.JOINING: {
        _Event.SUBMITTED: _State.JOINING,  # under another name of the node
        _Event.JOINED: _State.LIVE,
        _Event.REFUSED: _State.ENDED,
        _Event.DETACH_QUEUED: _State.DETACHING,
    },
    _State.LIVE: {
        _Event.SUBMITTED: _State.LIVE,
        _Event.JOINED: _State.LIVE,
        _Event.REFUSED: _State.LIVE,
        _Event.MISSING: _State.REREGISTERING,
        _Event.REREGISTERED: _State.LIVE,
        _Event.REREGISTRATION_FAILED: _State.LIVE,
        _Event.FOUND_DEPARTED: _State.DEPARTED,
        _Event.EXPELLED: _State.ENDED,
        _Event.LEAVE_SUBMITTED: _State.LEAVING,
        _Event.SOCKET_CLOSED: _State.DETACHING,
    },
    _State.REREGISTERING: {
        _Event.SUBMITTED: _State.REREGISTERING,
        _Event.JOINED: _State.REREGISTERING,
        _Event.REFUSED: _State.REREGISTERING,
        _Event.REREGISTERED: _State.LIVE,
        _Event.REREGISTRATION_FAILED: _State.LIVE,
        _Event.FOUND_DEPARTED: _State.DEPARTED,
        _Event.EXPELLED: _State.ENDED,
        _Event.LEAVE_SUBMITTED: _State.LEAVING,
        _Event.SOCKET_CLOSED: _State.DETACHING,
    },
    _State.DEPARTED: {
        _Event.SUBMITTED: _State.DEPARTED,
        _Event.JOINED: _State.LIVE,  # the client has begun another membership
        _Event.REFUSED: _State.DEPARTED,
        _Event.FOUND_DEPARTED: _State.DEPARTED,
        _Event.EXPELLED: _State.ENDED,
        _Event.LEAVE_SUBMITTED: _State.LEAVING,
        _Event.SOCKET_CLOSED: _State.DETACHING,
        _Event.DETACH_QUEUED: _State.DEPARTED,
    },
    _State.LEAVING: {
        _Event.SUBMITTED: _State.LEAVING,
        _Event.LEFT: _State.ENDED,
        _Event.LEAVE_UNANSWERED: _State.REREGISTERING,
        _Event.SOCKET_CLOSED: _State.DETACHING,
        _Event.DETACH_QUEUED: _State.LEAVING,
    },
    _State.DETACHING: {
        _Event.SUBMITTED: _State.DETACHING,
        _Event.REFUSED: _State.DETACHING,
        _Event.DETACH_QUEUED: _State.DETACHING,
        _Event.DETACHED: _State.ENDED,
    },
    _State.ENDED: {
        _Event.SUBMITTED: _State.ENDED,
        _Event.REFUSED: _State.ENDED,
        _Event.DETACH_QUEUED: _State.DETACHING,
    },
}

LIVE_STATES = frozenset({_State.LIVE, _State.REREGISTERING, _State.DEPARTED})
"""The states in which the connection is in the room, as far as its client knows."""


class Attachment:
    """A connection in a room. Its methods are the only ones to write its attributes.

    Attributes:
        entry: The room and the user.
        connection: The id by which Redis knows the connection: the node's name and a number.
        terms: The room's terms as they were at the join.
        shard: The shard of the room.
        suffix: What follows the shard in the name of the presence key.
        state: One of `AttachmentState`; changed by `advance` alone.
        live: Whether the state is one of `LIVE_STATES`, at hand for the heartbeats.
        joined_at: When the member joined (ms). It tells this membership from others of the same user.
        away: Whether the member was last noted as away.
        unanswered: Joins and re-registrations without an answer: Redis may still take them.
        detach_requested: Whether it was ever in the detach queue; a later join needs another connection id.
        acknowledged_at: When Redis last took a heartbeat, or a join, of it (ms, Redis's clock).
        last_seen: The member as it was when Redis removed it, in case it has to be registered again.

    """

    __slots__ = (
        "_detaches",
        "acknowledged_at",
        "away",
        "connection",
        "detach_requested",
        "entry",
        "joined_at",
        "last_seen",
        "live",
        "shard",
        "state",
        "suffix",
        "terms",
        "unanswered",
    )

    def __init__(self, entry: Entry, connection: str, terms: Terms, shard: int, suffix: str) -> None:
        self.entry = entry
        self.connection = connection
        self.terms = terms
        self.shard = shard
        self.suffix = suffix
        self.state = AttachmentState.NEW
        self.live = False
        self.joined_at = self.acknowledged_at = 0
        self.away = False
        self.unanswered = 0
        self.detach_requested = False
        self.last_seen: Member | None = None
        self._detaches = 0

    def __repr__(self) -> str:
        return f"Attachment({self.entry!r}, {self.connection!r}, {self.state.name})"

    @property
    def in_room(self) -> bool:
        """Whether the connection is in the room: it is live, or its leave may yet fail."""
        return self.live or self.state is AttachmentState.LEAVING

    @property
    def may_be_taken_late(self) -> bool:
        """Whether it has ended, and Redis may still take a request of it."""
        return self.state is AttachmentState.ENDED and self.unanswered > 0

    def advance(self, event: AttachmentEvent) -> AttachmentState:
        """Change the state as the table says, and return the new one.

        Raises:
            IllegalEvent: The table does not have this event in this state; nothing has changed.

        """
        after = TRANSITIONS[self.state].get(event)
        if after is None:
            raise IllegalEvent(f"{event.name} while {self.state.name}: {self.entry!r}, {self.connection!r}")
        self.state = after
        self.live = after in LIVE_STATES
        return after

    def submitted(self, connection: str) -> None:
        """Note that a join, or a re-registration, is on the way under this connection id."""
        self.advance(AttachmentEvent.SUBMITTED)
        self.connection = connection
        self.unanswered += 1

    def answered(self, joined_at: int | None) -> None:
        """Note that Redis has answered one of those. joined_at: ms, or None where it was not taken."""
        self.unanswered -= 1
        if joined_at is not None:
            self.joined_at, self.last_seen = joined_at, None

    def joined(self, *, away: bool) -> None:
        """Note that Redis took a client's join, of a member that is away or not."""
        self.advance(AttachmentEvent.JOINED)
        self.away = away

    def continue_from(self, former: "Attachment") -> None:
        """Take over the connection of an attachment that ended while a re-join of it was on the way."""
        self.advance(AttachmentEvent.CONTINUED)
        self.connection, self.joined_at = former.connection, former.joined_at

    def acknowledged(self, now: int) -> None:
        """Note that Redis took a heartbeat of it. now: ms, by Redis's clock."""
        self.acknowledged_at = now

    def note_away(self, away: bool) -> None:
        """Note whether the member is away."""
        self.away = away

    def note_last_seen(self, member: Member | None) -> None:
        """Note the member as it was when Redis removed it."""
        self.last_seen = member

    def detach_queued(self) -> None:
        """Note that the detach queue has it, once more."""
        self.advance(AttachmentEvent.DETACH_QUEUED)
        self.detach_requested = True
        self._detaches += 1

    def detach_taken(self) -> None:
        """Note that Redis has taken one detach of those queued."""
        self._detaches -= 1
        if self._detaches == 0 and self.state is AttachmentState.DETACHING:
            self.advance(AttachmentEvent.DETACHED)
