"""One socket: bytes to intents, messages to bytes, and the ends that both may come to.

websockets' Sans-I/O parser decides what the bytes mean; this moves them. A parser is held only while it holds
something: from the first byte of the handshake to its answer, while a message is half read, while the closing
handshake runs, and all the time with compression. Between messages a socket is this object, its session and
its transport. No task, timer or closure is its own: time and flushes come from the hub, which serves all.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import structlog
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN as PARSER_OPEN
from websockets.protocol import Event
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from reactor.gateway.framing import (
    BINARY,
    MAX_FRAGMENTS,
    TEXT,
    Fragments,
    Refused,
    at_rest,
    check_text,
    close_frame,
    frame,
    is_pong,
    pong,
    short_reason,
)
from reactor.gateway.handshake import shake_hands
from reactor.gateway.hub import Hub
from reactor.gateway.wire import CONNECTING, GONE, OPEN, Wire
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import JSON, Codec, codec_for
from reactor.protocol.messages import ErrorMessage, ProtocolError
from reactor.protocol.session import Session

log = structlog.get_logger(__name__)

_SLICE = 4096  # bytes parsed at a time, so that a flood of tiny frames is never many objects at once
_MAX_PONGS = 16  # for one slice
_NEVER = -1  # is no byte
_PING = Frame(Opcode.PING, b"").serialize(mask=False)


class Connection(Wire):
    """A client's socket.

    Attributes:
        session: Its memberships; there once the socket is open.
        codec: JSON or MessagePack, by the subprotocol it asked for.
        compressed: Whether permessage-deflate was agreed on, so that no shared frame can be sent to it.
        socket_id: The id the handler gave it.
        state: Where it is in its life.

    """

    __slots__ = ("_fragments", "_heard", "_parser", "_pinged", "_quick", "codec", "compressed", "session")

    max_fragments = MAX_FRAGMENTS

    session: Session

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.codec: Codec = JSON
        self.compressed = False
        self._parser: ServerProtocol | None = None
        self._fragments: Fragments | None = None
        self._heard = 0.0  # when something came, on the hub's clock
        self._pinged = 0.0  # when the last ping went out
        self._quick = _NEVER  # first byte of a frame that needs no parser

    # What comes in.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the opening time-out runs from here, however slowly the handshake drips in."""
        super().connection_made(transport)
        self._parser = self._hub.new_parser()
        self._hub.arrived(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self._heard = self._hub.now
        # The quick way, for nearly all that clients say: one whole frame of at most 125 bytes, final, masked,
        # with the opcode of this codec, nothing before it, nothing behind it and no message begun. Here it
        # costs 0.3 us, in the parser 3.3 us, and an idle socket needs no parser (1.4 KiB).
        size = len(data) - 6
        if 0 <= size < 126 and data[0] == self._quick and data[1] == size + 128:
            try:
                self._whole(apply_mask(data[6:], data[2:6]), binary=data[0] == BINARY)
            except Refused as refusal:
                self._fail(refusal)
        else:
            self._parse(data)

    def eof_received(self) -> None:
        """End: the peer says no more, with or without having closed (RFC 6455 section 7.1.4)."""
        self._close_soon()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Let go of everything."""
        self.state = GONE
        self._let_go()
        self._hub.gone(self)

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            if self.state is not OPEN:
                return
            parser = self._parser = self._hub.borrow_parser()
            self._quick = _NEVER
        for start in range(0, len(data), _SLICE):
            parser.receive_data(data[start : start + _SLICE])
            if self.state is CONNECTING:
                self._handshake(parser)
            else:
                self._events(parser.events_received())
                self._pass_on(parser)
            if self._parser is None:
                return
        if self.state is OPEN and at_rest(parser):
            self._drop()
            self._hub.return_parser(parser)
            self._quick = BINARY if self.codec.binary else TEXT

    def _handshake(self, parser: ServerProtocol) -> None:
        refusal = shake_hands(parser, self._hub.answer)
        if refusal is not None:
            self._last_word(refusal)
        elif parser.state is PARSER_OPEN:
            self._pass_on(parser)
            self._open(parser)

    def _open(self, parser: ServerProtocol) -> None:
        self.codec = codec_for(parser.subprotocol)
        self.session = Session(self._hub.limits)
        self.compressed = bool(parser.extensions)
        self.state = OPEN
        self._hub.opened(self)

    def _events(self, events: Sequence[Event]) -> None:
        frames = cast("Sequence[Frame]", events)
        pings = sum(event.opcode is Opcode.PING for event in frames)
        # To many at once only the last is answered, as RFC 6455 section 5.5.3 allows.
        unanswered = pings - 1 if pings > _MAX_PONGS else 0
        try:
            for received in frames:
                if self._parser is None:
                    return
                if received.opcode is Opcode.PING:
                    unanswered -= 1
                    if unanswered < 0:
                        self._put(pong(cast("bytes", received.data)))
                elif self.state is OPEN:
                    self._frame(received)
        except Refused as refusal:
            self._fail(refusal)

    def _frame(self, received: Frame) -> None:
        data = cast("bytes", received.data)
        if received.opcode is Opcode.TEXT or received.opcode is Opcode.BINARY:
            binary = received.opcode is Opcode.BINARY
            if received.fin:
                self._whole(data, binary=binary)
            else:
                self._fragments = Fragments(binary=binary, limit=self.max_fragments)
                self._fragments.add(data, fin=False)
        elif received.opcode is Opcode.CONT and self._fragments is not None:
            whole = self._fragments.add(data, fin=received.fin)
            if whole is not None:
                binary = self._fragments.binary
                self._fragments = None
                self.message(whole, binary=binary)

    def _whole(self, payload: bytes, *, binary: bool) -> None:
        if not binary:
            check_text(payload)
        self.message(payload, binary=binary)

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Act on one whole message: the handler gets what it asks for, or the client an `error`.

        Raises:
            Refused: 1003, when the frame's kind is not the codec's.

        """
        if binary is not self.codec.binary:
            raise Refused(CloseCode.UNSUPPORTED, f"{self.codec.subprotocol} uses the other kind of frame")
        request: Any = None
        try:
            request = self.codec.decode(payload)
            intent = self.session.receive(request)
            if intent is not None:
                self._hub.handler.intent(self, intent)
        except ProtocolError as error:
            self.send(error.reply())
        except Exception:
            log.exception("a request failed", socket_id=self.socket_id, request=type(request).__name__)
            sentence = "the server failed on this request; others are served"
            self.send(ErrorMessage("internal", sentence, getattr(request, "id", None)))

    # What goes out.

    def send(self, message: Any) -> None:
        """Send a message; nothing happens once the socket is closing."""
        if self.state is OPEN:
            if type(message) is ErrorMessage:
                self._hub.counts.refused[message.code] += 1
            self.send_payload(self.codec.encode(message))

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

    def send_frame(self, data: bytes) -> None:
        """Send a message that is encoded and framed; only to a connection that is not `compressed`."""
        if self.state is OPEN:
            self._put(data)

    def _pass_on(self, parser: ServerProtocol) -> None:
        """Write what the parser wants written, but for pongs, which went out in their place."""
        for data in parser.data_to_send():
            if not data:
                self._last_word(b"")
            elif self._parser is not None and not is_pong(data):
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

    def _fail(self, refusal: Refused) -> None:
        """Close at once, deaf to what follows (RFC 6455 section 7.1.7)."""
        if self.state is OPEN:
            self._last_word(close_frame(refusal.code, str(refusal)))

    def _close_soon(self) -> None:
        super()._close_soon()
        self._quick = _NEVER

    def _let_go(self) -> None:
        super()._let_go()
        self._drop()

    def _drop(self) -> None:
        self._parser = None
        self._fragments = None
        self._quick = _NEVER
