"""Where sockets come from, and how many may come from one place. PURE.

An address is one IPv4 address, or one /64 network of IPv6, which is what one subscriber gets (RFC 6177).
Behind a proxy that is trusted, it is the right-most address of X-Forwarded-For that is none of the trusted:
what stands left of it was written by the client.
"""

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from reactor.settings.security import Network

SPARE: Final = 2
"""Times its limit an address may come, to be answered with a refusal; what comes beyond is cut off."""

_AT_ONCE = 2.0  # seconds' worth of new sockets that may come together
_PRUNE_AT = 1024


class Fate(Enum):
    """What becomes of a new socket."""

    LET_IN = "let in"
    REFUSE = "refuse"
    CUT_OFF = "cut off"


class Address:
    """One place that sockets come from: how many are let in, how many refused, and paid up to when."""

    __slots__ = ("due", "name", "refused", "seen", "sockets")

    def __init__(self, name: str) -> None:
        self.name = name
        self.sockets = self.refused = 0
        self.due = self.seen = 0.0

    def matters(self, now: float) -> bool:
        """Whether anything is to be remembered of it."""
        return bool(self.sockets or self.refused) or max(self.due, self.seen) > now


class Visitors:
    """Sockets by their address.

    Args:
        most: Sockets of one address; 0 is no limit.
        rate: New sockets a second of one address, and twice that at once; 0 is no limit.
        trusted: Networks of proxies; none of these limits holds for themselves.

    """

    def __init__(self, *, most: int, rate: int, trusted: Iterable[Network]) -> None:
        self._most = most
        self._gap = 1 / rate if rate else 0.0
        self._trusted = tuple(trusted)
        self._known: dict[str, Address] = {}
        self._prune_at = _PRUNE_AT
        self._place_of = lru_cache(4096)(self._place)

    def is_proxy(self, peer: str) -> bool:
        """Whether a peer is one whose word on where a request came from is taken."""
        return self._place_of(peer) == ""

    def behind(self, peer: str, forwarded: Iterable[str]) -> str:
        """Return where a request really came from: the peer, or whom trusted proxies name.

        Args:
            peer: The other end of the socket.
            forwarded: The values of X-Forwarded-For, as they came.

        """
        place = peer
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        while hops and self.is_proxy(place):
            hop = _without_port(hops.pop())
            if _parsed(hop) is None:
                break
            place = hop
        return place

    def enter(self, peer: str, now: float) -> tuple[Address | None, Fate]:
        """Count a socket, and say what becomes of it; no address where no limit holds, or it is cut off."""
        place = self._place_of(peer)
        if not place:
            return None, Fate.LET_IN
        address = self._known.get(place)
        if address is None:
            self._prune(now)
            address = self._known[place] = Address(place)
        fate = self._judge(address, now)
        if fate is Fate.LET_IN:
            address.sockets += 1
        elif fate is Fate.REFUSE:
            address.refused += 1
        return (None if fate is Fate.CUT_OFF else address), fate

    def leave(self, address: Address, fate: Fate) -> None:
        """Count a socket no more."""
        if fate is Fate.REFUSE:
            address.refused -= 1
        else:
            address.sockets -= 1

    def _judge(self, address: Address, now: float) -> Fate:
        seen = max(address.seen, now) + self._gap / SPARE
        if seen - now > _AT_ONCE or (self._most and address.refused >= (SPARE - 1) * self._most):
            return Fate.CUT_OFF
        address.seen = seen
        due = max(address.due, now) + self._gap
        if due - now > _AT_ONCE + self._gap / 2 or (self._most and address.sockets >= self._most):
            return Fate.REFUSE
        address.due = due
        return Fate.LET_IN

    def _prune(self, now: float) -> None:
        if len(self._known) < self._prune_at:
            return
        self._known = {place: address for place, address in self._known.items() if address.matters(now)}
        self._prune_at = max(_PRUNE_AT, 2 * len(self._known))

    def _place(self, peer: str) -> str:
        """Return the name to count by; empty where nothing is counted."""
        address = _parsed(peer)
        if address is None or any(address in network for network in self._trusted):
            return ""
        if isinstance(address, IPv6Address):
            return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
        return str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
