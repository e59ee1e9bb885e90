"""The connections of the admin port: a deadline for each part of a request, and who keeps a place.

uvicorn has neither: it stops its keep-alive timer at the first byte of a request, and waits without limit
for the rest of it, for a body, and for a client that does not read. Here a connection that takes too long is
closed. Where places run short, the oldest connection that has not shown the key makes room for a new one, so
that a client without the key cannot keep out an operator who has it.

Nor does uvicorn bound what it parses at once, in the event loop that serves the node's clients too: a body
of chunks of one byte takes 30 us for each of them, and pipelined requests come as fast as they are answered.
Here what arrives is parsed in small parts, and those who have not shown the key have a SHARE of the time.
A TLS handshake, which takes a millisecond, counts as such a part.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import Any, Protocol

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from reactor.gateway.addresses import counted_address
from reactor.gateway.tls import Certificate, TlsLayer
from reactor.log import RateLimitedLog

MAX_CONNECTIONS = 200
"""Connections at the same time. Beyond them one without the key is closed, the oldest of the address that has
most of these; when all have shown it, a request on a new one is answered with 503."""
MAX_PER_ADDRESS = 32
"""Connections of one address (IPv6: of one /64 network) that have not shown the key; a further one closes the
oldest of them."""
HEAD_TIMEOUT = 10.0
"""Seconds from a new connection, or the end of a response, to the end of the next request's head."""
KEEP_ALIVE = 5
"""Seconds after a response in which the next request must begin."""
BODY_TIMEOUT = 12.0
"""Seconds for a body. The API itself answers with 408 earlier; this holds where nothing reads the body."""
WRITE_TIMEOUT = 30.0
"""Seconds in which a client must have read the response."""
PART = 512
"""Bytes that are parsed at a time for a connection that has not shown the key: at most 3 ms."""
KEY_PART = 16_384
"""The same for one that has."""
SHARE = 0.25
"""Of the node's time, what all connections without the key have together for their requests."""
CONNECTION_SHARE = 0.01
"""Of the node's time, what one of them may take before the others come first."""

_REQUEST = 0.0005  # seconds of the handler and the response of one request, about
_BURST = 0.001  # seconds that parts may be early, as the loop's timers are not more exact
_TICK = 0.25  # seconds between two checks of the deadlines


class _Stage(Enum):
    """What a connection waits for."""

    HEAD = "head"
    BODY = "body"
    HANDLER = "handler"  # the handlers limit their time themselves
    WRITE = "write"


