"""A minimal TCP load balancer: each new connection goes to the next server that accepts it.

As a program (`python -m scripts.benchmarks.fleet.balancer PORT...`) it says on which port it listens,
and ends when its standard input does.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import cast

import anyio
import uvloop

from reactor.errors import ReactorError
from scripts.benchmarks.running import ROOT, allow_many_files

BACKLOG = 4096


class _Side(asyncio.Protocol):
    """One side of a proxied connection; received data is written to the other side."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def join(self, other: "_Side") -> None:
        """Connect this side with the other one."""
        self.other, other.other = other, self
        if other.transport is not None:
            other.transport.write(bytes(self._early))
            self._early.clear()
        if self.transport is None or self.transport.is_closing():
            other.connection_lost(None)


class _Balancer:
    def __init__(self, ports: Sequence[int]) -> None:
        self._ports, self._next = ports, cycle(ports)
        self._connecting: set[asyncio.Task[None]] = set()

    def accept(self) -> _Side:
        client = _Side()
        task = asyncio.ensure_future(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return client

    async def _connect(self, client: _Side) -> None:
        loop = asyncio.get_running_loop()
        for _ in self._ports:
            try:
                _, server = await loop.create_connection(_Side, "127.0.0.1", next(self._next))
            except OSError:
                continue
            client.join(server)
            return
        if client.transport is not None:
            client.transport.close()


async def _serve(ports: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    balancer = _Balancer(ports)
    server = await loop.create_server(balancer.accept, "127.0.0.1", 0, backlog=BACKLOG)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    ended = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()


@asynccontextmanager
async def balancer(ports: Sequence[int]) -> AsyncIterator[int]:
    """Run a load balancer in a process of its own; yield the port for clients."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.benchmarks.fleet.balancer", *map(str, ports),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise ReactorError("the balancer did not start")
        yield json.loads(line)["port"]
    finally:
        with anyio.CancelScope(shield=True):
            process.stdin.close()
            await process.wait()


if __name__ == "__main__":
    allow_many_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve([int(word) for word in sys.argv[1:]]))
