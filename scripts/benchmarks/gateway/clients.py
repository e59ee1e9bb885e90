"""The benchmark's clients: many picows sockets that join rooms, beat, and note what they are told."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from reactor.errors import ReactorError
from scripts.benchmarks.gateway.skim import HEAD, Skimmer

IN_FLIGHT = 200
"""Clients that connect and join at the same time."""

_WHOLE = 16 * 1024 * 1024
_LOOKED_INTO = 500  # of so many clients of a large room one keeps whole messages
_TEXT = WSMsgType.TEXT


class Dialect(Protocol):
    """What a kind of server wants to hear, and what it says; see dialects.py."""

    path: str
    opened_by_server: bool

    def join(self, client: "Client") -> bytes:
        """What a client says to come in."""
        ...

    def heartbeat_of(self, client: "Client") -> bytes:
        """What a client says every 25 s."""
        ...

    def heard(self, client: "Client", head: bytes, size: int) -> None:
        """Take what the server says: a whole message, or the head of a long one, and its size."""


class Client(WSListener):
    """One socket in one room, as user `u{number}`."""

    def __init__(self, crowd: "Crowd", number: int, room: str) -> None:
        self.crowd = crowd
        self.number = number
        self.room = room
        self.transport: Any = None
        self.known = 0  # members that it knows of
        self.version = 0
        self.answered: asyncio.Future[float] | None = None
        self.told_at = 0.0
        self.beat_at = 0.0
        self.beat = b""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a message."""
        if frame.msg_type is _TEXT:
            payload = frame.get_payload_as_bytes()
            self.crowd.dialect.heard(self, payload, len(payload))
        elif frame.msg_type is WSMsgType.CLOSE:
            self.crowd.gone(self.number, frame.get_close_code().value)
            transport.disconnect()

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """Fail what waits for an answer."""
        self.crowd.gone(self.number, 0)
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(ReactorError("the server closed a connection"))

    def skim(self, whole: int) -> None:
        """Read only the head of what is longer than `whole`."""
        heard = partial(self.crowd.dialect.heard, self)

        def closed(code: int) -> None:
            self.crowd.gone(self.number, code)

        self.transport.underlying_transport.set_protocol(Skimmer(heard, closed, whole))

    def say(self, message: bytes) -> None:
        """Send a message."""
        self.transport.send(_TEXT, message)

    def answer(self) -> None:
        """Note that what was asked has come."""
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(time.perf_counter())

    def knows(self, count: int) -> None:
        """Note how many members this client knows of."""
        self.known = count
        if count >= self.crowd.room_size:
            self.crowd.complete.add(self.number)
            if len(self.crowd.complete) == self.crowd.expected:
                self.crowd.all_complete.set()


class Crowd:
    """Many clients of one server.

    Attributes:
        complete: Numbers of those who know of `room_size` members; when there are `expected` of them,
            `all_complete` is set.
        messages: What came beside acknowledgements, by kind; `bytes` of them; `events`: changes told in them.
        acks: Heartbeats acknowledged.
        complaints: What should not have come.
        address: What its sockets come from, where not from the usual one: from 15,000 of one on, it takes the
            kernel a millisecond to find a free port.

    """

    def __init__(self, port: int, dialect: Dialect, room_size: int = 0, expected: int = 0) -> None:
        self.dialect = dialect
        self.url = f"ws://127.0.0.1:{port}{dialect.path}"
        self.clients: list[Client] = []
        self.room_size, self.expected = room_size, expected
        self.complete: set[int] = set()
        self.all_complete = asyncio.Event()
        self.messages: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.closed: list[tuple[int, int]] = []
        self.acks = self.events = self.bytes = 0
        self.beating = self.skims = False
        self.address: str | None = None
        self.beat_delays: list[float] = []

    def gone(self, number: int, code: int) -> None:
        """Note that a connection is over, so that nobody waits for it any more."""
        self.closed.append((number, code))
        self.all_complete.set()

    def acked(self, client: Client) -> None:
        """Count an acknowledgement; in a closed loop the next heartbeat follows."""
        self.acks += 1
        if self.beating:
            client.transport.send(_TEXT, client.beat)
        elif client.beat_at:
            self.beat_delays.append(time.perf_counter() - client.beat_at)
            client.beat_at = 0.0

    async def connect(self, number: int, room: str, made: Callable[..., Client] | None = None) -> Client:
        """Open a socket."""
        make = made or Client
        answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def listener() -> Client:
            client = make(self, number, room)
            if self.dialect.opened_by_server:
                client.answered = answered
            return client

        local = None if self.address is None else (self.address, 0)
        _, client = await ws_connect(listener, self.url, websocket_handshake_timeout=60, local_addr=local)
        if client is None:
            raise ReactorError(f"client {number} was cut off at once")
        client = cast("Client", client)
        client.beat = self.dialect.heartbeat_of(client)
        if self.dialect.opened_by_server:
            await asyncio.wait_for(answered, 60)
        elif self.skims:
            client.skim(whole=_WHOLE if number % _LOOKED_INTO == 0 else HEAD)
        self.clients.append(client)
        return client

    async def ask(self, client: Client, message: bytes) -> float:
        """Send what has an answer; seconds until it came."""
        client.answered = asyncio.get_running_loop().create_future()
        asked = time.perf_counter()
        client.say(message)
        return await client.answered - asked

    async def join(self, number: int, room: str, made: Callable[..., Client] | None = None) -> Client:
        """Open a socket and come into a room."""
        client = await self.connect(number, room, made)
        await self.ask(client, self.dialect.join(client))
        return client

    async def each(
        self,
        places: Iterable[tuple[int, str]],
        do: Callable[[int, str], Awaitable[Any]],
        at_a_time: int = IN_FLIGHT,
    ) -> None:
        """Do it for all places, some at a time."""
        left = iter(places)

        async def some() -> None:
            for number, room in left:
                await do(number, room)

        await asyncio.gather(*(some() for _ in range(at_a_time)))

    async def beat_all(self, over: float, *, share: float = 1.0) -> None:
        """Let a share of the clients send one heartbeat each, spread evenly over some seconds."""
        loop = asyncio.get_running_loop()
        start, some = loop.time(), self.clients[: round(len(self.clients) * share)]
        for index, client in enumerate(some):
            if (wait := start + over * index / len(some) - loop.time()) > 0:
                await asyncio.sleep(wait)
            client.beat_at = time.perf_counter()
            client.say(client.beat)
        await asyncio.sleep(max(0.0, start + over - loop.time()))

    async def complete_within(self, seconds: float) -> None:
        """Return when every client knows of everybody. Raises ReactorError when some do not."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.all_complete.wait(), seconds)
        if len(self.complete) < self.expected:
            raise ReactorError(
                f"{len(self.complete)} of {self.expected} know of everybody; {self.complaints[:3]}, closed: "
                f"{self.closed[:3]}"
            )

    def leave(self) -> None:
        """Drop every socket."""
        for client in self.clients:
            client.transport.disconnect(graceful=False)
        self.clients.clear()
