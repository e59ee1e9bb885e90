"""A TCP proxy on loopback that imitates network faults on demand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self


class Proxy:
    """Forwards connections at `port` to `target`, both ports on loopback.

    Set `delay` (seconds, before each piece that passes) and `refuse` (new connections are dropped) at any
    time. `opened` counts the connections so far.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.refuse = False
        self.opened = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._stalled: list[asyncio.Event] = []
        self._answering = asyncio.Event()
        self._answering.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, target: int) -> AsyncIterator[Self]:
        proxy = cls(target)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.release()
            proxy.cut()
            while proxy._tasks:
                await asyncio.wait(proxy._tasks)
            await server.wait_closed()

    def cut(self) -> None:
        """Reset every connection, at both ends."""
        for writer in self._writers:
            writer.transport.abort()

    def withhold(self) -> None:
        """Forward nothing, but keep all connections open, so that each end has to detect it."""
        self._flowing.clear()

    def stall(self) -> None:
        """Forward nothing over the present connections until `release`; new connections work."""
        self._flowing.clear()
        self._stalled.append(self._flowing)
        self._flowing = asyncio.Event()
        self._flowing.set()

    def withhold_replies(self) -> None:
        """Forward requests, but no replies."""
        self._answering.clear()

    def release(self) -> None:
        """Forward again, beginning with the withheld data."""
        self._flowing.set()
        while self._stalled:
            self._stalled.pop().set()
        self._answering.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.opened += 1
        try:
            if not self.refuse:
                with suppress(OSError):
                    await self._pass_on(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        pair, flowing = {writer, far_writer}, self._flowing
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer, flowing))
                tasks.create_task(self._pump(far_reader, writer, flowing, self._answering))
        finally:
            self._writers -= pair
            far_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *gates: asyncio.Event
    ) -> None:
        with suppress(OSError, RuntimeError):  # RuntimeError: uvloop, after an abort
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                for gate in gates:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
