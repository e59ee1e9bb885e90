"""Watches whether diffs arrive: a node whose subscription Redis refuses cannot serve its clients.

A connection that breaks is replaced within a moment, and nothing is said of it to clients. Where that takes
longer, as where Redis has reached maxclients, commands may still be answered over their own connections, so
that nothing else would report the outage.
"""

from collections.abc import Callable
from time import monotonic

import anyio

from reactor.backend.interface import Channels
from reactor.backend.outages import NO_ANSWER, outage_reason

OUTAGE_AFTER = 2.0
"""Seconds without a subscription that are an outage."""

CHECK_INTERVAL = 0.25
"""Seconds between two looks at the subscription."""


def subscription_problem(error: Exception | None) -> str:
    """Why channels are not subscribed to, in Redis's words where it refuses, with the fix; else ""."""
    reason = NO_ANSWER if error is None else outage_reason(error)
    return "" if reason == NO_ANSWER else reason


class SubscriptionWatch:
    """Reports a subscription that is missing for long. `serve` has to run.

    on_outage(sentence): called while that is so, and with "" when diffs arrive again.
    """

    def __init__(self, channels: Channels, *, on_outage: Callable[[str], None]) -> None:
        self._channels, self._on_outage = channels, on_outage
        self._missing_since: float | None = None
        self._reported = ""

    @property
    def sentence(self) -> str:
        """What is missing now, for /readyz; "" where diffs arrive."""
        if self._channels.listening:
            return ""
        problem = subscription_problem(self._channels.problem)
        return f"not subscribed to Redis: {problem}" if problem else "not subscribed to Redis"

    def check(self) -> None:
        """Look at the subscription now."""
        sentence, now = self.sentence, monotonic()
        if not sentence:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        if sentence and not self._reported and now - (self._missing_since or now) < OUTAGE_AFTER:
            return
        if sentence != self._reported:
            self._reported = sentence
            self._on_outage(sentence)

    async def serve(self) -> None:
        """Look at it regularly, until cancelled."""
        while True:
            self.check()
            await anyio.sleep(CHECK_INTERVAL)
