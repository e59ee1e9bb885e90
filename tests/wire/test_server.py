"""The server is held to its half of the transcripts."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reactor.presence.api import Presence
from reactor.server.node import Node
from reactor.settings.rooms import read_rules
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.wire.table import Message, Step, Values, transcripts

_SECRET = "a secret of the tests, as long as it has to be"
_GRACE = 15.0


class Stage:
    """A server, the transcript's connection, and those of other clients."""

    def __init__(self, server: Server, options: dict[str, Any]) -> None:
        self.server = server
        self.options = options
        self.lines: dict[str, ClientConnection] = {}
        self._stack = AsyncExitStack()
        self._node_stack = AsyncExitStack()
        self.node: Node

    @classmethod
    @asynccontextmanager
    async def built(cls, server: Server, options: dict[str, Any]) -> AsyncIterator["Stage"]:
        stage = cls(server, options)
        try:
            await stage.begin()
            yield stage
        finally:
            await stage._stack.aclose()
            await stage._node_stack.aclose()

    async def begin(self) -> None:
        """Start a node, for the first one or in its place."""
        self.node = await self._node_stack.enter_async_context(served(self.server, **self.options))

    async def line(self, name: str) -> ClientConnection:
        """A client's connection; a new one where there is none."""
        if name not in self.lines:
            url = f"ws://127.0.0.1:{self.node.gateway.port}/ws"
            self.lines[name] = await self._stack.enter_async_context(connect(url, close_timeout=1))
        return self.lines[name]

    async def breaks(self, name: str) -> None:
        """A line breaks, and the server has noticed."""
        self.lines.pop(name).transport.abort()
        control = self.server.control
        (key,) = [key for key in control.keys("*:room:lobby:user:ann") if "shadow" not in key]
        await until(lambda: control.pttl(key) <= _GRACE * 1000)

    async def outside(self, what: str) -> None:
        """Do something to the server."""
        if what == "the server restarts":
            stopping, self._node_stack = self._node_stack, AsyncExitStack()
            await stopping.aclose()
            await self.begin()
        elif what == "ann is kicked":
            async with Presence.open(self.server.socket_url) as presence:
                assert await presence.kick("lobby", "ann", "See you tomorrow.")
        elif what in {"ann is banned", "ann is banned from the lobby"}:
            room = "lobby" if what.endswith("lobby") else None
            async with Presence.open(self.server.socket_url) as presence:
                await presence.ban("ann", room, for_=600, message="Be kind.")
            await until(lambda: self.node.known_bans.find("ann", room) is not None)
        elif what == "ann's other line breaks":
            await self.breaks("ann")
        elif what == "Redis stops answering":
            self.server.pause()
        elif what == "Redis answers again":
            self.server.resume()
        else:
            raise AssertionError(what)


class Reading:
    """A transcript on its way."""

    def __init__(self, stage: Stage, values: Values) -> None:
        self._stage = stage
        self._values = values
        self._received: list[Message] = []
        self._open = True
        self._said = 0

    async def step(self, step: Step) -> None:
        if ">" in step:
            await self._all_heard()
            line = await self._stage.line("the client")
            self._said += 1
            await line.send(json.dumps(self._values.fill(step[">"])))
        elif "<" in step:
            await self._hear(step["<"])
        elif "elsewhere" in step:
            await self._elsewhere(*step["elsewhere"])
        elif "outside" in step:
            await self._stage.outside(step["outside"])
        elif "close" in step:
            line = await self._stage.line("the client")
            with anyio.fail_after(PATIENCE), pytest.raises(ConnectionClosed):
                self._received.append(json.loads(await line.recv()))
            assert line.close_code == step["close"]
            self._open = False
        elif "drop" in step:
            await self._all_heard()
            await self._stage.breaks("the client")
        elif "connects" in step:
            self._stage.lines.pop("the client", None)
            self._open = True

    async def end(self) -> None:
        """Fail if the server has sent anything more."""
        if self._open and self._said:
            await self._all_heard()

    async def _hear(self, expected: Message) -> None:
        """Take the message of this kind that comes next, or has come already in place of another."""
        line = await self._stage.line("the client")
        with anyio.fail_after(PATIENCE):
            while not (fitting := [message for message in self._received if _alike(expected, message)]):
                self._received.append(json.loads(await line.recv()))
                assert len(self._received) < 4, (expected, self._received)
        self._received.remove(fitting[0])
        self._values.check(expected, fitting[0])

    async def _all_heard(self) -> None:
        assert not self._received, self._received
        if "the client" not in self._stage.lines:
            return
        line = await self._stage.line("the client")
        await line.send("{")
        with anyio.fail_after(PATIENCE):
            message = json.loads(await line.recv())
        assert message.get("code") in {"bad_json", "unauthorized"}, message

    async def _elsewhere(self, name: str, message: Message) -> None:
        line = await self._stage.line(name)
        await line.send(json.dumps({**message, "id": "elsewhere"}))
        with anyio.fail_after(PATIENCE):
            while (message := json.loads(await line.recv())).get("id") != "elsewhere":
                pass
        assert message["type"] != "error", message


def _alike(expected: Message, message: Message) -> bool:
    return expected["type"] == message["type"] and ("id" in expected) == ("id" in message)


@pytest.mark.parametrize("transcript", transcripts("server"))
async def test_the_server_sends_what_the_transcript_has(bundled_server: Server, transcript: dict[str, Any]):
    options: dict[str, Any] = {
        "grace": _GRACE, "away_grace": _GRACE, "max_members_view": 1000, **transcript.get("settings", {}),
    }  # fmt: skip
    if "rooms" in options:
        options["rooms"] = read_rules(options["rooms"], "the transcript")
    tokens = {
        name: jwt.encode({"sub": "ann", "exp": time.time() + ends, "rooms": ["*"]}, _SECRET)
        for name, ends in transcript.get("tokens", {}).items()
    }
    if tokens:
        options["auth_secret"] = _SECRET.encode()
    async with Stage.built(bundled_server, options) as stage:
        reading = Reading(stage, Values(tokens))
        for step in transcript["steps"]:
            await reading.step(step)
        await reading.end()
