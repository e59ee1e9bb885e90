"""What requests cost, and how much of that clients may ask for. PURE.

The rate limit counts messages; this counts what they cause. A unit is about 0.1 ms of work, of the node and
Redis together. Each request is charged to its connection, and to what that shares with others: its user,
where a token proves it, its address, and the node. Each of these may spend its share of `cost_per_second`,
and of `cost_burst` at once. What a request will cost is known only in part when it arrives. So it is refused
when too much was spent before it, and its full price is charged when it is carried out.

Where a shared account is overdrawn, each of its connections still has its GUARANTEED share: an attacker does
not use up what others have from the same address. The guaranteed shares of one address are bounded together,
since a thousand connections would otherwise have more than the node can do.
"""

# ruff: noqa: FURB136

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from reactor.gateway.usage import UsageByKey
from reactor.protocol import intents

PRICES: Final[dict[type, float]] = {
    intents.Join: 6.0,
    intents.Leave: 4.0,
    intents.UpdateMember: 2.0,
    intents.SendMessage: 1.0,
    intents.ListMembers: 2.0,
    intents.CountMembers: 1.0,
    intents.AskPresent: 1.0,
    intents.WatchRooms: 2.0,
    intents.UnwatchRooms: 0.2,
    intents.SetAway: 1.0,
    intents.FollowPeople: 1.0,
    intents.UnfollowPeople: 1.0,
    intents.Refresh: 0.05,
    intents.Authenticate: 2.5,  # of a further token
}
"""Units for a request, in each room that it is about. A heartbeat is never refused, but one for several rooms
is carried out a little later where too much was spent (membership/paced_heartbeats.py)."""
MEMBER_READ: Final = 0.2
"""Units for a member that Redis has to read for a list."""
KIB_READ: Final = 0.15
"""Units for a KiB of their data, where a room is followed: one with 4 KiB takes the node and Redis 75 us."""
DIFF_READ: Final = 0.1
"""Units for a recent diff that is read again for a client that returns."""
PERSON_READ: Final = 0.3
"""Units for a user who is watched: a subscription, and a record to read."""
PERSON_ROOM: Final = 0.05
"""Units for a room in which such a user is: the record has all of them, and there is no limit for a user."""
PERSON_DROPPED: Final = 0.1
"""Units for a user who is not watched any more."""
KIB_PATCHED: Final = 4.0
"""Units for a KiB of a patch, and of the data that Redis merges it into: up to 2.4 ms for 4 KiB of both."""
KIB_RECEIVED: Final = 0.5
"""Units for a KiB of a large message, whatever it is: what it takes to find out, at the least."""
LARGE_MESSAGE: Final = 2048
"""Bytes beyond which a message is charged by its size before it is decoded."""
CHEAP_MESSAGE: Final = 256
"""Bytes beyond which a message may be refused before it is decoded, unless it is a heartbeat or a leave. It
is charged for the time that it takes to decode: 2 KiB can take 15 us, or 1 ms. So is an invalid one of any
size: to explain what is wrong with it takes up to 0.2 ms."""
PER_SECOND: Final = 10_000
"""Units of a second of the node's time."""
KIB_SENT: Final = 0.1
"""Units for a KiB that is sent to one socket."""
SOCKET: Final = 0.02
"""Units for a socket that a change is sent to; the changes of a room are sent together."""

GUARANTEED: Final = 1 / 20
GUARANTEED_PER_ADDRESS: Final = 0.4
"""Of the address's share, what its connections are guaranteed together: up to 40 have GUARANTEED each."""
PER_USER: Final = 2
PER_ADDRESS: Final = 5
PER_NODE: Final = 20
"""Shares of each account, as multiples of a connection's."""
NODE_BURST: Final = 0.5
"""Of `cost_burst` times PER_NODE, what the node may spend at once: others wait for that time."""

_MAX_DEBT = 2  # times the burst: what was overdrawn is forgotten beyond it
_MAX_GUARANTEED_DEBT = 30  # times that: at a guaranteed share a single request may take minutes to pay off


def price_of(intent: Any) -> float:
    """Return the units for a request, in all rooms that it is about."""
    price = PRICES[type(intent)]
    if isinstance(intent, intents.SetAway | intents.Refresh):
        return price * len(intent.memberships)
    if isinstance(intent, intents.WatchRooms | intents.UnwatchRooms):
        return price * len(intent.room_ids)
    return price


def change_price(size: int, sockets: int) -> float:
    """Return the units for a change of `size` bytes that is sent to `sockets` connections."""
    return sockets * (SOCKET + size * KIB_SENT / 1024)


def list_price(members: int, size: int) -> float:
    """Return the units for the list with which a room begins to be followed.

    size: the bytes of the members' data.
    """
    return MEMBER_READ * members + KIB_READ * size / 1024


