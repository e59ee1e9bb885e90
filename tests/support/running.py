"""Nodes on the test servers, in this process or in their own, and a bare client that speaks the wire."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reactor.admin import serving_admin
from reactor.server.node import Node
from reactor.server.process import running
from reactor.settings import Settings
from tests.support.servers import Server

PATIENCE = 15.0
"""Seconds after which something that a test awaits is taken for lost."""

Message = dict[str, Any]


@asynccontextmanager
async def served(server: Server, **options: Any) -> AsyncIterator[Node]:
    """A node on the server, on any free port, for people in a hurry. Options are settings."""
    defaults: dict[str, Any] = {
        "redis_url": server.socket_url, "port": 0, "drain_seconds": 0, "messages_per_second": 0,
    }  # fmt: skip
    try:
        async with running(Settings(**(defaults | options)), admin=serving_admin) as node:
            yield node
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None  # a failed assertion reads better bare


class Process:
    """A node in a process of its own, which a test may stop, freeze or kill."""

    def __init__(self, child: "asyncio.subprocess.Process", port: int) -> None:
        self._child = child
        self.port = port

    @classmethod
    @asynccontextmanager
    async def start(cls, server: Server, **options: Any) -> AsyncIterator[Self]:
        """`reactor serve` with settings as flags; it is ready when this returns."""
        settings = {
            "redis_url": server.socket_url,
            "port": 0,
            "drain_seconds": 0,
            "log_format": "json",
            "messages_per_second": 0,
        } | options
        flags = [
            part
            for name, value in settings.items()
            for part in (f"--{name.replace('_', '-')}", _as_flag(value))
        ]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "serve", *flags,
            cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stderr is not None
        log: list[str] = []
        reading: asyncio.Task[None] | None = None
        try:
            with anyio.fail_after(PATIENCE):
                async for line in child.stderr:
                    log.append(line.decode())
                    event = json.loads(line)
                    if event["event"] == "serving":
                        break
                else:
                    raise AssertionError(f"it did not start: {''.join(log)}")
            reading = asyncio.create_task(_read_on(child.stderr, log))
            yield cls(child, int(event["socket"].rpartition(":")[2].removesuffix("/ws")))
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
            if reading is not None:
                await reading
            sys.stdout.write("".join(log))
        assert not [line for line in log if json.loads(line).get("level") == "error"]

    def send(self, number: int) -> None:
        os.kill(self._child.pid, number)

    async def kill(self) -> None:
        """SIGKILL: its sockets are cut, and it says nothing to Redis."""
        self.send(signal.SIGKILL)
        await self._child.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        with anyio.fail_after(PATIENCE):
            return await self._child.wait()


async def _read_on(stream: asyncio.StreamReader, log: list[str]) -> None:
    log += (await stream.read()).decode().splitlines(keepends=True)


def _as_flag(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


class RawClient:
    """Sends and receives JSON, and keeps all that it was told, whether anybody waits for it or not."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Message] = []
        self._read = 0
        self._asked = 0
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = [asyncio.create_task(self._listen())]

    @classmethod
    @asynccontextmanager
    async def connect(cls, node: Node | Process, **options: Any) -> AsyncIterator[Self]:
        port = node.port if isinstance(node, Process) else node.gateway.port
        options = {"ping_interval": None, "close_timeout": 1.0, "max_queue": None} | options
        async with connect(f"ws://127.0.0.1:{port}/ws", **options) as socket:
            client = cls(socket)
            try:
                yield client
            finally:
                for task in client._tasks:
                    task.cancel()
                await asyncio.gather(*client._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            async for payload in self.socket:
                self.heard.append(json.loads(payload))
                self._news.set()
        finally:
            self._ended.set()
            self._news.set()

    # Speaking.

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def ask(self, kind: str, reply: str, **fields: Any) -> Message:
        """Say it and wait for the answer; what is heard meanwhile is left to `hear`."""
        start = len(self.heard)
        await self.say(kind, **fields)
        return await self.has_heard(reply, start)

    async def answer(self, kind: str, **fields: Any) -> Message:
        """Say it with an id of its own, and wait for whatever answers that."""
        self._asked += 1
        start, request_id = len(self.heard), f"request {self._asked}"
        await self.say(kind, id=request_id, **fields)
        await self.until(lambda: any(message.get("id") == request_id for message in self.heard[start:]))
        return next(message for message in self.heard[start:] if message.get("id") == request_id)

    async def join(self, room_id: str | int, user_id: str | int, **fields: Any) -> Message:
        return await self.ask("join_room", "room:joined", roomId=room_id, userId=user_id, **fields)

    async def barrier(self) -> None:
        """Return when the server has answered all that was said before and needs no Redis for its answer."""
        start = len(self.heard)
        await self.socket.send("{")
        await self.has_heard("error", start, code="bad_json")

    def beat(self, every: float = 0.2) -> Self:
        """Send heartbeats for all rooms from here on."""
        self._tasks.append(asyncio.create_task(self._beat(every)))
        return self

    def hush(self) -> None:
        """Send no more heartbeats."""
        for task in self._tasks[1:]:
            task.cancel()
        del self._tasks[1:]

    async def _beat(self, every: float) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.say("room:heartbeat")
                await asyncio.sleep(every)

    # Hearing.

    async def hear(self, kind: str, **fields: Any) -> Message:
        """The next message of that type, with those fields; what came before it is only kept."""
        return await self.hear_next(lambda message: _is(message, kind, fields))

    async def has_heard(self, kind: str, start: int = 0, **fields: Any) -> Message:
        """The first message of that type, with those fields, of all that came or will come."""

        def found() -> Message | None:
            return next((message for message in self.heard[start:] if _is(message, kind, fields)), None)

        await self.until(lambda: found() is not None)
        message = found()
        assert message is not None
        return message

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds of all that was heard so far."""
        with anyio.fail_after(PATIENCE):
            while not true():
                assert not self._ended.is_set(), (
                    f"closed with {self.socket.close_code} after {self.heard[-5:]}"
                )
                self._news.clear()
                await self._news.wait()

    async def hear_next(self, wanted: Callable[[Message], bool]) -> Message:
        with anyio.fail_after(PATIENCE):
            while True:
                while self._read < len(self.heard):
                    message = self.heard[self._read]
                    self._read += 1
                    if wanted(message):
                        return message
                assert not self._ended.is_set(), (
                    f"closed with {self.socket.close_code} after {self.heard[-5:]}"
                )
                self._news.clear()
                await self._news.wait()

    async def hear_left(self, user_id: str) -> str:
        """Wait until the room is told that the user is gone; the reason."""
        diff = await self.hear_next(lambda message: user_id in [left for left, _ in departures([message])])
        return next(reason for left, reason in departures([diff]) if left == user_id)

    async def hear_departures(self, number: int) -> None:
        """Wait until so many departures were told in all."""
        await self.until(lambda: len(departures(self.heard)) >= number)

    async def closed(self) -> int:
        """Wait until the socket is closed; the close code."""
        with anyio.fail_after(PATIENCE):
            await self._ended.wait()
        code = self.socket.close_code
        assert code is not None
        return code

    @property
    def open(self) -> bool:
        return not self._ended.is_set()

    def of(self, *kinds: str) -> list[Message]:
        """All heard so far of these types."""
        return [message for message in self.heard if message["type"] in kinds]

    def vanish(self) -> None:
        """Cut the socket off without a word."""
        self.hush()
        self.socket.transport.abort()


def _is(message: Message, kind: str, fields: Message) -> bool:
    return message["type"] == kind and all(message.get(key) == value for key, value in fields.items())


def departures(heard: Iterable[Message], room_id: str | None = None) -> list[tuple[str, str]]:
    """Who left and why, in the order told."""
    return [
        (left["userId"], left["reason"])
        for message in heard
        if message["type"] == "room:diff" and room_id in (None, message["roomId"])
        for left in message["left"]
    ]
