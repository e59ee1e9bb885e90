"""A node in a process of its own that tells when it heard of a join, and when it had written the news to all.

As a program (`python -m scripts.bench_gateway_node SETTINGS`) it reads a line for each look, and ends when
its standard input does.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
import structlog

from reactor.errors import ReactorError
from reactor.node import Node, run
from reactor.protocol.intents import Join
from reactor.settings import RoomRule, Settings
from reactor.workers import run_workers
from scripts.bench_common import allow_many_files


class Watch:
    """Notes, for each join, when it came in and when the last write for it was done.

    A turn of the gateway's flush that leaves nothing to flush is where its news has reached the last socket.
    """

    def __init__(self, node: Node) -> None:
        # A look inside, for measuring alone; so it goes by names.
        inside: Any = node
        hub = inside.gateway._hub  # noqa: SLF001
        self._intent, self._flush = inside.dispatch.intent, hub._flush  # noqa: SLF001
        self._arrived = self._seconds = 0.0
        inside.dispatch.intent, hub._flush = self.intent, self.flush  # noqa: SLF001

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


class _End(asyncio.Protocol):
    def connection_lost(self, _exc: Exception | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class _Questions(_End):
    def __init__(self, node: Node) -> None:
        self._node = node
        self._watch = Watch(node)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            _say(
                {
                    "join_seconds": self._watch.look(),
                    "connections": len(self._node.gateway.connections),
                    "batches": self._node.heartbeats.batches,
                    "members": self._node.heartbeats.members,
                    "sweeps": self._node.sweep.rounds,
                }
            )


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    listening: list[Any] = []

    def listen(protocol: Callable[[], asyncio.Protocol]) -> None:
        listening.append(asyncio.ensure_future(loop.connect_read_pipe(protocol, sys.stdin)))

    def ready(node: Node) -> None:
        listen(lambda: _Questions(node))
        _say({"port": node.gateway.port})

    if settings.workers > 1:
        listen(_End)
        await run_workers(settings, on_ready=lambda port: _say({"port": port}))
    else:
        await run(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings given as JSON."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
    allow_many_files()
    given = json.loads(sys.argv[1])
    given["rooms"] = tuple(RoomRule(**rule) for rule in given.get("rooms", ()))
    try:
        anyio.run(_serve, Settings(**given), backend_options={"use_uvloop": True})
    except ReactorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
