"""Connections counted by client address, and the limits for one address. PURE.

An address is one IPv4 address, or one /64 network of IPv6, which is what one subscriber gets (RFC 6177).
Behind a trusted proxy it is the right-most address of X-Forwarded-For that is not a trusted proxy: what
stands left of it was written by the client. Clients that the proxy does not name are counted under its own
address, with larger limits.
"""

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from reactor.gateway.cost import PER_ADDRESS, Account
from reactor.gateway.usage import UsageByKey
from reactor.settings.security import Network

DROP_FACTOR: Final = 2
"""Connections over a limit are rejected with a response up to this multiple of it, and dropped beyond."""

UNNAMED_FACTOR: Final = 20
"""By how much the limits are larger for all the clients that a trusted proxy does not name."""

_BURST = 2.0  # seconds' worth of new connections that may come at once


class Decision(Enum):
    """What happens to a new connection."""

    ACCEPT = "accept"
    REJECT = "reject"  # with an HTTP response
    DROP = "drop"  # without a response


class AddressUsage:
    """One address: its accepted and rejected connections, and the arrival times of its rate limits.

    Attributes:
        name: The address.
        accepted: Open connections that count towards `max_per_address`.
        unsettled: Those of them that count towards `max_unjoined_per_address`.
        factor: By how much its limits are larger.
        rejected: Connections about to receive a rejection.
        account: What its connections have spent together (see cost.py).
        next_accept: GCRA arrival time of accepted connections (see rate_limit.py); `next_any` of all.

    """

    __slots__ = (
        "accepted", "account", "factor", "name", "next_accept", "next_any", "rejected", "unsettled",
    )  # fmt: skip

    def __init__(self, name: str, factor: int = 1) -> None:
        self.name = name
        self.factor = factor
        self.accepted = self.rejected = self.unsettled = 0
        self.account = Account(PER_ADDRESS * factor)
        self.next_accept = self.next_any = 0.0

    def in_use(self, now: float) -> bool:
        """Return whether the address has connections, recent attempts, or something to pay off."""
        latest = max(self.next_accept, self.next_any, self.account.paid_at)
        return bool(self.accepted or self.rejected) or latest > now


class AddressLimiter:
    """Limits connections and new connections a second by address.

    Args:
        limit: Connections of one address; 0 is no limit.
        unsettled_limit: Those that have joined no room and shown no token; 0 is no limit.
        rate: New connections a second of one address, and twice that at once; 0 is no limit.
        trusted: Networks of proxies.

    """

    def __init__(
        self, *, limit: int, rate: int, trusted: Iterable[Network], unsettled_limit: int = 0
    ) -> None:
        self._limit, self._unsettled_limit = limit, unsettled_limit
        self._interval = 1 / rate if rate else 0.0
        self._trusted = tuple(trusted)
        self._usage = UsageByKey[AddressUsage](AddressUsage.in_use)
        self._cached_key = lru_cache(4096)(self._key)

    def client_address(self, peer: str, forwarded: Iterable[str]) -> str:
        """Return where a request came from: the peer, or the client that trusted proxies name.

        Args:
            peer: Address of the other end of the connection.
            forwarded: The values of X-Forwarded-For, in the order received.

        """
        address = peer
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        while hops and not self._cached_key(address):  # a trusted proxy, which is not counted
            hop = _without_port(hops.pop())
            if _parse(hop) is None:
                break
            address = hop
        return address

    def add(self, peer: str, now: float) -> tuple[AddressUsage | None, Decision]:
        """Count a connection and decide on it; no usage for a trusted proxy, or where it is dropped."""
        key = self._cached_key(peer)
        return self._count(key, 1, now) if key else (None, Decision.ACCEPT)

    def add_unnamed(self, proxy: str, now: float) -> tuple[AddressUsage | None, Decision]:
        """Count a connection of a client that a trusted proxy did not name, as `add` does."""
        return self._count(f"{counted_address(proxy)} (a trusted proxy)", UNNAMED_FACTOR, now)

    def settle(self, usage: AddressUsage) -> None:
        """Note that an accepted connection has joined a room, shown a token, or is to be removed."""
        usage.unsettled -= 1

    def _count(self, key: str, factor: int, now: float) -> tuple[AddressUsage | None, Decision]:
        usage = self._usage.get(key, now, lambda: AddressUsage(key, factor))
        decision = self._decide(usage, now)
        if decision is Decision.ACCEPT:
            usage.accepted += 1
            usage.unsettled += 1
        elif decision is Decision.REJECT:
            usage.rejected += 1
        return (None if decision is Decision.DROP else usage), decision

    def remove(self, usage: AddressUsage, decision: Decision) -> None:
        """Stop counting a connection."""
        if decision is Decision.REJECT:
            usage.rejected -= 1
        else:
            usage.accepted -= 1

    def _decide(self, usage: AddressUsage, now: float) -> Decision:
        interval, limit = self._interval / usage.factor, self._limit * usage.factor
        next_any = max(usage.next_any, now) + interval / DROP_FACTOR
        too_many = limit and usage.rejected >= (DROP_FACTOR - 1) * limit
        if too_many or next_any - now > _BURST:
            return Decision.DROP
        usage.next_any = next_any
        next_accept = max(usage.next_accept, now) + interval
        full = limit and usage.accepted >= limit
        if self._unsettled_limit and usage.unsettled >= self._unsettled_limit * usage.factor:
            full = True
        if full or next_accept - now > _BURST + interval / 2:
            return Decision.REJECT
        usage.next_accept = next_accept
        return Decision.ACCEPT

    def _key(self, peer: str) -> str:
        """Return the address to count a peer under; empty if it is not counted."""
        address = _parse(peer)
        if address is None or any(address in network for network in self._trusted):
            return ""
        return _counted(address)


@lru_cache(1024)
def counted_address(peer: str) -> str:
    """Return the address that a peer is counted under, with IPv6 its /64 network; empty if it has none."""
    address = _parse(peer)
    return "" if address is None else _counted(address)


def _counted(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
    return str(address)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
