"""How long to wait before reconnecting. PURE: durations are passed in, and randomness is a function.

Full jitter: a delay is drawn uniformly between zero and a bound that doubles with each failure up to a cap,
so that clients which lost one server do not reconnect at the same time. The bound is reset once a connection
has lasted, or the server has answered on it and did not close it because of what the client did.
"""

from collections.abc import Callable
from dataclasses import dataclass

from reactor.errors import SettingError
from reactor.protocol.closing import CloseCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Times in seconds. Raises SettingError for one that is no number, or negative.

    Attributes:
        first: Bound of the first delay.
        cap: Bound of the longest delay: a third of the server's default grace, so that a client returns
            within it when the only server restarts.
        stable: A connection that lasted this long was good, also where the server did not answer: the bound
            falls back to the first.
        restart: Bound of the delay when a server said that it restarts (close code 1012).

    """

    first: float = 0.5
    cap: float = 5.0
    stable: float = 10.0
    restart: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            seconds = getattr(self, name)
            # With NaN or a negative pause a client would reconnect without any.
            if not (isinstance(seconds, int | float) and seconds >= 0):
                raise SettingError(f"{name} of Backoff takes a number of seconds, not {seconds!r}")


_COMPLAINTS = frozenset(
    {
        CloseCode.PROTOCOL_ERROR, CloseCode.UNSUPPORTED, CloseCode.NOT_UTF8, CloseCode.POLICY,
        CloseCode.TOO_BIG, CloseCode.FORCE_LEAVE, CloseCode.TOO_SLOW, CloseCode.TOO_MANY,
    }
)  # fmt: skip
"""Codes by which a server closes because of what the client did: the same may happen at once again."""


class ReconnectDelays:
    """The delays of one client. draw(low, high) returns a number in between, as `random.uniform` does."""

    def __init__(self, backoff: Backoff, draw: Callable[[float, float], float]) -> None:
        self._backoff = backoff
        self._draw = draw
        self._failures = 0

    def after_connection(self, code: int, lasted: float, *, answered: bool, released: bool = False) -> float:
        """Return the delay (s) after a connection that lasted `lasted` s and was closed with this code.

        answered: whether the server has answered on it, with other than errors. released: whether it has
        ended a membership on it. A peer that closes with 4003 and has ended none is no reactor server with a
        reason.
        """
        if lasted >= self._backoff.stable or (answered and code not in _COMPLAINTS):
            self._failures = 0
        if code == CloseCode.FORCE_LEAVE and released:
            return 0.0  # The server has ended the last room, while another one was being joined.
        if code == CloseCode.RESTART and not self._failures:
            self._failures = 1
            return self._draw(0.0, self._backoff.restart)
        return self.after_failure()

    def after_failure(self) -> float:
        """Return the delay (s) after an attempt to connect that failed."""
        # The exponent is limited so that the power fits into a float; the cap is reached long before.
        bound = min(self._backoff.cap, self._backoff.first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return self._draw(0.0, bound)
