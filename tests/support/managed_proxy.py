"""An endpoint as managed services have: it refuses commands, shows less, or divides keys over servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

from redis.crc import key_slot

from reactor.backend.topology import SLOTS

Words = list[bytes]
Server = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_WITHOUT_KEY = {b"PING", b"INFO", b"TIME", b"CONFIG", b"SCRIPT", b"CLIENT", b"SELECT", b"PUBLISH", b"SCAN"}


class ManagedProxy:
    """Passes each command on to one of several servers at `ports`, by its key, as one endpoint.

    answer: from a command to the reply that the endpoint gives itself; None passes it on. change: from a
    command and its reply to what the client gets. Subscriptions are those of the first server.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.port = 0
        self.answer: Callable[[Words], bytes | None] = lambda _words: None
        self.change: Callable[[Words, bytes], bytes] = lambda _words, reply: reply
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscribed: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, *ports: int) -> AsyncIterator[Self]:
        proxy = cls(list(ports))
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for task in proxy._tasks:
                task.cancel()
            while proxy._tasks:
                await asyncio.wait(proxy._tasks)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        servers: dict[int, Server] = {}
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer, servers)
        finally:
            for _, far in servers.values():
                far.transport.abort()
            writer.transport.abort()
            self._tasks.discard(task)

    def go_to(self, *ports: int) -> None:
        """Pass commands on to other servers from now on, over the same connections; subscriptions end."""
        self.ports = list(ports)
        while self._subscribed:
            self._subscribed.pop().transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, servers: dict[int, Server]
    ) -> None:
        async def server_at(port: int) -> Server:
            if port not in servers:
                servers[port] = await asyncio.open_connection("127.0.0.1", port)
            return servers[port]

        while True:
            raw = await _read_reply(reader)
            words = _words_of(raw)
            name = words[0].upper()
            if (own := self.answer(words)) is not None:
                writer.write(own)
                continue
            if name in {b"SUBSCRIBE", b"SSUBSCRIBE"}:
                near, far = await server_at(self.ports[0])
                far.write(raw)
                self._subscribed.add(writer)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_pump(reader, far))
                    tasks.create_task(_pump(near, writer))
                return
            every = words[:2] == [b"SCRIPT", b"LOAD"]
            ports = self.ports if every else [self.ports[self._place_of(name, words)]]
            chosen = [await server_at(port) for port in ports]
            for _, far in chosen:
                far.write(raw)
            replies = [await _read_reply(near) for near, _ in chosen]
            writer.write(self.change(words, replies[0]))

    def _place_of(self, name: bytes, words: Words) -> int:
        if name in _WITHOUT_KEY:
            return 0
        if name in {b"EVAL", b"EVALSHA"}:
            key = words[3]
        elif b"STREAMS" in words:
            key = words[words.index(b"STREAMS") + 1]
        else:
            key = words[1] if len(words) > 1 else b""
        return key_slot(key) * len(self.ports) // SLOTS


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one whole value of RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    line = await reader.readuntil(b"\r\n")
    kind, number = line[:1], line[1:-2]
    if kind == b"$" and number != b"-1":
        return line + await reader.readexactly(int(number) + 2)
    if kind == b"*":
        return line + b"".join([await _read_reply(reader) for _ in range(int(number))])
    return line


def _words_of(raw: bytes) -> Words:
    words, rest = [], raw.partition(b"\r\n")[2]
    while rest:
        size, _, rest = rest[1:].partition(b"\r\n")
        words.append(rest[: int(size)])
        rest = rest[int(size) + 2 :]
    return words


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
