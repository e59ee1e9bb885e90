"""Measures how late the event loop is: work that does not yield delays every client of the node."""

import asyncio

from reactor.histogram import SECONDS, Histogram

INTERVAL = 0.25
"""Seconds between two measurements."""


class LoopLag:
    """A histogram of the seconds by which a timer of the event loop was late. `serve` has to run."""

    def __init__(self) -> None:
        self.histogram = Histogram(SECONDS)

    async def serve(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL
            await asyncio.sleep(INTERVAL)
            self.histogram.add(max(0.0, loop.time() - due))
