"""The clients of the gateway benchmark: many picows sockets that join rooms and send heartbeats."""

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
_DECODE_ONE_IN = 500  # in a large room one of so many clients reads whole messages
_TEXT = WSMsgType.TEXT


class Dialect(Protocol):
    """The protocol of one kind of server; see dialects.py."""

    path: str
    opened_by_server: bool
    has_rooms: bool

    def join(self, client: "Client") -> bytes:
        """Return the message that joins the client's room."""
        ...

    def heartbeat_of(self, client: "Client") -> bytes:
        """Return the heartbeat message of a client; b"" where the server sends them."""
        ...

    def on_message(self, client: "Client", head: bytes, size: int) -> None:
        """Process a received message: all of it, or the head of a long one, and its size."""


class Client(WSListener):
    """One socket in one room, as user `u{number}`."""

    def __init__(self, crowd: "Crowd", number: int, room: str) -> None:
        self.crowd = crowd
        self.number = number
        self.room = room
        self.transport: Any = None
        self.members_known = 0  # number of members in its list
        self.members: set[bytes] = set()  # where the protocol has no counts
        self.version = 0
        self.answered: asyncio.Future[float] | None = None
        self.notified_at = 0.0
        self.heartbeat_sent_at = 0.0
        self.heartbeat = b""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Store the transport."""
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Process a frame."""
        if frame.msg_type is _TEXT:
            payload = frame.get_payload_as_bytes()
            self.crowd.dialect.on_message(self, payload, len(payload))
        elif frame.msg_type is WSMsgType.CLOSE:
            self.crowd.connection_ended(self.number, frame.get_close_code().value)
            transport.disconnect()

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """Fail the pending request."""
        self.crowd.connection_ended(self.number, 0)
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(ReactorError("the server closed a connection"))

    def skim(self, whole: int) -> None:
        """From here on read only the head of messages longer than `whole`."""
        on_message = partial(self.crowd.dialect.on_message, self)

        def closed(code: int) -> None:
            self.crowd.connection_ended(self.number, code)

        self.transport.underlying_transport.set_protocol(Skimmer(on_message, closed, whole))

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.transport.send(_TEXT, message)

    def answer(self) -> None:
        """Complete the pending request."""
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(time.perf_counter())

    def set_members_known(self, count: int) -> None:
        """Store how many members the client's list has."""
        self.members_known = count
        if count >= self.crowd.room_size:
            self.crowd.complete.add(self.number)
            if len(self.crowd.complete) == self.crowd.expected:
                self.crowd.all_complete.set()


class Crowd:
    """Many clients of one server.

    Attributes:
        complete: Numbers of the clients whose list has `room_size` members; with `expected` of them
            `all_complete` is set.
        messages: Received messages except acknowledgements, by type; `bytes`: their size; `events`: their
            changes.
        acks: Heartbeats acknowledged.
        unexpected: Messages that should not have been received.
        address: The local address of its sockets. With 15,000 sockets at one address the kernel needs a
            millisecond to find a free port.

    """

    def __init__(self, port: int, dialect: Dialect, room_size: int = 0, expected: int = 0) -> None:
        self.dialect = dialect
        self.url = f"ws://127.0.0.1:{port}{dialect.path}"
        self.clients: list[Client] = []
        self.room_size, self.expected = room_size, expected
        self.complete: set[int] = set()
        self.all_complete = asyncio.Event()
        self.messages: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.closed: list[tuple[int, int]] = []
        self.acks = self.events = self.bytes = 0
        self.in_loop = self.skims = False
        self.address: str | None = None
        self.heartbeat_delays: list[float] = []

    def connection_ended(self, number: int, code: int) -> None:
        """Record that a connection has ended, and wake the waiters."""
        self.closed.append((number, code))
        self.all_complete.set()

    def acked(self, client: Client) -> None:
        """Count an acknowledgement; in a closed loop send the next heartbeat."""
        self.acks += 1
        if self.in_loop:
            client.transport.send(_TEXT, client.heartbeat)
        elif client.heartbeat_sent_at:
            self.heartbeat_delays.append(time.perf_counter() - client.heartbeat_sent_at)
            client.heartbeat_sent_at = 0.0

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
            raise ReactorError(f"client {number} was disconnected at once")
        client = cast("Client", client)
        client.heartbeat = self.dialect.heartbeat_of(client)
        if self.dialect.opened_by_server:
            await asyncio.wait_for(answered, 60)
        elif self.skims:
            client.skim(whole=_WHOLE if number % _DECODE_ONE_IN == 0 else HEAD)
        self.clients.append(client)
        return client

    async def ask(self, client: Client, message: bytes) -> float:
        """Send a request; return the seconds until its reply."""
        client.answered = asyncio.get_running_loop().create_future()
        asked = time.perf_counter()
        client.send(message)
        return await client.answered - asked

    async def join(self, number: int, room: str, made: Callable[..., Client] | None = None) -> Client:
        """Open a socket and join a room."""
        client = await self.connect(number, room, made)
        await self.ask(client, self.dialect.join(client))
        return client

    async def each(
        self,
        places: Iterable[tuple[int, str]],
        do: Callable[[int, str], Awaitable[Any]],
        at_a_time: int = IN_FLIGHT,
    ) -> None:
        """Call `do` for all places, some at a time."""
        left = iter(places)

        async def some() -> None:
            for number, room in left:
                await do(number, room)

        await asyncio.gather(*(some() for _ in range(at_a_time)))

    async def send_heartbeats(self, over: float, *, share: float = 1.0) -> None:
        """Send one heartbeat from a share of the clients, spread evenly over `over` seconds."""
        loop = asyncio.get_running_loop()
        start, some = loop.time(), self.clients[: round(len(self.clients) * share)]
        for index, client in enumerate(some):
            if (wait := start + over * index / len(some) - loop.time()) > 0:
                await asyncio.sleep(wait)
            if client.heartbeat:  # otherwise the server sends them
                client.heartbeat_sent_at = time.perf_counter()
                client.send(client.heartbeat)
        await asyncio.sleep(max(0.0, start + over - loop.time()))

    async def complete_within(self, seconds: float) -> None:
        """Wait until every client has the whole list. Raises ReactorError if some do not get it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.all_complete.wait(), seconds)
        if len(self.complete) < self.expected:
            raise ReactorError(
                f"{len(self.complete)} of {self.expected} have the whole list; {self.unexpected[:3]}, "
                f"closed: {self.closed[:3]}"
            )

    def leave(self) -> None:
        """Close every socket."""
        for client in self.clients:
            client.transport.disconnect(graceful=False)
        self.clients.clear()
