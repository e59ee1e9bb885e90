"""What all connections of a gateway share: one clock, one timing wheel, one flush a turn, parsers, limits.

It is separate from the connection so that an idle connection stays small. It knows connections only by the
protocols below, so that `connection` can import it.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import structlog
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from reactor.gateway.handshake import FastHandshake, read_fast
from reactor.gateway.outbox import SLICE, SendBudget
from reactor.gateway.rate_limit import RateLimit
from reactor.gateway.timing_wheel import TimingWheel, WheelItem
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.intents import Intent
from reactor.protocol.limits import Limits
from reactor.protocol.requests import Request
from reactor.protocol.session import Session
from reactor.settings import Settings

log = structlog.get_logger(__name__)

PART = 4096
"""Bytes that are parsed at a time: of a flood of tiny frames, these never become many objects at once."""
MAX_UNREAD = 16 * 1024 * 1024
"""Bytes that wait to be parsed, of all connections; beyond it what is received is parsed at once."""
_MAX_PARTS = (
    8  # parsed in a turn of the event loop: a part may take 0.5 ms, and a heartbeat needs several turns
)
_MAX_IDLE_PARSERS = 64
_BATCH = 1000  # connections served before other callbacks of the event loop get their turn
# websockets logs each handshake and each close at lower levels.
_parser_log = logging.getLogger("reactor.gateway.parser")
_parser_log.setLevel(logging.WARNING)


class Abortable(Protocol):
    """A connection that is aborted if the context fails to serve it."""

    @property
    def socket_id(self) -> str:
        """Id of the connection, for logs."""
        ...

    def abort(self) -> None:
        """Close the transport immediately."""


class Flushable(Abortable, Protocol):
    """A connection with an outbox."""

    def flush(self) -> None:
        """Write the outbox."""


class Blockable(Abortable, Protocol):
    """A connection whose transport can be full."""

    @property
    def held(self) -> int:
        """The bytes that wait for it."""
        ...

    def close_as_too_slow(self) -> None:
        """Close it, and discard what waits."""


class Reader(Abortable, Protocol):
    """A connection that has received more than is parsed at a time."""

    def read_on(self) -> None:
        """Parse the next part."""


class TimeoutTarget(WheelItem, Abortable, Protocol):
    """An item of the timing wheel."""

    def on_timeout(self) -> None:
        """Handle the time-out."""


class IntentHandler(Protocol):
    """Receives the clients' intents; see `handler.Handler`."""

    def intent(self, connection: Any, intent: Intent) -> None:
        """Act on an intent without blocking."""

    def admits(self, connection: Any, payload: bytes) -> bool:
        """Return whether a message that is not small may be decoded; otherwise it was answered."""

    def charge_reading(self, connection: Any, payload: bytes, seconds: float) -> None:
        """Charge the time that it took to decode such a message."""

    def drained(self, connection: Any) -> None:
        """Continue with a connection that reads again."""


class Manager(Protocol):
    """What a connection reports its life to; see `manager.ConnectionManager`."""

    def accept(self, connection: Any, peer: str) -> None:
        """Admit a new connection to the handshake, or abort it."""

    def respond(self, connection: Any, request: HttpRequest) -> Response | None:
        """Return the HTTP response to a request; None if the WebSocket may open."""
        ...

    def opened(self, connection: Any) -> None:
        """Register a connection whose handshake is complete."""

    def note_proxy_protocol(self, connection: Any) -> None:
        """Take note of a connection that began with the PROXY protocol."""

    def settled(self, connection: Any) -> None:
        """Note that a connection has joined a room or shown a token."""

    def closed(self, connection: Any) -> None:
        """Remove a connection."""


class ConnectionCounts:
    """Counters of a gateway's connections.

    Attributes:
        opened: Completed handshakes.
        rejected: Connections that did not open, by HTTP status; `cut` for those aborted without a response.
        errors: `error` messages sent, by code.
        too_slow: Connections closed because the client did not read.
        received, sent: Bytes of open WebSockets, their handshakes included, without TLS.

    """

    __slots__ = ("errors", "opened", "received", "rejected", "sent", "too_slow")

    def __init__(self) -> None:
        self.opened = self.too_slow = self.received = self.sent = 0
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()


