"""How long to wait before a new connection. PURE: times are given, chance is a function.

Full jitter: a wait is drawn evenly between nothing and a bound that doubles with each failure up to a cap, so
that clients which lost one server do not come back together. The bound falls back once a connection has
lasted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from reactor.protocol.closing import CloseCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Times in seconds.

    Attributes:
        first: Bound of the first wait.
        cap: Bound of the longest.
        stable: A connection that lasted so long counts as good, and the bound falls back to the first.
        restart: Bound of the wait when a server said that it restarts (close code 1012).

    """

    first: float = 0.5
    cap: float = 20.0
    stable: float = 10.0
    restart: float = 1.0


class Waits:
    """The waits of one client. draw(low, high) gives a number between the two, as `random.uniform` does."""

    def __init__(self, backoff: Backoff, draw: Callable[[float, float], float]) -> None:
        self._backoff = backoff
        self._draw = draw
        self._failures = 0

    def lost(self, code: int, lasted: float) -> float:
        """Return how long to wait after a connection that lasted so many seconds closed with this code."""
        if lasted >= self._backoff.stable:
            self._failures = 0
        if code == CloseCode.RESTART and not self._failures:
            self._failures = 1
            return self._draw(0.0, self._backoff.restart)
        return self.failed()

    def failed(self) -> float:
        """Return how long to wait after an attempt that failed."""
        # More doublings than fit into a float are no use: the cap is reached long before.
        bound = min(self._backoff.cap, self._backoff.first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return self._draw(0.0, bound)
