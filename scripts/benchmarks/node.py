"""A node in a process of its own, as `reactor serve` runs it, that tells its counters when it is asked.

As a program (`python -m scripts.benchmarks.node SETTINGS`) it reads a line for each look at its counters,
and ends when its standard input does: it never outlives the benchmark.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from reactor.server.node import Node
from reactor.server.process import run_node
from reactor.settings import Settings
from scripts.benchmarks.child import ask, child_process, listen, say, serve_as_given


class NodeProcess:
    """A running node, seen from the benchmark."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    async def status(self) -> dict[str, Any]:
        """Give its counters now; `cpu` is the processor time that it has used, in seconds."""
        return await ask(self._process)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    async def stop(self) -> tuple[int, float]:
        """End it by SIGTERM; the exit code, and the seconds that took."""
        began = time.monotonic()
        self._process.terminate()
        return await self._process.wait(), time.monotonic() - began

    async def settled(self, *, sweeps: int, leading: bool) -> None:
        """Return once it has swept what it found at its start, and has the pacemaker's turn."""
        while True:
            status = await self.status()
            if status["sweeps"] >= sweeps and (status["leading"] or not leading):
                return
            await anyio.sleep(0.05)

    async def found(self, count: int) -> dict[str, int]:
        """Return once it has made that many departures: by what they were found, and how many of each."""
        while True:
            found: dict[str, int] = (await self.status())["found_by"]
            if sum(found.values()) >= count:
                return found
            await anyio.sleep(0.1)


@asynccontextmanager
async def node_process(settings: Mapping[str, Any]) -> AsyncIterator[NodeProcess]:
    """A node with these settings, open to clients; it is stopped in order behind the block.

    Raises ReactorError with the last of its log when it does not start.
    """
    command = (sys.executable, "-m", "scripts.benchmarks.node", json.dumps(settings))
    async with child_process(command) as (process, port):
        yield NodeProcess(process, port)


def _status(node: Node) -> dict[str, Any]:
    return {
        "cpu": time.process_time(),
        "sweeps": node.sweep.rounds,
        "leading": node.pacemaker.leading,
        "looks": node.pacemaker.scans,
        "moved": node.pacemaker.moved,
        "heard": node.listener.received,
        "found_by": dict(node.reaper.found_by),
        "connections": len(node.gateway.connections),
    }


async def _serve(settings: Settings) -> None:
    listening: list[asyncio.Future[Any]] = []

    def ready(node: Node) -> None:
        listening.append(listen(lambda: _status(node)))
        say({"port": node.gateway.port})

    await run_node(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings given as JSON."""
    return serve_as_given(_serve)


if __name__ == "__main__":
    sys.exit(main())
