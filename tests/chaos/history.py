"""The record of a schedule: what each client requested and received. The oracle judges by it and by Redis.

All times are milliseconds since 1970 by the clock of this machine, which Redis uses, too.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import time

RoomUser = tuple[str, str]
"""Room and user."""


def now_ms() -> int:
    """The time, rounded down as Redis rounds it."""
    return int(time() * 1000)


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of a rule. `rule` is the short name of the rule in the oracle's list."""

    rule: str
    text: str
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class NodeLife:
    """The life of one node process: when it ended, and when it could not work.

    `impaired` holds [from, to] of each period in which it was frozen, or cut off from Redis while other nodes
    were not. `suspensions` has the times at which it logged that expiry is suspended.
    """

    name: str
    ended_at: int | None = None
    impaired: list[list[int]] = field(default_factory=list)
    suspensions: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Membership:
    """The membership of one socket in a room, as the socket saw it.

    until, how: when and how it ended: left, removed, disconnected, or its node dead. joined_at: the member's
    `joinedAt`, if the socket received it. acked: the timestamps (Redis's) of its acknowledged heartbeats.
    heartbeats: when they were sent. leaving_since: when the socket sent a leave that was not refused; Redis
    may execute it at any time from then on, whether the reply arrives or not.
    """

    room: str
    user: str
    socket: str
    node: NodeLife
    since: int
    joined_at: int | None
    until: int | None = None
    how: str = ""
    acked: list[int] = field(default_factory=list)
    heartbeats: list[int] = field(default_factory=list)
    leaving_since: int | None = None

    def __str__(self) -> str:
        return (
            f"Stay of {self.user} in {self.room} by {self.socket}: since {self.since}, of {self.joined_at}, "
            f"until {self.until} ({self.how}), last acknowledged {self.acked[-3:]}, node ended "
            f"{self.node.ended_at}, impaired {self.node.impaired[-3:]}"
        )

    def ended(self) -> int | None:
        """When it ended at the latest: with its node, even if the socket noticed it later."""
        ends = [at for at in (self.until, self.node.ended_at) if at is not None]
        return min(ends) if ends else None


def last_refresh(first: int, acked: Iterable[int], ttl: int) -> int:
    """When a presence with this TTL that began at `first` was last refreshed.

    An acknowledgement for all rooms refreshes only the presences that had not expired by then.
    """
    last = first
    for at in sorted(acked):
        if at > last + ttl:
            break
        last = max(last, at)
    return last


@dataclass(frozen=True, slots=True)
class ReportedDeparture:
    """A departure that a socket received."""

    room: str
    user: str
    joined_at: int
    reason: str
    at: int
    socket: str


@dataclass(slots=True)
class History:
    """Everything that the clients of one schedule recorded.

    unanswered: the nodes of sockets that closed before the reply to their join, which Redis may have taken.
    stalls: [from, to] of each period in which the clients themselves could not run, so that none of them sent
    a heartbeat or answered a ping.
    """

    grace: int
    lease: int
    ttl_of: dict[str, int]
    began_at: int = field(default_factory=now_ms)
    memberships: list[Membership] = field(default_factory=list)
    joins: dict[RoomUser, list[int]] = field(default_factory=dict)
    leaves: dict[RoomUser, list[int]] = field(default_factory=dict)
    unanswered: dict[RoomUser, list[NodeLife]] = field(default_factory=dict)
    reported: list[ReportedDeparture] = field(default_factory=list)
    losses: list[list[int]] = field(default_factory=list)
    stalls: list[list[int]] = field(default_factory=list)
    violations: list[Finding] = field(default_factory=list)
    recent_by_socket: dict[str, deque[str]] = field(default_factory=dict)

    @property
    def nodes(self) -> list[NodeLife]:
        """The nodes on which members were, each once."""
        return list({id(one.node): one.node for one in self.memberships}.values())

    def lost(self, at: int, until: int | None = None) -> bool:
        """Whether Redis lost data at that time or later, up to `until`."""
        return any(ended >= at and (until is None or begun <= until) for begun, ended in self.losses)

    def just_lost(self, at: int) -> bool:
        """Whether Redis lost data so shortly before that not all memberships may be registered again."""
        return self.lost(at - 3 * self.lease, at)

    def messages_of(self, socket: str, room: str, at: int | None = None) -> tuple[str, ...]:
        """The last messages of a socket about a room up to this time, as evidence."""
        own = [line for line in self.recent_by_socket.get(socket, ()) if f'"{room}"' in line]
        return tuple(line for line in own if at is None or int(line[:13]) <= at + 100)[-8:]

    def join_requested_at(self, membership: Membership) -> int:
        """When the join was requested: Redis executed it between then and the reply."""
        requested = self.joins.get((membership.room, membership.user), ())
        return max((at for at in requested if at <= membership.since), default=membership.since)

    def connected_until(self, membership: Membership) -> int:
        """Until when the socket was certainly in the room, by what it last requested or received."""
        ended = membership.ended()
        if membership.leaving_since is not None and membership.how != "left":
            return membership.leaving_since
        if ended is None:
            return 1 << 60
        if membership.how == "left":
            requested = self.leaves.get((membership.room, membership.user), ())
            return max((at for at in requested if at <= ended), default=ended)
        if membership.how.startswith(("closed with", "removed")):
            # Its node ended it some unknown time before the client received that, and the client may have
            # been too busy to receive the reply to its join before.
            return min(ended, max((at for at in membership.acked if at <= ended), default=membership.since))
        return ended

    def violation(self, rule: str, text: str, *evidence: str) -> None:
        """Record a violation that a client saw."""
        self.violations.append(Finding(rule, text, evidence))