class GatewayContext:
    """The state shared by all connections.

    Attributes:
        now: The event loop's clock at the last tick: exact enough for time-outs of seconds, and free to read.
        wheel: The time-outs of all connections.
        rate_limit: How many messages a connection may send.
        counts: Counters; see `ConnectionCounts`.
        manager: Set by the connection manager, as are `handler` and `session_class`.

    """

    manager: Manager
    handler: IntentHandler
    session_class: type[Session]
    keep_early: Callable[[Any, Request, bytes], None]
    """Keeps a message that arrives while the first token is being checked; set where tokens are required."""

    def __init__(self, settings: Settings, counts: ConnectionCounts) -> None:
        self.counts = counts
        self._loop = asyncio.get_running_loop()
        self._max_message = settings.max_message
        self.limits = Limits(
            max_id=settings.max_id,
            max_data=settings.max_data,
            max_rooms=settings.max_rooms,
            max_watched=settings.max_watched,
        )
        self.now = self._loop.time()
        shortest = min(settings.open_timeout, settings.close_timeout, settings.ping_timeout)
        tick = min(max(shortest / 20, 0.01), 0.25)
        self.wheel: TimingWheel[TimeoutTarget] = TimingWheel(tick, self.now)
        self.rate_limit = RateLimit(
            settings.messages_per_second, settings.message_burst, tick, max_message=settings.max_message
        )
        # `now` may be one tick old. With the second tick a heartbeat sent at the ping interval comes first.
        self.open_timeout = settings.open_timeout + tick
        self.close_timeout = settings.close_timeout + tick
        self.ping_interval = settings.ping_interval and settings.ping_interval + 2 * tick
        self.message_timeout = settings.message_timeout + tick
        self.ping_timeout = settings.ping_timeout + tick
        self.send_buffer = max(settings.send_buffer, 2 * SLICE)  # the transport alone may hold SLICE bytes
        self.send_budget = SendBudget(settings.send_buffers)
        self.lag_bytes = self.send_buffer // 4
        self._send_timeout = settings.send_timeout
        self._blocked: dict[Blockable, float] = {}  # and since when
        self.max_headers = settings.max_headers

        self._ticker = self._loop.call_later(tick, self._tick)
        self._to_flush: list[Flushable] = []
        self._to_read: deque[Reader] = deque()
        self._parts = 0  # that were parsed in this turn of the event loop
        self._turn_scheduled = False
        self.unread = 0  # bytes that wait to be parsed
        self._idle_parsers: list[ServerProtocol] = []
        self._extensions = [_DEFLATE] if settings.compression else None

    def stop(self) -> None:
        """Stop the clock; no time-out fires afterwards."""
        self._ticker.cancel()

    def update_clock(self) -> float:
        """Return the current time and store it in `now`, where the error of a tick would matter."""
        self.now = self._loop.time()
        return self.now

    def start_close_timeout(self, target: TimeoutTarget) -> None:
        """Limit the time that a connection's closing handshake may take."""
        self.wheel.schedule(target, self.update_clock() + self.close_timeout)

    # Parsers

    def new_parser(self) -> ServerProtocol:
        """Return a parser that starts with the handshake."""
        return ServerProtocol(
            extensions=self._extensions,
            select_subprotocol=_select_subprotocol,
            max_size=self._max_message,
            logger=_parser_log,
        )

    def read_fast_handshake(self, data: bytes) -> FastHandshake | None:
        """Return the handshake in `data`; None if it needs a parser, see handshake.py."""
        return read_fast(data, choose_subprotocol, extensions=self._extensions is not None)

    def borrow_parser(self) -> ServerProtocol:
        """Return a parser between two messages of an open, uncompressed connection."""
        if self._idle_parsers:
            return self._idle_parsers.pop()
        return ServerProtocol(state=OPEN, max_size=self._max_message, logger=_parser_log)

    def return_parser(self, parser: ServerProtocol) -> None:
        """Keep a parser that is `at_rest` for the next connection that needs one."""
        if len(self._idle_parsers) < _MAX_IDLE_PARSERS:
            self._idle_parsers.append(parser)

    # Clients that do not read

    def note_blocked(self, connection: Blockable) -> None:
        """Note that a connection's transport is full: from now on it has the send time-out."""
        self._blocked[connection] = self.update_clock()

    def note_unblocked(self, connection: Blockable) -> None:
        """Note that the transport accepts data again, or that the connection is gone."""
        self._blocked.pop(connection, None)

    def check_budget(self) -> None:
        """Close the connections for which most waits, until all together are within the budget."""
        while self.send_budget.used > self.send_budget.limit and self._blocked:
            largest = max(self._blocked, key=lambda connection: connection.held)
            self.note_unblocked(largest)
            largest.close_as_too_slow()

    def _close_blocked(self) -> None:
        if self._blocked:
            since = self.now - self._send_timeout
            for connection in [one for one, at in self._blocked.items() if at <= since]:
                self.note_unblocked(connection)
                connection.close_as_too_slow()

    # Large messages

    def take_part(self) -> bool:
        """Return whether one more part of what was received may be parsed in this turn of the event loop."""
        if self._parts >= _MAX_PARTS or self._to_read:
            return False
        self._parts += 1
        self._schedule_turn()
        return True

    def schedule_read(self, reader: Reader) -> None:
        """Let a connection parse its next part when those before it have done the same."""
        self._to_read.append(reader)
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._turn_scheduled = False
        self._parts = min(_MAX_PARTS, len(self._to_read))
        if self._parts:
            self._schedule_turn()
        for reader in [self._to_read.popleft() for _ in range(self._parts)]:
            try:
                reader.read_on()
            except Exception:
                log.exception("connection_failed", socket_id=reader.socket_id)
                reader.abort()

    # Flushes and time-outs

    def schedule_flush(self, target: Flushable) -> None:
        """Flush a connection at the end of this turn of the event loop."""
        self._to_flush.append(target)
        if len(self._to_flush) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        # A broadcast to many connections is written in batches, so that others are served in between.
        batch = self._to_flush[:_BATCH]
        del self._to_flush[:_BATCH]
        if self._to_flush:
            self._loop.call_soon(self._flush)
        for target in batch:
            try:
                target.flush()
            except Exception:
                log.exception("connection_failed", socket_id=target.socket_id)
                target.abort()  # the failure is confined to this connection

    def _tick(self) -> None:
        self.now = self._loop.time()
        self._close_blocked()
        due = self.wheel.pop_due(self.now, _BATCH)
        self._ticker = self._loop.call_later(0 if len(due) == _BATCH else self.wheel.tick, self._tick)
        for target in due:
            try:
                target.on_timeout()
            except Exception:
                log.exception("connection_failed", socket_id=target.socket_id)
                target.abort()


_DEFLATE = ServerPerMessageDeflateFactory(
    # Without context takeover no idle connection holds a zlib window (RFC 7692 section 7.1.1).
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=12,
    client_max_window_bits=12,
    # The fastest level: zlib's own takes up to 9 ms for the 64 KiB that are compressed at most, where data
    # has two letters only, this one 1.8 ms; and half as long for a usual list, which is a tenth larger then.
    compress_settings={"level": 1, "memLevel": 5},
)

_SUBPROTOCOLS = frozenset({JSON.subprotocol, MSGPACK.subprotocol})


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """Return the client's first choice that is known here; None, when it offers none, means JSON.

    See RFC 6455 section 4.2.2.
    """
    return next((name for name in offered if name in _SUBPROTOCOLS), None)


def _select_subprotocol(_parser: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return cast("Subprotocol | None", choose_subprotocol(offered))
