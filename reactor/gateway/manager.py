"""What all sockets of one gateway share: the handler, one clock, one wheel of deadlines, one flush a turn.

Kept out of the socket so that an idle one costs little, and out of the server so that a socket knows no more
than this.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

import structlog
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from reactor.gateway.admission import Entrance
from reactor.gateway.auth import Door
from reactor.gateway.authenticator import Authenticator
from reactor.gateway.chores import Chores
from reactor.gateway.fds import room_for_sockets
from reactor.gateway.http import Site
from reactor.gateway.opening import Opening, read_usual
from reactor.gateway.rate_limit import Pace
from reactor.gateway.timing_wheel import Wheel
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.guard import GuardedSession
from reactor.protocol.intents import Intent
from reactor.protocol.limits import Limits
from reactor.protocol.session import Session
from reactor.settings import Settings

if TYPE_CHECKING:
    from reactor.gateway.connection import Connection
    from reactor.gateway.wire import Wire

log = structlog.get_logger(__name__)

_SPARE_PARSERS = 64
_AT_ONCE = 1000  # sockets served before the loop gets its turn
# Each handshake and each close would be a line; what goes wrong still is one.
_parser_log = logging.getLogger("reactor.gateway.parser")
_parser_log.setLevel(logging.WARNING)


class Handler(Protocol):
    """Who acts on what clients say. None of these may block; `closed` comes once after each `opened`."""

    def opened(self, connection: "Connection") -> None:
        """Take note of a new socket, and set its `socket_id`."""

    def intent(self, connection: "Connection", intent: Intent) -> None:
        """Act on what a client wants; the answer goes out later, by `connection.send`."""

    def closed(self, connection: "Connection") -> None:
        """Forget a socket: nothing more comes from it, and nothing reaches it."""

    def ready(self) -> tuple[bool, str]:
        """Whether clients are well served now, and a word on why not."""
        ...


class Timed(Protocol):
    """What the wheel keeps the time of."""

    slot: int

    @property
    def socket_id(self) -> str:
        """The handler's id of the socket."""
        ...

    def time_is_up(self) -> None:
        """See to a deadline that has passed."""

    def abort(self) -> None:
        """Cut the socket off."""


class Counts:
    """What happened to the sockets of a gateway.

    `opened`; `turned_away` before that, by status; `refused` something, by error code; `too_slow`, cut off.
    """

    __slots__ = ("opened", "refused", "too_slow", "turned_away")

    def __init__(self) -> None:
        self.opened = self.too_slow = 0
        self.refused: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()


