"""How fast one connection may speak. PURE.

A token bucket in the form of the generic cell rate algorithm (ITU-T I.371): a connection keeps one number,
the time up to which all it has said is paid for. A message moves that on by `gap`; more than `slack` ahead of
the clock is over the rate. So it takes no timer and no division.
"""

from enum import Enum

REFUSALS = 20
"""Messages over the rate that are refused one by one; the next closes the connection."""


class Over(Enum):
    """What becomes of a message over the rate."""

    TAKE = "take"
    REFUSE = "refuse"
    CLOSE = "close"


class Pace:
    """The rate that all connections share.

    Args:
        rate: Messages a second; 0 is no limit.
        burst: Messages at once.
        tick: Seconds that the clock may be behind, which are granted on top.

    """

    __slots__ = ("gap", "rest", "slack")

    def __init__(self, rate: int, burst: int, tick: float) -> None:
        self.gap = 1 / rate if rate else 0.0
        self.slack = burst * self.gap + tick
        self.rest = burst * self.gap  # after so long, what was refused is forgiven


class Overdraft:
    """What one connection has said over its rate; there only once it did.

    Args:
        credit: Messages that are taken all the same, once in its life: it may join all its rooms at once when
            it comes, and leave them when it goes.

    """

    __slots__ = ("_credit", "_last", "_refused")

    def __init__(self, credit: int) -> None:
        self._credit = credit
        self._refused = 0
        self._last = 0.0

    def draw(self, now: float, rest: float) -> Over:
        """Judge one message that came over the rate."""
        if self._credit:
            self._credit -= 1
            return Over.TAKE
        if now - self._last > rest:
            self._refused = 0
        self._last = now
        self._refused += 1
        return Over.REFUSE if self._refused <= REFUSALS else Over.CLOSE
