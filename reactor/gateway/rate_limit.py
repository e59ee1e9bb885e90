"""How many messages one connection may send. PURE.

A token bucket in the form of the generic cell rate algorithm (ITU-T I.371): a connection keeps one number,
the theoretical arrival time (TAT) of its next message. Each message advances it by `interval`; a message
whose TAT is more than `tolerance` ahead of the clock exceeds the rate. This needs no timer and no division.
A large message counts as several, since it is parsed before anything else is known of it.
"""

from enum import Enum

MAX_REJECTIONS = 20
"""Excess messages that are rejected one by one; the next closes the connection."""


LARGEST_COUNTS = 8
"""Messages as which one of the largest size counts."""


class ExcessDecision(Enum):
    """What happens to a message that exceeds the rate."""

    ACCEPT = "accept"
    REJECT = "reject"
    CLOSE = "close"


class RateLimit:
    """The rate limit of every connection.

    Args:
        rate: Messages a second; 0 is no limit.
        burst: Messages at once.
        tick: Seconds that the clock may be late; added to the tolerance.
        max_message: Bytes of the largest message.

    Attributes:
        large: Bytes beyond which a message counts as several.

    """

    __slots__ = ("_burst", "forget_after", "interval", "large", "tolerance")

    def __init__(self, rate: int, burst: int, tick: float, *, max_message: int = 65536) -> None:
        self._burst = burst
        self.large = max_message // LARGEST_COUNTS
        self.interval = 1 / rate if rate else 0.0
        self.tolerance = burst * self.interval + tick
        self.forget_after = burst * self.interval  # seconds without excess that clear the rejections

    def weight(self, size: int) -> int:
        """Return as how many messages one of `size` bytes counts; never more than the burst."""
        return min(-(-size // self.large) if self.large else 1, self._burst)


class ExcessMessages:
    """The excess messages of one connection; created with the first.

    Args:
        credit: Excess messages accepted once in the connection's life: a client may join all its rooms
            at once when it connects, and leave them when it closes.

    """

    __slots__ = ("_credit", "_last", "_rejected")

    def __init__(self, credit: int) -> None:
        self._credit = credit
        self._rejected = 0
        self._last = 0.0

    def decide(self, now: float, forget_after: float, *, may_use_credit: bool = True) -> ExcessDecision:
        """Decide on one message that exceeds the rate."""
        if self._credit and may_use_credit:
            self._credit -= 1
            return ExcessDecision.ACCEPT
        if now - self._last > forget_after:
            self._rejected = 0
        self._last = now
        self._rejected += 1
        return ExcessDecision.REJECT if self._rejected <= MAX_REJECTIONS else ExcessDecision.CLOSE