class _Flow(FlowControl):
    """Notes whether uvicorn wants to read, and leaves it to the connection when it does."""

    def __init__(self, transport: asyncio.Transport, read_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._read_on = read_on

    def pause_reading(self) -> None:
        """Parse no further."""
        self.read_paused = True

    def resume_reading(self) -> None:
        """Parse on."""
        if self.read_paused:
            self.read_paused = False
            self._read_on()


class AdminConnection(H11Protocol):
    """One connection of the admin port.

    Attributes:
        address: The address that it is counted under.
        key_shown: Whether a request on it has had the key.
        paid_at: When the parts that were parsed for it are paid off, at CONNECTION_SHARE.

    """

    def __init__(
        self,
        places: "Places",
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # The app finds the connection in the scope's `state`.
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self._places = places
        self.address = ""
        self.key_shown = False
        self.paid_at = 0.0
        self._unread = bytearray()  # received, and not parsed yet
        self._is_pipelined = False  # the parser may have a request more, which came behind the last one
        self._waits_for: tuple[_Stage, object] = _Stage.HEAD, None
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._read_on)
        self.address = counted_address(self.client[0] if self.client else "")
        self._since = self.loop.time()
        self._places.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._places.remove(self)
        self._unread.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Keep bytes until it is the connection's turn, and read no more until they are parsed."""
        self._unset_keepalive_if_required()
        self._unread += data
        self._read_on()

    def handle_events(self) -> None:
        """Continue at the connection's turn: a response is complete."""
        self._is_pipelined = True
        self._places.turns.add(self)

    def parse_part(self) -> float:
        """Parse the next part of what was received; return the seconds that this takes, with the response."""
        began, cycle = monotonic(), self.cycle
        if self.transport.is_closing():
            self._unread.clear()
            return 0.0
        if self._is_pipelined:
            self._is_pipelined = False
            super().handle_events()
        elif not self.flow.read_paused:
            size = KEY_PART if self.key_shown else PART
            self.conn.receive_data(bytes(self._unread[:size]))
            del self._unread[:size]
            super().handle_events()
        self._read_on()
        return monotonic() - began + (_REQUEST if self.cycle is not cycle else 0.0)

    def _read_on(self) -> None:
        """Read more once all is parsed; until then have the rest parsed, unless uvicorn has to wait."""
        if self.transport.is_closing():
            return
        if self._unread or self.flow.read_paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        if self._unread and not self.flow.read_paused:
            self._places.turns.add(self)

    def is_late(self, now: float) -> bool:
        """Return whether the present stage has taken longer than it may."""
        stage = self._stage()
        waits_for = stage, self.cycle  # uvicorn creates a cycle for each request
        if waits_for != self._waits_for:
            self._waits_for, self._since = waits_for, now
        if stage is _Stage.HEAD and self._unread:
            return False  # it waits for its turn
        limits = {_Stage.HEAD: HEAD_TIMEOUT, _Stage.BODY: BODY_TIMEOUT, _Stage.WRITE: WRITE_TIMEOUT}
        return stage in limits and now - self._since >= limits[stage]

    def _stage(self) -> _Stage:
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            return _Stage.WRITE
        if self.conn.their_state is h11.SEND_BODY:
            return _Stage.BODY
        answered = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        return _Stage.HEAD if answered else _Stage.HANDLER


class AdminTls(TlsLayer):
    """TLS of the admin port, whose handshakes take turns with requests without the key.

    Attributes:
        key_shown, paid_at: As of `AdminConnection`.

    """

    __slots__ = ("_places", "_received", "paid_at")

    key_shown = False

    def __init__(self, connection: AdminConnection, certificate: Certificate, places: "Places") -> None:
        super().__init__(connection, certificate)
        self._places = places
        self._received = b""
        self.paid_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Keep bytes of the handshake until it is its turn; decrypt others."""
        if self._opened:
            super().data_received(data)
        else:
            self._received += data
            self._transport.pause_reading()
            self._places.turns.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the transport is closed."""
        self._places.turns.remove(self)
        super().connection_lost(exc)

    def parse_part(self) -> float:
        """Continue with the handshake; return the seconds that this takes."""
        began, data = monotonic(), self._received
        self._received = b""
        if not self._transport.is_closing():
            self._transport.resume_reading()
            super().data_received(data)
        return monotonic() - began


class _Parsed(Protocol):
    """What takes turns: see `AdminConnection`."""

    @property
    def key_shown(self) -> bool:
        """Whether it has shown the key."""
        ...

    paid_at: float

    def parse_part(self) -> float:
        """Parse what is next, and return the seconds that this takes."""
        ...


class Turns:
    """Has the connections of an admin port parsed, so that the node has time for its clients.

    Those that have shown the key are not held up. Of the others one part at a time is parsed, then a pause
    follows by SHARE; who has used least comes first.
    """

    def __init__(self) -> None:
        self._waiting: dict[_Parsed, None] = {}  # in the order in which they came
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._paid_at = 0.0  # when the parts without the key are paid off, at SHARE

    def add(self, connection: _Parsed) -> None:
        """Have a part of the connection parsed as soon as it is its turn."""
        self._waiting[connection] = None
        if self._handle is None or connection.key_shown:
            self._cancel()
            self._handle = self._loop.call_soon(self._serve)

    def remove(self, connection: _Parsed) -> None:
        """Forget a connection that is closed."""
        self._waiting.pop(connection, None)

    def stop(self) -> None:
        """Parse no more."""
        self._waiting.clear()
        self._cancel()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _serve(self) -> None:
        self._handle = None
        for connection in [each for each in self._waiting if each.key_shown]:
            self.remove(connection)
            connection.parse_part()
        now = monotonic()
        if self._waiting and self._paid_at - now < _BURST:
            connection = min(self._waiting, key=lambda each: max(each.paid_at, now))
            self.remove(connection)
            seconds = connection.parse_part()
            connection.paid_at = max(connection.paid_at, now) + seconds / CONNECTION_SHARE
            self._paid_at = max(self._paid_at, now) + seconds / SHARE
        if self._waiting and self._handle is None:
            self._handle = self._loop.call_later(max(0.0, self._paid_at - monotonic()), self._serve)


class Places:
    """The open connections of one admin port.

    turns: when their requests are parsed.

    Args:
        cut: Counts the connections that are closed here, by reason: `late`, `address` or `full`.

    """

    def __init__(self, cut: Counter[str]) -> None:
        self._open: dict[AdminConnection, None] = {}  # in the order in which they came
        self._cut = cut
        self._log = RateLimitedLog()
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.call_later(_TICK, self._tick)
        self.turns = Turns()

    def stop(self) -> None:
        """Check no more deadlines."""
        self._ticker.cancel()
        self.turns.stop()

    def add(self, connection: AdminConnection) -> None:
        """Give a connection a place, where necessary that of another one."""
        without_key = [each for each in self._open if not each.key_shown]
        of_address = [each for each in without_key if each.address == connection.address]
        if len(of_address) >= MAX_PER_ADDRESS:
            self._close(of_address[0], "address")
        elif len(self._open) >= MAX_CONNECTIONS and without_key:
            # Not the oldest of all: who opens many from a few addresses would close those of operators.
            ((most, _),) = Counter(each.address for each in without_key).most_common(1)
            self._close(next(each for each in without_key if each.address == most), "full")
        self._open[connection] = None

    def remove(self, connection: AdminConnection) -> None:
        """Free the place of a connection that is closed."""
        self._open.pop(connection, None)
        self.turns.remove(connection)

    def _close(self, connection: AdminConnection, reason: str) -> None:
        self.remove(connection)
        self._cut[reason] += 1
        self._log.warning(
            "admin_connection_cut", self._loop.time(), reason=reason, address=connection.address
        )
        connection.connections.discard(connection)  # else uvicorn counts it until the transport is closed
        connection.transport.abort()

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_TICK, self._tick)
        now = self._loop.time()
        for connection in [each for each in self._open if each.is_late(now)]:
            self._close(connection, "late")
