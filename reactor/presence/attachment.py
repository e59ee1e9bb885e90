"""One connection's hold on a member: what heartbeats, grace and reconciliation need to know of it."""

from typing import Protocol

from reactor.presence.keys import Entry, shard_of, suffix
from reactor.protocol.messages import Member


class Terms(Protocol):
    """A room's terms, in milliseconds, as the settings give them."""

    @property
    def ttl(self) -> int:
        """Life of a presence key without a heartbeat."""

    @property
    def grace(self) -> int:
        """Life that is left when the last socket dropped."""

    @property
    def away_grace(self) -> int:
        """The same for a member who is away."""

    @property
    def max_members(self) -> int:
        """Most members of the room; 0 for no limit."""


class Attachment:
    """A connection in a room.

    `live` falls once, when it left, was put out or lost its socket: from then on nothing that still waits
    in a batch may lengthen the member's life on its behalf. `joined_at` (ms) tells the member's joining from
    others of the same user, before and after. `unanswered`: joins of it that Redis gave no answer to, and may
    yet take. `dropped`: its connection is let go of in Redis, or soon will be. `last_seen` is the member as
    it was when Redis ended it, for the case that it is to be entered again.
    """

    __slots__ = (
        "away",
        "connection",
        "dropped",
        "entry",
        "joined_at",
        "last_seen",
        "live",
        "shard",
        "suffix",
        "terms",
        "unanswered",
    )

    def __init__(self, entry: Entry, connection: str, terms: Terms) -> None:
        self.entry = entry
        self.connection = connection
        self.terms = terms
        self.shard = shard_of(entry.room_id)
        self.suffix = suffix(entry)
        self.joined_at = 0
        self.away = False
        self.dropped = False
        self.unanswered = 0
        self.last_seen: Member | None = None
        self.live = True
