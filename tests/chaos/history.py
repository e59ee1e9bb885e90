"""What was done to each client and what each was told: all that the oracle may go by, besides Redis.

All times are milliseconds since 1970 by the clock of this machine, which is also Redis's.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import time

ForWhom = tuple[str, str]
"""A room and a user."""


def now_ms() -> int:
    """The time, rounded down, as Redis gives it."""
    return int(time() * 1000)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. `rule` is its short name in the oracle's list."""

    rule: str
    text: str
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class Life:
    """One process of a node, from its start to its end, and when it could not be expected to answer.

    `impaired` holds [from, to] of each time in which it was frozen or alone cut off from Redis.
    """

    name: str
    ended_at: int | None = None
    impaired: list[list[int]] = field(default_factory=list)


@dataclass(slots=True)
class Stay:
    """A socket's being in a room, as it was told. `until`: left, put out, cut off, or its node dead; and how.

    joined_at tells the member's joining, where the socket was told of it. `acked` holds the times (Redis's)
    at which its heartbeats were taken, `beats` when they were sent. leaving_since: when it asked to leave,
    unless that was refused: Redis may take it at any time from then on, whether the answer comes or not.
    """

    room: str
    user: str
    socket: str
    node: Life
    since: int
    joined_at: int | None
    until: int | None = None
    how: str = ""
    acked: list[int] = field(default_factory=list)
    beats: list[int] = field(default_factory=list)
    leaving_since: int | None = None

    def __str__(self) -> str:
        return (
            f"Stay of {self.user} in {self.room} by {self.socket}: since {self.since}, of {self.joined_at}, "
            f"until {self.until} ({self.how}), last acknowledged {self.acked[-3:]}, node ended "
            f"{self.node.ended_at}, impaired {self.node.impaired[-3:]}"
        )

    def ended(self) -> int | None:
        """When it ended at the latest: with its node, whatever the socket noticed."""
        ends = [at for at in (self.until, self.node.ended_at) if at is not None]
        return min(ends) if ends else None


def last_refresh(first: int, acked: Iterable[int], ttl: int) -> int:
    """When a life of `ttl` that began at `first` was last renewed.

    An acknowledgement of all rooms leaves out one that had ended by then: it renews what was still alive.
    """
    last = first
    for at in sorted(acked):
        if at > last + ttl:
            break
        last = max(last, at)
    return last


@dataclass(frozen=True, slots=True)
class Told:
    """A departure that a socket was told of."""

    room: str
    user: str
    joined_at: int
    reason: str
    at: int
    socket: str


@dataclass(slots=True)
class History:
    """One schedule's."""

    grace: int
    lease: int
    ttl_of: dict[str, int]
    began_at: int = field(default_factory=now_ms)
    stays: list[Stay] = field(default_factory=list)
    joins: dict[ForWhom, list[int]] = field(default_factory=dict)
    leaves: dict[ForWhom, list[int]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    losses: list[list[int]] = field(default_factory=list)
    troubles: list[Finding] = field(default_factory=list)
    tails: dict[str, deque[str]] = field(default_factory=dict)

    def lost(self, at: int, until: int | None = None) -> bool:
        """Whether Redis lost data at that time or later."""
        return any(ended >= at and (until is None or begun <= until) for begun, ended in self.losses)

    def just_lost(self, at: int) -> bool:
        """Whether Redis lost data so shortly before that not all may have come back."""
        return self.lost(at - 3 * self.lease, at)

    def heard(self, socket: str, room: str, at: int | None = None) -> tuple[str, ...]:
        """The last messages of a socket about a room, up to some time, for evidence."""
        mine = [line for line in self.tails.get(socket, ()) if f'"{room}"' in line]
        return tuple(line for line in mine if at is None or int(line[:13]) <= at + 100)[-8:]

    def asked_to_join(self, stay: Stay) -> int:
        """When the stay was asked for: Redis took it then or later, and before it was told."""
        asked = self.joins.get((stay.room, stay.user), ())
        return max((at for at in asked if at <= stay.since), default=stay.since)

    def here_until(self, stay: Stay) -> int:
        """Until when the socket was surely in: not longer than what it did or heard last tells."""
        ended = stay.ended()
        if stay.leaving_since is not None and stay.how != "left":
            return stay.leaving_since
        if ended is None:
            return 1 << 60
        if stay.how == "left":
            asked = self.leaves.get((stay.room, stay.user), ())
            return max((at for at in asked if at <= ended), default=ended)
        if stay.how.startswith(("closed with", "put out")):
            # By its node, which did so before the client learnt of it: how long before, nobody can tell.
            return max((at for at in stay.acked if at <= ended), default=stay.since)
        return ended

    def trouble(self, rule: str, text: str, *evidence: str) -> None:
        """Note what a client saw that must not be."""
        self.troubles.append(Finding(rule, text, evidence))
