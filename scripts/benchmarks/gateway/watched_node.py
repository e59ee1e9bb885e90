"""A node in a process of its own that tells when it heard of a join, and when it had written the news to all.

As a program (`python -m scripts.benchmarks.gateway.watched_node SETTINGS`) it reads a line for each
look, and ends when its standard input does.
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
from scripts.benchmarks.child import listen, say, serve_as_given


class Watch:
    """Notes, for each join, when it came in and when the last write for it was done.

    A turn of the gateway's flush that leaves nothing to flush is where its news has reached the last socket.
    """

    def __init__(self, node: Node) -> None:
        # A look inside, for measuring alone; so it goes by names.
        inside: Any = node
        context = inside.gateway._manager.context  # noqa: SLF001
        self._intent, self._flush = inside.handler.intent, context._flush  # noqa: SLF001
        self._arrived = self._seconds = 0.0
        inside.handler.intent, context._flush = self.intent, self.flush  # noqa: SLF001

    def intent(self, connection: Any, intent: Any) -> None:
        """Note when a join comes in."""
        if type(intent) is Join:
            self._arrived = time.perf_counter()
        self._intent(connection, intent)

    def flush(self) -> None:
        """Note when the writing ends."""
        self._flush()
        self._seconds = time.perf_counter() - self._arrived

    def look(self) -> float:
        """Seconds from the last join's arrival to the last write since."""
        return self._seconds


def _status(node: Node, watch: Watch) -> dict[str, Any]:
    return {
        "join_seconds": watch.look(),
        "connections": len(node.gateway.connections),
        "batches": node.heartbeats.batches,
        "members": node.heartbeats.members,
        "sweeps": node.sweep.rounds,
    }


async def _serve(settings: Settings) -> None:
    listening: list[asyncio.Future[Any]] = []

    def ready(node: Node) -> None:
        watch = Watch(node)
        listening.append(listen(lambda: _status(node, watch)))
        say({"port": node.gateway.port})

    if settings.workers > 1:
        listening.append(listen())
        await run_workers(settings, on_ready=lambda port: say({"port": port}))
    else:
        await run_node(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings given as JSON."""
    return serve_as_given(_serve)


if __name__ == "__main__":
    sys.exit(main())
