"""What a node tells of itself in Redis, so that whoever looks at one node sees the whole fleet."""

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import msgspec

from reactor import __version__
from reactor.errors import Unavailable
from reactor.presence.fleet import Fleet

if TYPE_CHECKING:
    from reactor.node import Node

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


def report_of(node: "Node") -> Report:
    """A node as it is now."""
    ready, status = node.ready()
    return Report(
        version=__version__,
        connections=len(node.gateway.connections),
        members=node.roster.members,
        rooms=len(node.roster),
        joins=node.dispatch.joins,
        leading=node.pacemaker.leading,
        ready=ready,
        status=status,
        lateness=[
            (None if bound == float("inf") else bound * 1000, count)
            for bound, count in node.reaper.lateness.cumulative()
        ],
    )


class Reporter:
    """Reports on a node. `serve` has to run."""

    def __init__(self, node: "Node", fleet: Fleet) -> None:
        self._node, self._fleet = node, fleet

    async def serve(self) -> None:
        """Report until cancelled."""
        while True:
            report = msgspec.json.encode(report_of(self._node))
            with suppress(Unavailable):
                await self._fleet.report(self._node.name(), report, milliseconds=NEWS_FOR)
            await anyio.sleep(EVERY)


def read_report(text: bytes) -> Report | None:
    """The report that a node wrote; None for one of another version that says other things."""
    try:
        return msgspec.json.decode(text, type=Report)
    except msgspec.DecodeError:
        return None
