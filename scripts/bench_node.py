"""A node in a process of its own, as `reactor serve` runs it, that tells its counters when it is asked.

As a program (`python -m scripts.bench_node SETTINGS`) it reads a line for each look at its counters, and ends
when its standard input does: it never outlives the benchmark.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any

import anyio
import structlog

from reactor.errors import ReactorError
from reactor.node import Node, run
from reactor.settings import RoomRule, Settings
from scripts.bench_common import ROOT, allow_many_files

START_WITHIN = 30.0
STOP_WITHIN = 30.0


class NodeProcess:
    """A running node, seen from the benchmark."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    async def status(self) -> dict[str, Any]:
        """Give its counters now; `cpu` is the processor time that it has used, in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise ReactorError("the node has ended")
        status: dict[str, Any] = json.loads(line)
        return status

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
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.bench_node", json.dumps(settings),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            # Ctrl-C goes to the whole process group, and the benchmark stops its node itself.
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = b""
            with anyio.move_on_after(START_WITHIN):
                line = await process.stdout.readline()
            if not line:
                raise ReactorError(f"the node did not start: {_last_line(log)}")
            yield NodeProcess(process, json.loads(line)["port"])
        finally:
            with anyio.CancelScope(shield=True):
                process.stdin.close()
                with anyio.move_on_after(STOP_WITHIN):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _status(node: Node) -> dict[str, Any]:
    return {
        "cpu": time.process_time(),
        "sweeps": node.sweep.rounds,
        "leading": node.pacemaker.leading,
        "looks": node.pacemaker.looks,
        "moved": node.pacemaker.moved,
        "heard": node.listener.heard,
        "found_by": dict(node.reaper.found_by),
        "connections": len(node.gateway.connections),
    }


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


class _Questions(asyncio.Protocol):
    """Standard input: a line asks for the counters, its end ends the node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            _say(_status(self._node))

    def connection_lost(self, _exc: Exception | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    asking: set[asyncio.Task[Any]] = set()

    def ready(node: Node) -> None:
        asking.add(asyncio.ensure_future(loop.connect_read_pipe(lambda: _Questions(node), sys.stdin)))
        _say({"port": node.gateway.port})

    await run(settings, on_ready=ready)


def main() -> int:
    """Serve with the settings given as JSON; `rooms` is a list of rules."""
    # Standard output is for the answers.
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