def time_price(seconds: float) -> float:
    """Return the units for seconds of the node's time."""
    return seconds * PER_SECOND


class Account:
    """What is spent together: the time at which all of it is paid off, at the account's share of the rate."""

    __slots__ = ("paid_at", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self.paid_at = 0.0


class Spending:
    """What one connection has spent: when that is paid off, at its whole rate and at its guaranteed share.

    address: what it shares with others of its address; kept here, since what it asked for may go on, and be
    charged, after it has closed.
    """

    __slots__ = ("address", "guaranteed", "own")

    def __init__(self, address: Any) -> None:
        self.address = address
        self.own = self.guaranteed = 0.0


class CostLimiter:
    """Charges requests, and refuses them where too much is spent.

    Args:
        rate: Units a second of one connection; 0 is no limit.
        burst: Units of one connection at once.

    Attributes:
        refused: Refused requests, by the account that was overdrawn.

    """

    def __init__(self, rate: int, burst: int) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._tolerance = burst * self._interval
        self._max_debt = _MAX_DEBT * self._tolerance
        self._node_ahead = (1 - NODE_BURST) * self._tolerance
        self._node = Account(PER_NODE)
        self._users = UsageByKey[Account](lambda account, now: account.paid_at > now)
        self.refused: Counter[str] = Counter()

    def wait(self, connection: Any, now: float) -> float:
        """Return the seconds until the connection may ask for something; 0 if it may now.

        Otherwise a request counts as refused.
        """
        seconds, account = self._wait(connection, now)
        if seconds:
            self.refused[account] += 1
        return seconds

    def delay(self, connection: Any, now: float) -> float:
        """Return the same for what is not refused, but carried out later."""
        return self._wait(connection, now)[0]

    def shared_delay(self, connection: Any, now: float) -> float:
        """Return the same for what a connection may ask for at once, however much it is.

        What it has spent itself delays its next request, and not this one.
        """
        return self._wait(connection, now, own=False)[0]

    def charge(self, connection: Any, units: float, now: float) -> None:
        """Charge units to a connection, and to all that it shares with others."""
        if not self._interval:
            return
        spending: Spending | None = connection.spending
        if spending is None:
            spending = connection.spending = Spending(connection.address)
        # Written out, and without min() and max(), since it is done twice for each join: 1 us in place of 6.
        seconds, latest = units * self._interval, now + self._max_debt
        paid_at = (spending.own if spending.own > now else now) + seconds
        spending.own = paid_at if paid_at < latest else latest
        slowness = 1 / GUARANTEED
        address = spending.address
        if address is not None:
            crowd = address.accepted / (GUARANTEED_PER_ADDRESS * address.account.share)
            slowness = slowness if slowness > crowd else crowd
        paid_at = (spending.guaranteed if spending.guaranteed > now else now) + seconds * slowness
        latest_guaranteed = now + self._max_debt * _MAX_GUARANTEED_DEBT
        spending.guaranteed = paid_at if paid_at < latest_guaranteed else latest_guaranteed
        account = self._node
        paid_at = (account.paid_at if account.paid_at > now else now) + seconds / PER_NODE
        account.paid_at = paid_at if paid_at < latest - self._node_ahead else latest - self._node_ahead
        if address is not None:
            account = address.account
            paid_at = (account.paid_at if account.paid_at > now else now) + seconds / account.share
            account.paid_at = paid_at if paid_at < latest else latest
        user = connection.session.proved_user
        if user is not None:
            account = self._user(user, now)
            paid_at = (account.paid_at if account.paid_at > now else now) + seconds / account.share
            account.paid_at = paid_at if paid_at < latest else latest

    def _wait(self, connection: Any, now: float, *, own: bool = True) -> tuple[float, str]:
        """Return the seconds, and the account that is overdrawn for longest."""
        spending: Spending | None = connection.spending
        if spending is None:
            return 0.0, ""
        guaranteed = self._excess(spending.guaranteed, now)
        if guaranteed <= 0:
            return 0.0, ""
        shared = ((self._excess(one, now), name) for name, one in self._shared(connection, now))
        paid_at = spending.own if own else now
        longest, name = max((self._excess(paid_at, now), "connection"), *shared)
        return (min(guaranteed, longest), name) if longest > 0 else (0.0, "")

    def _excess(self, paid_at: float, now: float) -> float:
        return paid_at - now - self._tolerance

    def _shared(self, connection: Any, now: float) -> Iterator[tuple[str, float]]:
        user = connection.session.proved_user
        if user is not None:
            yield "user", self._user(user, now).paid_at
        if connection.address is not None:
            yield "address", connection.address.account.paid_at
        yield "node", self._node.paid_at + self._node_ahead

    def _user(self, user_id: str, now: float) -> Account:
        return self._users.get(user_id, now, lambda: Account(PER_USER))