class Hub:
    """The shared part of all sockets.

    Attributes:
        connections: Open sockets; `strangers` are those still in the handshake, or asking plain HTTP.
        now: The loop's clock at the last tick: exact enough for deadlines of seconds, and free to read.
        stopping: No more sockets are let in.
        empty: Set while there is no socket at all.
        entrance: Who is let in.
        pace: How fast a connection may speak.
        counts: What happened to sockets; see `Counts`.

    """

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        connections: "set[Connection]",
        counts: "Counts | None" = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.counts = counts or Counts()
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self.handler = handler
        self.chores = Chores()
        self.limits = Limits(max_id=settings.max_id, max_data=settings.max_data, max_rooms=settings.max_rooms)
        self.session_class: type[Session] = Session
        if authenticator is not None:
            patience, grace = settings.auth_timeout, settings.auth_grace
            self.handler = Door(handler, authenticator, self, self.chores, patience=patience, grace=grace)
            self.session_class = GuardedSession
        self.connections = connections
        self.strangers: set[Connection] = set()
        self.stopping = False
        self.empty = asyncio.Event()
        self.empty.set()

        self.now = self._loop.time()
        shortest = min(settings.open_timeout, settings.close_timeout, settings.ping_timeout)
        tick = min(max(shortest / 20, 0.01), 0.25)
        self.wheel: Wheel[Timed] = Wheel(tick, self.now)
        self.pace = Pace(settings.messages_per_second, settings.message_burst, tick)
        self.entrance = Entrance(
            settings,
            Site(handler.ready),
            most=settings.max_connections or room_for_sockets(),
            occupied=lambda: len(self.connections) + len(self.strangers),
            identify=authenticator.at_once if authenticator else lambda _token: None,
            turned_away=self.counts.turned_away,
        )
        # `now` may be a tick old. The second tick is for heartbeats as far apart as pings: they come first.
        self.open_timeout = settings.open_timeout + tick
        self.close_timeout = settings.close_timeout + tick
        self.ping_interval = settings.ping_interval and settings.ping_interval + 2 * tick
        self.ping_timeout = settings.ping_timeout + tick
        self.send_buffer = settings.send_buffer
        self.max_headers = settings.max_headers

        self._ticker = self._loop.call_later(tick, self._tick)
        self._dirty: list[Wire] = []
        self._spare: list[ServerProtocol] = []
        self._extensions = [_DEFLATE] if settings.compression else None

    def stop(self) -> None:
        """Stop the clock: from here on nothing times out."""
        self._ticker.cancel()

    def look_at_clock(self) -> float:
        """Bring `now` up to date, where a tick makes a difference."""
        self.now = self._loop.time()
        return self.now

    # Parsers.

    def new_parser(self) -> ServerProtocol:
        """Return a parser for a handshake and what follows."""
        return ServerProtocol(
            extensions=self._extensions,
            select_subprotocol=_select_subprotocol,
            max_size=self._settings.max_message,
            logger=_parser_log,
        )

    def read_usual(self, data: bytes) -> Opening | None:
        """Read a whole handshake without a parser, where it is usual in every way; see opening.py."""
        return read_usual(data, _choose, extensions=self._extensions is not None)

    def borrow_parser(self) -> ServerProtocol:
        """Return a parser that stands between two messages of an open, uncompressed connection."""
        if self._spare:
            return self._spare.pop()
        return ServerProtocol(state=OPEN, max_size=self._settings.max_message, logger=_parser_log)

    def return_parser(self, parser: ServerProtocol) -> None:
        """Take back a parser that is `at_rest`, for the next who needs one."""
        if len(self._spare) < _SPARE_PARSERS:
            self._spare.append(parser)

    # A socket's life.

    def arrived(self, connection: "Connection", peer: str) -> None:
        """Let a socket in, to make its handshake in time."""
        visit = None if self.stopping else self.entrance.arrive(peer, self.now)
        if visit is None:
            connection.abort()
            return
        connection.visit, connection.address = visit, visit.address
        self.empty.clear()
        self.strangers.add(connection)
        self.wheel.put(connection, self.look_at_clock() + self.open_timeout)

    def opened(self, connection: "Connection") -> None:
        """Count a socket among the connections, and tell the handler."""
        self.strangers.discard(connection)
        self.connections.add(connection)
        self.counts.opened += 1
        self.wheel.remove(connection)
        if self.ping_interval:
            self.wheel.put(connection, self.now + self.ping_interval)
        try:
            self.handler.opened(connection)
        except Exception:
            log.exception("the handler failed on a new socket")
            connection.abort()
        connection.visit = None

    def closing(self, wire: "Wire") -> None:
        """Give a socket the time of a closing handshake."""
        self.wheel.put(wire, self.look_at_clock() + self.close_timeout)

    def gone(self, connection: "Connection") -> None:
        """Forget a socket, and tell the handler if it knew of it."""
        self.wheel.remove(connection)
        self.strangers.discard(connection)
        self.entrance.leave(connection.address, connection.visit)
        connection.address = connection.visit = None
        if connection in self.connections:
            self.connections.discard(connection)
            try:
                self.handler.closed(connection)
            except Exception:
                log.exception("the handler failed on a closed socket", socket_id=connection.socket_id)
        if not self.connections and not self.strangers:
            self.empty.set()

    def flush_soon(self, wire: "Wire") -> None:
        """Have a socket's outbox written at the end of this turn of the loop."""
        self._dirty.append(wire)
        if len(self._dirty) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        # A message to very many goes out in slices, so that others are heard in between.
        batch = self._dirty[:_AT_ONCE]
        del self._dirty[:_AT_ONCE]
        if self._dirty:
            self._loop.call_soon(self._flush)
        for wire in batch:
            try:
                wire.flush()
            except Exception:
                log.exception("a socket failed", socket_id=wire.socket_id)
                wire.abort()  # its failure costs itself alone

    def _tick(self) -> None:
        self.now = self._loop.time()
        due = self.wheel.due(self.now, _AT_ONCE)
        self._ticker = self._loop.call_later(0 if len(due) == _AT_ONCE else self.wheel.tick, self._tick)
        for wire in due:
            try:
                wire.time_is_up()
            except Exception:
                log.exception("a socket failed", socket_id=wire.socket_id)
                wire.abort()  # its failure costs itself alone


_DEFLATE = ServerPerMessageDeflateFactory(
    # Without context takeover no idle socket holds a zlib window (RFC 7692 section 7.1.1).
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)

_SUBPROTOCOLS = frozenset({JSON.subprotocol, MSGPACK.subprotocol})


def _choose(offered: Sequence[str]) -> str | None:
    """Take the client's first choice that is known here; none offered means JSON (RFC 6455 section 4.2.2)."""
    return next((name for name in offered if name in _SUBPROTOCOLS), None)


def _select_subprotocol(_parser: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return cast("Subprotocol | None", _choose(offered))
