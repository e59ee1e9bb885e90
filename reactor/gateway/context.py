"""What all connections of a gateway share: one clock, one timing wheel, one flush a turn, parsers, limits.

It is separate from the connection so that an idle connection stays small. It knows connections only by the
protocols below, so that `connection` can import it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, cast

import structlog
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from reactor.gateway.handshake import FastHandshake, read_fast
from reactor.gateway.rate_limit import RateLimit
from reactor.gateway.timing_wheel import TimingWheel, WheelItem
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.intents import Intent
from reactor.protocol.limits import Limits
from reactor.protocol.session import Session
from reactor.settings import Settings

log = structlog.get_logger(__name__)

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


class TimeoutTarget(WheelItem, Abortable, Protocol):
    """An item of the timing wheel."""

    def on_timeout(self) -> None:
        """Handle the time-out."""


class IntentHandler(Protocol):
    """Receives the clients' intents; see `handler.Handler`."""

    def intent(self, connection: Any, intent: Intent) -> None:
        """Act on an intent without blocking."""


class Manager(Protocol):
    """What a connection reports its life to; see `manager.ConnectionManager`."""

    def accept(self, connection: Any, peer: str) -> None:
        """Admit a new connection to the handshake, or abort it."""

    def respond(self, connection: Any, request: Request) -> Response | None:
        """Return the HTTP response to a request; None if the WebSocket may open."""
        ...

    def opened(self, connection: Any) -> None:
        """Register a connection whose handshake is complete."""

    def closed(self, connection: Any) -> None:
        """Remove a connection."""


class ConnectionCounts:
    """Counters of a gateway's connections.

    Attributes:
        opened: Completed handshakes.
        rejected: Connections that did not open, by HTTP status; `cut` for those aborted without a response.
        errors: `error` messages sent, by code.
        too_slow: Connections closed because the client did not read.

    """

    __slots__ = ("errors", "opened", "rejected", "too_slow")

    def __init__(self) -> None:
        self.opened = self.too_slow = 0
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

    def __init__(self, settings: Settings, counts: ConnectionCounts) -> None:
        self.counts = counts
        self._loop = asyncio.get_running_loop()
        self._max_message = settings.max_message
        self.limits = Limits(max_id=settings.max_id, max_data=settings.max_data, max_rooms=settings.max_rooms)
        self.now = self._loop.time()
        shortest = min(settings.open_timeout, settings.close_timeout, settings.ping_timeout)
        tick = min(max(shortest / 20, 0.01), 0.25)
        self.wheel: TimingWheel[TimeoutTarget] = TimingWheel(tick, self.now)
        self.rate_limit = RateLimit(settings.messages_per_second, settings.message_burst, tick)
        # `now` may be one tick old. With the second tick a heartbeat sent at the ping interval comes first.
        self.open_timeout = settings.open_timeout + tick
        self.close_timeout = settings.close_timeout + tick
        self.ping_interval = settings.ping_interval and settings.ping_interval + 2 * tick
        self.ping_timeout = settings.ping_timeout + tick
        self.send_buffer = settings.send_buffer
        self.max_headers = settings.max_headers

        self._ticker = self._loop.call_later(tick, self._tick)
        self._to_flush: list[Flushable] = []
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
    compress_settings={"memLevel": 5},
)

_SUBPROTOCOLS = frozenset({JSON.subprotocol, MSGPACK.subprotocol})


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """Return the client's first choice that is known here; None, when it offers none, means JSON.

    See RFC 6455 section 4.2.2.
    """
    return next((name for name in offered if name in _SUBPROTOCOLS), None)


def _select_subprotocol(_parser: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return cast("Subprotocol | None", choose_subprotocol(offered))
