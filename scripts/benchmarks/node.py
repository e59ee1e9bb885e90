"""A node in a process of its own, as `reactor serve` runs it, that reports its counters on request.

As a program (`python -m scripts.benchmarks.node SETTINGS`) it answers each line on its standard input with
its counters, and exits at the end of its standard input.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from reactor.errors import ReactorError
from reactor.server.node import Node
from reactor.server.process import run_node
from reactor.settings import Settings
from scripts.benchmarks.child import (
    answer_status_requests,
    ask,
    child_process,
    serve_with_json_settings,
    write_line,
)

SETTLED_WITHIN = 120.0
"""Seconds for the first sweep, which reads every member."""


class NodeProcess:
    """A running node."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def status(self) -> dict[str, Any]:
        """Return its counters; `cpu` is the CPU time used so far, in seconds."""
        return await ask(self._process)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    async def stop(self) -> tuple[int, float]:
        """SIGTERM; return the exit code and the seconds until the exit."""
        began = time.monotonic()
        self._process.terminate()
        return await self._process.wait(), time.monotonic() - began

    async def wait_until_settled(self, *, sweeps: int, leading: bool) -> None:
        """Wait until the node has completed its first sweep and leads the pacemaker. Raises ReactorError."""
        began = time.monotonic()
        while True:
            if time.monotonic() - began > SETTLED_WITHIN:
                raise ReactorError(
                    f"the node has made no sweep, or leads no pacemaker: {await self.status()}"
                )
            status = await self.status()
            if status["sweeps"] >= sweeps and (status["leading"] or not leading):
                return
            await anyio.sleep(0.05)

    async def wait_for_departures(self, count: int) -> dict[str, int]:
        """Wait until the node has made `count` departures; return their number by path."""
        while True:
            by_path: dict[str, int] = (await self.status())["found_by"]
            if sum(by_path.values()) >= count:
                return by_path
            await anyio.sleep(0.1)


@asynccontextmanager
async def node_process(
    settings: Mapping[str, Any], module: str = "scripts.benchmarks.node", *more: str
) -> AsyncIterator[NodeProcess]:
    """Run a node with these settings during the block.

    module: the program, one that answers like this. more: its further arguments.

    Raises ReactorError with the end of its log if it does not start.
    """
    command = (sys.executable, "-m", module, json.dumps(settings), *more)
    async with child_process(command) as (process, port):
        yield NodeProcess(process, port)


def status_of(node: Node) -> dict[str, Any]:
    """Return the counters of a node."""
    return {
        "cpu": time.process_time(),
        "sweeps": node.sweep.rounds,
        "leading": node.pacemaker.leading,
        "scans": node.pacemaker.scans,
        "moved": node.pacemaker.moved,
        "events_received": node.listener.received,
        "found_by": dict(node.reaper.found_by),
        "connections": len(node.gateway.connections),
        "detaching": node.reconciler.detach_queue.pending,
    }


async def _serve(settings: Settings) -> None:
    listening: list[asyncio.Future[Any]] = []

    def ready(node: Node) -> None:
        listening.append(answer_status_requests(lambda: status_of(node)))
        write_line({"port": node.gateway.port})

    await run_node(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings in the first argument, as JSON."""
    return serve_with_json_settings(_serve)


if __name__ == "__main__":
    sys.exit(main())
