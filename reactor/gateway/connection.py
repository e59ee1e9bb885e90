"""One socket: messages to intents, answers to messages, and the ends that both may come to.

Between messages a socket is this object, its session and its transport. No task, timer or closure is its own:
time and flushes come from the hub, which serves all.
"""

import asyncio
from typing import Any

import structlog
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN as PARSER_OPEN
from websockets.server import ServerProtocol

from reactor.gateway.admission import Visit
from reactor.gateway.framing import (
    Refused,
    frame,
    frame_header,
    short_reason,
)
from reactor.gateway.handshake import shake_hands, too_long
from reactor.gateway.incoming import Incoming
from reactor.gateway.manager import Hub
from reactor.gateway.rate_limit import Over, Overdraft
from reactor.gateway.visitors import Address
from reactor.gateway.wire import CONNECTING, GONE, OPEN
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import codec_for
from reactor.protocol.messages import ErrorMessage, ProtocolError
from reactor.protocol.session import Session

log = structlog.get_logger(__name__)

_PING = Frame(Opcode.PING, b"").serialize(mask=False)


class Connection(Incoming):
    """A client's socket.

    Attributes:
        session: Its memberships; there once the socket is open.
        codec: JSON or MessagePack, by the subprotocol it asked for.
        compressed: Whether permessage-deflate was agreed on, so that no shared frame can be sent to it.
        socket_id: The id the handler gave it.
        state: Where it is in its life.
        address: The place it is counted for; `visit` is how it came, until it is open.

    """

    __slots__ = ("_overdraft", "_pinged", "address", "compressed", "session", "visit")

    session: Session

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.compressed = False
        self._pinged = 0.0  # when the last ping went out
        self._overdraft: Overdraft | None = None
        self.address: Address | None = None
        self.visit: Visit | None = None

    # What comes in.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the opening time-out runs from here, however slowly the handshake drips in."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._hub.arrived(self, peer[0] if isinstance(peer, tuple) else "")

    def eof_received(self) -> None:
        """End: the peer says no more, with or without having closed (RFC 6455 section 7.1.4)."""
        self._close_soon()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Let go of everything."""
        self.state = GONE
        self._let_go()
        self._hub.gone(self)

    def _open_quickly(self, data: bytes) -> bool:
        hub, visit = self._hub, self.visit
        if visit is None:
            return True  # it is being cut off
        opening = hub.read_usual(data)
        if opening is None or len(data) > hub.max_headers:
            return False
        refusal = hub.entrance.answer(opening.request, visit, hub.now)
        self.address = visit.address
        if refusal is not None:
            self._last_word(refusal.serialize())
        else:
            self._put(opening.answer)
            self._open(opening.subprotocol)
            if self.state is OPEN:
                self._rest()
        return True

    def _handshake(self, parser: ServerProtocol, size: int) -> None:
        hub, visit = self._hub, self.visit
        if visit is None:
            return  # it is being cut off
        visit.read += size
        refusal = shake_hands(parser, lambda request: hub.entrance.answer(request, visit, hub.now))
        self.address = visit.address
        if refusal is None and visit.read > hub.max_headers:
            refusal = too_long(hub.max_headers)
        if refusal is not None:
            self._last_word(refusal)
        elif parser.state is PARSER_OPEN:
            self._pass_on(parser)
            self._open(parser.subprotocol, compressed=bool(parser.extensions))

    def _open(self, subprotocol: str | None, *, compressed: bool = False) -> None:
        self.codec = codec_for(subprotocol)
        self.session = self._hub.session_class(self._hub.limits)
        self.compressed = compressed
        self.state = OPEN
        self._hub.opened(self)

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Act on one whole message: the handler gets what it asks for, or the client an `error`.

        Raises:
            Refused: 1003, when the frame's kind is not the codec's.

        """
        if binary is not self.codec.binary:
            raise Refused(CloseCode.UNSUPPORTED, f"{self.codec.subprotocol} uses the other kind of frame")
        hub, now, paid = self._hub, self._heard, self._paid
        self._paid = paid = (max(now, paid)) + hub.pace.gap
        if paid - now > hub.pace.slack and self._is_too_much(payload):
            return
        request: Any = None
        try:
            request = self.codec.decode(payload)
            intent = self.session.receive(request)
            if intent is not None:
                hub.handler.intent(self, intent)
        except ProtocolError as error:
            self.send(error.reply())
        except Exception:
            log.exception("a request failed", socket_id=self.socket_id, request=type(request).__name__)
            sentence = "the server failed on this request; others are served"
            self.send(ErrorMessage("internal", sentence, getattr(request, "id", None)))

    def _is_too_much(self, payload: bytes) -> bool:
        """Whether a message over the rate is refused; the client is told so.

        Raises:
            Refused: 4029, when it has gone on for too long.

        """
        hub = self._hub
        now, pace = hub.look_at_clock(), hub.pace
        if self._paid - now <= pace.slack:
            return False  # it was the clock that stood still
        self._paid -= pace.gap
        if self._overdraft is None:
            self._overdraft = Overdraft(2 * hub.limits.max_rooms)
        verdict = self._overdraft.draw(now, pace.rest)
        if verdict is Over.TAKE:
            return False
        if verdict is Over.CLOSE:
            raise Refused(CloseCode.TOO_MANY, "too many requests")
        about: Any
        try:
            about = self.codec.decode(payload)
        except ProtocolError as error:
            about = error
        sentence = "more requests than this server takes: wait a second, then send it again"
        self.send(ErrorMessage("too_many_requests", sentence, about.id, getattr(about, "room_id", None)))
        return True

    # What goes out.

    def send(self, message: Any) -> None:
        """Send a message; nothing happens once the socket is closing."""
        if self.state is OPEN:
            if type(message) is ErrorMessage:
                self._hub.counts.refused[message.code] += 1
            self.send_payload(self.codec.encode(message))

    def send_at_once(self, message: Any) -> None:
        """Send what is most likely all that this turn of the loop has for this socket: a heartbeat's answer.

        The quick way round the outbox and the flush, where nothing is in them: 0.9 us of the 13 that a
        heartbeat costs. uvloop itself writes at the end of the turn.
        """
        if self.state is not OPEN or self.compressed or self._outbox.blocked or self._outbox.size:
            self.send(message)
        elif not self._transport.is_closing():
            self._transport.write(frame(self.codec.encode(message), binary=self.codec.binary))

    def send_payload(self, payload: bytes) -> None:
        """Send a message that is encoded with this connection's codec."""
        if self.state is not OPEN:
            return
        binary = self.codec.binary
        if self.compressed and self._parser is not None:
            opcode = Opcode.BINARY if binary else Opcode.TEXT
            self._put(Frame(opcode, payload).serialize(mask=False, extensions=self._parser.extensions))
        else:
            self._put(frame(payload, binary=binary))

    def send_pieces(self, *pieces: bytes) -> None:
        """Send a message that is encoded with this connection's codec, in pieces that others share."""
        if self.compressed:
            self.send_payload(b"".join(pieces))
        elif self.state is OPEN:
            header = frame_header(sum(map(len, pieces)), binary=self.codec.binary)
            self._put(header + pieces[0], *pieces[1:])

    def send_frame(self, data: bytes) -> None:
        """Send a message that is encoded and framed; only to a connection that is not `compressed`."""
        if self.state is OPEN:
            self._put(data)

    # How it ends.

    def close(self, code: int, reason: str = "") -> None:
        """Close after what was sent before; the peer has the close time-out to answer.

        Args:
            code: Close code (RFC 6455 section 7.4).
            reason: A sentence, cut to 123 bytes.

        """
        if self.state is CONNECTING:
            self.abort()
        elif self.state is OPEN:
            parser = self._parser = self._parser or self._hub.borrow_parser()
            # When the peer's close was just read, the parser has answered it.
            if parser.state is PARSER_OPEN:
                parser.send_close(code, short_reason(reason))
            self._close_soon()
            self._pass_on(parser)

    def time_is_up(self) -> None:
        """See what a socket is late with: its handshake, its close, a pong, or a ping that we owe."""
        hub = self._hub
        if self.state is not OPEN:
            super().time_is_up()
            return
        if self._heard < self._pinged:
            due = self._pinged + hub.ping_timeout
            if due <= hub.now:
                self.abort()
                return
        else:
            due = self._heard + hub.ping_interval
            if due <= hub.now:
                self._pinged = hub.now
                due = hub.now + min(hub.ping_timeout, hub.ping_interval)
                self._put(_PING)
        if self.state is OPEN:
            hub.wheel.put(self, due)
