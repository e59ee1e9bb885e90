"""Both clients are tested against the transcripts, by a server that sends exactly what is written there."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.waiting import PATIENCE
from tests.wire.programs import InJavaScript, InPython, Program
from tests.wire.table import Message, Step, Values, transcripts


class Counterpart:
    """The server: accepts connections, and on the latest receives and sends what the transcript has."""

    def __init__(self) -> None:
        self.url = ""
        self._lines: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self._line: ServerConnection | None = None

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator["Counterpart"]:
        counterpart = cls()

        async def come(line: ServerConnection) -> None:
            counterpart._lines.put_nowait(line)
            await line.wait_closed()

        subprotocols = [Subprotocol("reactor.json")]
        async with serve(come, "127.0.0.1", 0, subprotocols=subprotocols, close_timeout=1) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            counterpart.url = f"ws://127.0.0.1:{port}/ws"
            yield counterpart

    async def line(self, *, new: bool = False) -> ServerConnection:
        if self._line is None or new:
            with anyio.fail_after(PATIENCE):
                self._line = await self._lines.get()
        return self._line

    async def receive(self) -> Message:
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    message: Message = json.loads(await (await self.line()).recv())
                except ConnectionClosed:
                    # A client without rooms has closed the connection, and opens another one.
                    await self.line(new=True)
                else:
                    return message

    async def send(self, message: Message) -> None:
        await (await self.line()).send(json.dumps(message))

    async def taken(self) -> None:
        """Return when the client has received everything sent, if the connection is open."""
        if self._line is None or self._line.close_code is not None:
            return
        with anyio.fail_after(PATIENCE), suppress(ConnectionClosed):
            await (await self._line.ping())

    async def silent(self) -> None:
        """Fail if the client has sent anything more."""
        if self._line is None or self._line.close_code is not None:
            return
        with anyio.move_on_after(0.05), suppress(ConnectionClosed):
            message = json.loads(await self._line.recv())
            raise AssertionError(f"it also sent {message}")


class Play:
    """A transcript on its way: one method for each kind of step."""

    def __init__(self, values: Values, counterpart: Counterpart, program: Program) -> None:
        self._values = values
        self._counterpart = counterpart
        self._program = program
        self._moves: dict[str, Callable[[Any], Awaitable[None]]] = {
            "do": self._do,
            ">": self._receive,
            "<": self._send,
            "close": self._close,
            "drop": self._drop,
            "connects": self._connects,
            "events": self._events,
            "room": self._room,
            "refused": self._refused,
        }

    async def step(self, step: Step) -> None:
        (kind, given), *_ = step.items()
        if kind == "done":
            await self._becomes(given, ("done", step.get("with")))
        elif kind in self._moves:
            await self._moves[kind](given)

    async def _do(self, given: list[Any]) -> None:
        deed, *arguments = given
        self._program.outcomes.pop(deed, None)
        await self._program.do(deed, *arguments)

    async def _receive(self, expected: Message) -> None:
        message = await self._counterpart.receive()
        number = message.pop("id", None)
        self._values.check(expected.get("id", "$any"), number)
        self._values.check({key: value for key, value in expected.items() if key != "id"}, message)

    async def _send(self, message: Message) -> None:
        await self._counterpart.send(self._values.fill(message))

    async def _close(self, code: int) -> None:
        await (await self._counterpart.line()).close(code)

    async def _drop(self, _: bool) -> None:
        (await self._counterpart.line()).transport.abort()

    async def _connects(self, _: bool) -> None:
        await self._counterpart.line(new=True)

    async def _events(self, expected: list[str]) -> None:
        program = self._program
        await program.changes.until(lambda: len(program.events) >= len(expected))
        await self._counterpart.taken()
        await program.look()
        events, program.events[:] = list(program.events), []
        assert events == expected

    async def _room(self, expected: dict[str, Any]) -> None:
        await self._counterpart.taken()
        seen = await self._program.look()
        assert {name: seen[name] for name in expected} == expected

    async def _refused(self, expected: list[str]) -> None:
        deed, code = expected
        await self._becomes(deed, ("refused", code))

    async def _becomes(self, deed: str, outcome: tuple[str, Any]) -> None:
        await self._program.changes.until(lambda: deed in self._program.outcomes)
        assert self._program.outcomes[deed] == outcome


@pytest.mark.parametrize("kind", [InPython, InJavaScript])
@pytest.mark.parametrize("transcript", transcripts("clients"))
async def test_a_client_sends_and_reports_what_the_transcript_has(
    transcript: dict[str, Any], kind: type[InPython] | type[InJavaScript]
):
    values = Values()
    options = values.fill(transcript.get("client", {}))
    async with Counterpart.listening() as counterpart, kind.started(counterpart.url, options) as program:
        play = Play(values, counterpart, program)
        for number, step in enumerate(transcript["steps"]):
            try:
                await play.step(step)
            except BaseException as error:
                error.add_note(f"in step {number}: {step}; events {program.events}, {program.outcomes}")
                raise
        await counterpart.silent()
