"""A node in a process of its own that measures the time from a join to the last write of its diff.

As a program (`python -m scripts.benchmarks.gateway.watched_node SETTINGS`) it answers each line
on its standard input with its counters, and exits at the end of its standard input.
"""

import asyncio
import sys
import time
from typing import Any

from reactor.protocol.intents import Join
from reactor.server.node import Node
from reactor.server.process import run_node
from reactor.server.workers import run_workers
from reactor.settings import Settings
from scripts.benchmarks.child import answer_status_requests, serve_with_json_settings, write_line


class JoinTimer:
    """Measures for each join the time from its arrival to the last write of its diff.

    The diff is at the last socket when the gateway's flush has nothing left to write.
    """

    def __init__(self, node: Node) -> None:
        # Private attributes, used for this measurement only.
        inside: Any = node
        context = inside.gateway._manager.context  # noqa: SLF001
        self._intent, self._flush = inside.handler.intent, context._flush  # noqa: SLF001
        self._arrived = self._seconds = 0.0
        inside.handler.intent, context._flush = self.intent, self.flush  # noqa: SLF001

    def intent(self, connection: Any, intent: Any) -> None:
        """Take the time of a join."""
        if type(intent) is Join:
            self._arrived = time.perf_counter()
        self._intent(connection, intent)

    def flush(self) -> None:
        """Take the time after a flush."""
        self._flush()
        self._seconds = time.perf_counter() - self._arrived

    def join_seconds(self) -> float:
        """Seconds from the last join's arrival to the last write since."""
        return self._seconds


def _status(node: Node, timer: JoinTimer) -> dict[str, Any]:
    return {
        "join_seconds": timer.join_seconds(),
        "connections": len(node.gateway.connections),
        "batches": node.heartbeats.batches,
        "members": node.heartbeats.members,
        "sweeps": node.sweep.rounds,
    }


async def _serve(settings: Settings) -> None:
    listening: list[asyncio.Future[Any]] = []

    def ready(node: Node) -> None:
        timer = JoinTimer(node)
        listening.append(answer_status_requests(lambda: _status(node, timer)))
        write_line({"port": node.gateway.port})

    if settings.workers > 1:
        listening.append(answer_status_requests())
        await run_workers(settings, on_ready=lambda port: write_line({"port": port}))
    else:
        await run_node(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings in the first argument, as JSON."""
    return serve_with_json_settings(_serve)


if __name__ == "__main__":
    sys.exit(main())
