"""Status reports that each node publishes in Redis, so that any node can show the whole fleet."""

from collections.abc import Callable
from contextlib import suppress

import anyio
import msgspec

from reactor.errors import UNREADABLE, Unavailable
from reactor.fleet.registry import Registry

REPORT_INTERVAL = 2.0
"""Seconds between two reports of a node."""
REPORT_TTL_MS = 10_000
"""Milliseconds after which a report that was not replaced expires."""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The status of one node. `joins` and `lateness` count since it started.

    `lateness` is cumulative: for each upper bound (ms; None for no bound) the number of expired members whose
    departure came at most that long after their deadline. `notices` are sentences for the operator.
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
    notices: list[str] = []


class Reporter:
    """Publishes a node's report under its current name every REPORT_INTERVAL. `serve` has to run."""

    def __init__(
        self,
        report: Callable[[], NodeReport],
        registry: Registry,
        name: Callable[[], str],
    ) -> None:
        self._report, self._registry, self._name = report, registry, name

    async def serve(self) -> None:
        """Publish reports until cancelled; a report that Redis did not take is skipped."""
        while True:
            report = msgspec.json.encode(self._report())
            with suppress(Unavailable):
                await self._registry.report(self._name(), report, ttl_ms=REPORT_TTL_MS)
            await anyio.sleep(REPORT_INTERVAL)


def read_report(text: bytes) -> NodeReport | None:
    """Return the report that a node wrote, or None where another version wrote it with other fields."""
    try:
        return msgspec.json.decode(text, type=NodeReport)
    except UNREADABLE:
        return None
