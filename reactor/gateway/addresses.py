"""Connections counted by client address, and the limits for one address. PURE.

An address is one IPv4 address, or one /64 network of IPv6, which is what one subscriber gets (RFC 6177).
Behind a trusted proxy it is the right-most address of X-Forwarded-For that is not a trusted proxy: what
stands left of it was written by the client.
"""

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from reactor.settings.security import Network

DROP_FACTOR: Final = 2
"""Connections over a limit are rejected with a response up to this multiple of it, and dropped beyond."""

_BURST = 2.0  # seconds' worth of new connections that may come at once
_MIN_PRUNE_SIZE = 1024


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
        rejected: Connections about to receive a rejection.
        next_accept: GCRA arrival time of accepted connections (see rate_limit.py); `next_any` of all.

    """

    __slots__ = ("accepted", "name", "next_accept", "next_any", "rejected")

    def __init__(self, name: str) -> None:
        self.name = name
        self.accepted = self.rejected = 0
        self.next_accept = self.next_any = 0.0

    def in_use(self, now: float) -> bool:
        """Return whether the address has connections or recent attempts."""
        return bool(self.accepted or self.rejected) or max(self.next_accept, self.next_any) > now


class AddressLimiter:
    """Limits connections and new connections a second by address.

    Args:
        limit: Connections of one address; 0 is no limit.
        rate: New connections a second of one address, and twice that at once; 0 is no limit.
        trusted: Networks of proxies; no limit applies to the proxies themselves.

    """

    def __init__(self, *, limit: int, rate: int, trusted: Iterable[Network]) -> None:
        self._limit = limit
        self._interval = 1 / rate if rate else 0.0
        self._trusted = tuple(trusted)
        self._usage: dict[str, AddressUsage] = {}
        self._prune_size = _MIN_PRUNE_SIZE
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
        """Count a connection and decide on it; no usage if no limit applies or the connection is dropped."""
        key = self._cached_key(peer)
        if not key:
            return None, Decision.ACCEPT
        usage = self._usage.get(key)
        if usage is None:
            self._prune(now)
            usage = self._usage[key] = AddressUsage(key)
        decision = self._decide(usage, now)
        if decision is Decision.ACCEPT:
            usage.accepted += 1
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
        next_any = max(usage.next_any, now) + self._interval / DROP_FACTOR
        too_many = self._limit and usage.rejected >= (DROP_FACTOR - 1) * self._limit
        if too_many or next_any - now > _BURST:
            return Decision.DROP
        usage.next_any = next_any
        next_accept = max(usage.next_accept, now) + self._interval
        full = self._limit and usage.accepted >= self._limit
        if full or next_accept - now > _BURST + self._interval / 2:
            return Decision.REJECT
        usage.next_accept = next_accept
        return Decision.ACCEPT

    def _prune(self, now: float) -> None:
        if len(self._usage) < self._prune_size:
            return
        self._usage = {key: usage for key, usage in self._usage.items() if usage.in_use(now)}
        self._prune_size = max(_MIN_PRUNE_SIZE, 2 * len(self._usage))

    def _key(self, peer: str) -> str:
        """Return the address to count a peer under; empty if it is not counted."""
        address = _parse(peer)
        if address is None or any(address in network for network in self._trusted):
            return ""
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
