"""What a node tells of itself in Redis, so that whoever looks at one node sees the whole fleet."""

from collections.abc import Callable
from contextlib import suppress

import anyio
import msgspec

from reactor.errors import Unavailable
from reactor.fleet.registry import Fleet

EVERY = 2.0
"""Seconds between two reports."""
NEWS_FOR = 10_000
"""Milliseconds for which a report is news."""


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One node. `joins` and `lateness` count since it started.

    `lateness` has for each bound (ms; null for none) how many departures by time came no later after their
    deadline.
    """

    version: str
    connections: int
    members: int
    rooms: int
    joins: int
    leading: bool
    ready: bool
    status: str
    lateness: list[tuple[float | None, int]]


class Reporter:
    """Reports on a node: what it is now, under the name that it has now. `serve` has to run."""

    def __init__(self, report: Callable[[], Report], fleet: Fleet, name: Callable[[], str]) -> None:
        self._report, self._fleet, self._name = report, fleet, name

    async def serve(self) -> None:
        """Report until cancelled."""
        while True:
            report = msgspec.json.encode(self._report())
            with suppress(Unavailable):
                await self._fleet.report(self._name(), report, milliseconds=NEWS_FOR)
            await anyio.sleep(EVERY)


def read_report(text: bytes) -> Report | None:
    """The report that a node wrote; None for one of another version that says other things."""
    try:
        return msgspec.json.decode(text, type=Report)
    except msgspec.DecodeError:
        return None
