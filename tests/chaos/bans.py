"""The bans of a schedule, and the rules that they are judged by.

A moderator (moderator.py) bans users from rooms and everywhere, lifts some of the bans again, and repeats
each call until it has succeeded. All bans but a few end within seconds; those few hold to the end of the
schedule. In half of the schedules clients prove who they are by tokens, so that logins are refused and
sockets are closed, too.

banned: while a ban holds, no one joins whom it concerns: no reply to a join that was requested after the ban
   had been made, and none before it is lifted. At a quiet point the user of a ban that holds is in none of
   its rooms; with tokens, one who is banned everywhere has no socket, and one who is banned from a room does
   not watch it. No one else is refused as banned, removed as banned, or on record as that.
   Exceptions: Redis lost data since the ban was made, or lifted: nodes that heard of that make it so again,
   but a node hears nothing while it is cut off, and which node heard what no client can see. Servers that
   evict keys restore a ban by their sweep. A login, and a watch, may be refused for a moment longer than the
   ban, since a node hears of its end, and for longer by a node that was frozen or cut off from Redis.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.history import Finding, History, Membership, NodeLife, now_ms
from tests.chaos.state import Departure, State
from tests.support.signing import token

HEARD_WITHIN = 1500
"""Milliseconds within which a node has heard of what was published, on a busy machine."""
TOKEN_LIFE = 86_400
"""Seconds."""

IN_FLIGHT = 1000
"""Milliseconds that a call may take to Redis."""


class LiveSocket(Protocol):
    """What the rules need of a client's connection."""

    user: str
    name: str

    @property
    def alive(self) -> bool: ...
    @property
    def recent(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class BanAct:
    """A ban, `at` seconds after the start.

    room: None for all. lifted_at: seconds after the start; None where it ends by itself.
    """

    at: float
    user: str
    room: str | None
    seconds: float
    lifted_at: float | None


@dataclass(slots=True)
class BanRecord:
    """A ban. Times are ms since 1970: it was made between `begun` and `made`, and ends from `ends` on.

    lifted: when it certainly held no more. until: what the server said.
    """

    user: str
    room: str | None
    begun: int
    made: int | None = None
    ends: int | None = None
    lifted: int | None = None
    until: int = 0


@dataclass(slots=True)
class BanRecords:
    """All bans of a schedule.

    proves_users: whether clients have tokens. gaps: the periods in which the keys of bans may be evicted.
    """

    history: History
    proves_users: bool = False
    records: list[BanRecord] = field(default_factory=list)
    gaps: list[list[int]] = field(default_factory=list)

    def headers_of(self, user: str, people: Sequence[str] = ("*",)) -> dict[str, str]:
        """The headers of a user's handshake. people: whom the token lets the user watch."""
        if not self.proves_users:
            return {}
        # The clocks of nodes may be hours ahead.
        expires = now_ms() // 1000 + TOKEN_LIFE
        return {"Authorization": f"Bearer {token(sub=user, people=list(people), exp=expires)}"}

    def _of(self, user: str, room: str | None) -> list[BanRecord]:
        return [one for one in self.records if one.user == user and one.room in (None, room)]

    def may_hold(self, user: str, room: str | None, since: int, until: int | None = None) -> bool:
        """Whether a ban may have held at a time in this period; `since` with the slack of who asks."""
        end = now_ms() if until is None else until
        return any(
            one.begun <= end and (one.lifted is None or one.lifted >= since or self._came_back(one, since))
            for one in self._of(user, room)
        )

    def _came_back(self, one: BanRecord, at: int) -> bool:
        """Whether Redis may have gone back to before the ban was lifted, and the ban would not have ended."""
        assert one.lifted is not None
        return self.history.lost(one.lifted - IN_FLIGHT) and at <= one.until + IN_FLIGHT

    def holds(self, user: str, room: str | None) -> bool:
        """Whether a ban from the room, or everywhere, holds now for certain, or may."""
        return self.may_hold(user, room, now_ms())

    def certainly_holds(self, user: str, room: str | None) -> bool:
        """Whether a ban from the room, or everywhere, holds now for certain."""
        return any(self._certain(one, now_ms()) for one in self._of(user, room))

    def _certain(self, one: BanRecord, at: int) -> bool:
        """Whether a ban held at that time for certain."""
        return (
            one.made is not None and one.made <= at < one.until - IN_FLIGHT
            and (one.ends is None or at < one.ends)
            and not self.history.lost(one.begun - IN_FLIGHT)
        )  # fmt: skip

    # While the schedule runs.

    def check_refusal(
        self, user: str, room: str | None, text: str, node: NodeLife | None, since: int | None = None
    ) -> None:
        """Record a violation unless the user may be banned.

        since: when the request was sent that Redis refused; None where the node decided by what it knew.
        """
        at = now_ms()
        slack = at - HEARD_WITHIN - 3 * self.history.lease
        if since is None and node is not None:
            slack = min([slack, *(begun - HEARD_WITHIN for begun, ended in node.impaired if ended > slack)])
        if not self.may_hold(user, room, slack if since is None else since):
            bans = [str(one) for one in self._of(user, room)]
            self.history.violation("banned", f"{text}, and {user} is not banned", *bans[-4:])

    # The rules.

    def past(self, state: State) -> list[Finding]:
        """Who joined, or is on record as banned, although the bans say otherwise."""
        found = [
            Finding("banned", "joined in spite of a ban", (str(one), str(ban)))
            for ban in self.records
            for one in self.history.memberships
            if one.user == ban.user and ban.room in (None, one.room) and self._joined_in_spite(one, ban)
        ]
        return found + [
            Finding("banned", f"{one.user} in {one.room} is on record as banned, and was not", (str(one),))
            for one in state.departures
            if one.reason == "banned" and not self._is_explained(one)
        ]

    def _joined_in_spite(self, one: Membership, ban: BanRecord) -> bool:
        requested = self.history.join_requested_at(one)
        if not (self._certain(ban, requested) and self._certain(ban, one.since)):
            return False
        return not any(begun <= one.since and requested <= ended for begun, ended in self.gaps)

    def _is_explained(self, one: Departure) -> bool:
        return self.may_hold(one.user, one.room, one.at - IN_FLIGHT, one.at + IN_FLIGHT)

    def not_quiet(self, sockets: Iterable[LiveSocket], state: State) -> list[Finding]:
        """Who is where a ban that holds forbids it."""
        certain = [one for one in self.records if self._certain(one, now_ms())]
        found = [
            Finding("banned", f"{ban.user} is in {room}, in spite of a ban", (str(ban),))
            for ban in certain
            for room, users in state.members.items()
            if ban.user in users and ban.room in (None, room)
        ]
        if self.proves_users:
            everywhere = {ban.user: ban for ban in certain if ban.room is None}
            found += [
                Finding("banned", f"{one.name} has a socket, in spite of a ban", tuple(one.recent[-6:]))
                for one in sockets
                if one.alive and one.user in everywhere
            ]
        return found
