"""One client's WebSocket connection: bytes to messages to intents, and messages back to bytes.

websockets' Sans-I/O parser decides what the bytes mean. A connection holds one only while the parser holds
something: during the handshake, while a message is partly read, while the closing handshake runs, and all
the time with compression. A connection owns no task, timer or closure: time and flushes come from the
context, which serves all connections. All that is sent in one turn of the event loop is written in one call
at its end.
"""

import asyncio
import math
from collections.abc import Sequence
from enum import IntEnum
from time import thread_time
from typing import Any, cast

import structlog
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN as PARSER_OPEN
from websockets.protocol import Event
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from reactor.gateway.addresses import AddressUsage
from reactor.gateway.admission import HandshakeContext
from reactor.gateway.context import MAX_UNREAD, PART, GatewayContext
from reactor.gateway.cost import CHEAP_MESSAGE, LARGE_MESSAGE, Spending
from reactor.gateway.framing import (
    BINARY,
    MAX_FRAGMENTS,
    TEXT,
    CloseConnection,
    Fragments,
    at_frame_start,
    at_rest,
    check_text,
    close_frame,
    frame,
    frame_header,
    is_pong,
    pong,
    short_reason,
)
from reactor.gateway.handshake import headers_too_large, proxy_protocol_refused, run_handshake
from reactor.gateway.outbox import FLUSH_NOW, FLUSH_SOON, TOO_SLOW, Outbox, Part
from reactor.gateway.proxy_notices import PROXY_PROTOCOL
from reactor.gateway.rate_limit import ExcessDecision, ExcessMessages
from reactor.gateway.timing_wheel import NOT_SCHEDULED
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import JSON, Codec, codec_for
from reactor.protocol.intents import Refresh
from reactor.protocol.messages import ErrorMessage, HeartbeatDue, ProtocolError
from reactor.protocol.session import Session

log = structlog.get_logger(__name__)

_MAX_COMPRESSED = 65_536  # bytes of a message to one connection that is compressed
# Bytes that are parsed at a time of a compressed connection. One byte may become 700, which are in memory,
# but are counted against the message rate only once the part is parsed.
_COMPRESSED_PART = 512
_MAX_PONGS = 16  # sent for one such part
_OVERDUE = 1.5  # heartbeat intervals without one, until the client is asked for it
_NO_BYTE = -1
_PING = Frame(Opcode.PING, b"").serialize(mask=False)


class ConnectionState(IntEnum):
    """The stages of a connection's life; it only moves forward."""

    CONNECTING = 0  # the opening handshake is not complete
    OPEN = 1  # messages flow
    CLOSING = 2  # a close frame or an HTTP response was the last thing sent; nothing more is
    CLOSED = 3  # the transport is closed or aborted


CONNECTING, OPEN, CLOSING, CLOSED = ConnectionState


class Connection(asyncio.Protocol):
    """A client's connection.

    Attributes:
        state: Its stage of life.
        session: The memberships of the client; set once the connection is open.
        codec: JSON or MessagePack, by the negotiated subprotocol.
        compressed: Whether permessage-deflate was negotiated; a frame encoded for several connections cannot
            be sent to it.
        socket_id: Id assigned by the handler.
        slot: Position in the timing wheel.
        address: The client address that the connection is counted under.
        handshake: What the handshake brought; None once the connection is open.
        spending: What its requests have cost; None before the first.
        lags: So much waits for the client that changes of rooms are not added: it will receive lists anew.

    """

    __slots__ = (
        "_context", "_excess", "_fast_byte", "_fragments", "_heartbeat_at", "_last_received",
        "_message_began", "_outbox", "_parser", "_ping_sent", "_tat", "_transport", "_unread", "_unread_from",
        "_was_blocked", "address",
        "codec", "compressed", "handshake", "lags", "session", "slot", "socket_id", "spending", "state",
    )  # fmt: skip

    max_fragments = MAX_FRAGMENTS

    session: Session
    _transport: asyncio.Transport

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._outbox = Outbox(context.send_buffer, context.send_budget)
        self.state = CONNECTING
        self.socket_id = ""
        self.slot = NOT_SCHEDULED
        self.codec: Codec = JSON
        self.compressed = False
        self.address: AddressUsage | None = None
        self.handshake: HandshakeContext | None = None
        self.spending: Spending | None = None
        self.lags = False
        self._was_blocked = False
        self._parser: ServerProtocol | None = None
        self._fragments: Fragments | None = None
        self._last_received = 0.0  # on the context's clock
        self._message_began = 0.0  # of the message of which a part has arrived; 0 if there is none
        self._ping_sent = 0.0
        self._heartbeat_at = 0.0  # when the last one arrived; infinite once the client was asked for the next
        self._tat = 0.0  # theoretical arrival time of the next message, see rate_limit.py
        self._excess: ExcessMessages | None = None
        # The first byte of frames that `data_received` reads without a parser, or _NO_BYTE.
        self._fast_byte = _NO_BYTE
        self._unread = b""  # received, and not parsed yet: from `_unread_from` on
        self._unread_from = 0

    # asyncio.Protocol: called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the opening time-out, which covers the whole handshake however slowly it arrives."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._context.manager.accept(self, peer[0] if isinstance(peer, tuple) else "")

    def data_received(self, data: bytes) -> None:
        """Process received bytes."""
        self._last_received = self._context.now
        self._context.counts.received += len(data)
        # Fast path for nearly all client messages: one complete frame of at most 125 bytes, final, masked,
        # with this codec's opcode, outside a fragmented message. It costs 0.3 us, the parser 3.3 us, and an
        # idle connection then needs no parser (1.4 KiB).
        size = len(data) - 6
        if self._unread or (size > LARGE_MESSAGE and self._is_parsed_in_turn):
            self._parse_in_turn(data)
        elif 0 <= size < 126 and data[0] == self._fast_byte and data[1] == size + 128:
            try:
                self._data_frame(apply_mask(data[6:], data[2:6]), binary=data[0] == BINARY)
            except CloseConnection as error:
                self._fail(error)
        else:
            self._parse(data)

    def note_not_tls(self, data: bytes) -> None:
        """Take note of the first bytes of a connection that is about to be closed, as they are not TLS."""
        if self.state is CONNECTING and data.startswith(PROXY_PROTOCOL):
            self._context.manager.note_proxy_protocol(self)

    def eof_received(self) -> None:
        """Close: the peer has closed its side, with or without a closing handshake (RFC 6455, 7.1.4)."""
        self._start_closing()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Release all resources."""
        self.state = CLOSED
        self._release()
        self._context.manager.closed(self)

    def pause_writing(self) -> None:
        """Keep further frames in the outbox: the transport's buffer is full."""
        self._outbox.block(self._transport.get_write_buffer_size())
        self._context.note_blocked(self)
        self._was_blocked = True

    def resume_writing(self) -> None:
        """Write what was kept while the transport's buffer was full."""
        self._outbox.unblock()
        self._context.note_unblocked(self)
        self.flush()

    @property
    def blocked(self) -> bool:
        """Whether what is sent has to wait, since the client does not read as fast."""
        return self._outbox.blocked

    @property
    def held(self) -> int:
        """The bytes that wait for a client that does not read as fast."""
        return self._outbox.held

    # What comes in

    @property
    def _is_parsed_in_turn(self) -> bool:
        """Whether what arrives is parsed, and by a client that may send much at once."""
        return self.state is OPEN or (self.state is CLOSING and self._parser is not None)

    def _parse_in_turn(self, data: bytes) -> None:
        """Parse much data a part at a time, in turn with other connections, and read no more until then."""
        context = self._context
        if self._unread:  # TLS may pass on what it had read before
            context.unread += len(data)
            self._unread += data
            return
        if context.take_part():
            self._parse(data[:PART])
            data = data[PART:]
        if not data or not self._is_parsed_in_turn:
            return
        if context.unread + len(data) > MAX_UNREAD:
            self._parse(data)
            return
        self._unread, self._unread_from = data, 0
        context.unread += len(data)
        self._transport.pause_reading()
        context.schedule_read(self)

    def read_on(self) -> None:
        """Parse the next part of what was received."""
        part = self._unread[self._unread_from : self._unread_from + PART]
        self._unread_from += len(part)
        self._context.unread -= len(part)
        self._parse(part)
        if self._unread_from < len(self._unread):
            self._context.schedule_read(self)
        else:
            self._forget_unread()

    def _forget_unread(self) -> None:
        """Discard what was not parsed, and read on."""
        if self._unread:
            self._context.unread -= len(self._unread) - self._unread_from
            self._unread, self._unread_from = b"", 0
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            if self.state is CONNECTING:
                if self._fast_handshake(data):
                    return
                parser = self._context.new_parser()
            elif self.state is OPEN:
                parser = self._context.borrow_parser()
            else:
                return
            self._parser, self._fast_byte = parser, _NO_BYTE
        size = _COMPRESSED_PART if self.compressed else PART
        for start in range(0, len(data), size):
            part = data[start : start + size]
            parser.receive_data(part)
            if self.state is CONNECTING:
                self._continue_handshake(parser, len(part))
            else:
                self._process_frames(parser.events_received())
                self._send_parser_output(parser)
            if self._parser is None:
                return
        if self.state is OPEN:
            self._watch_message(parser)
            if at_rest(parser):
                self._release_parser()
                self._context.return_parser(parser)
                self._enable_fast_path()

    def _watch_message(self, parser: ServerProtocol) -> None:
        """Note when the message began of which a part has arrived, so that it has a deadline."""
        if self._fragments is None and at_frame_start(parser):
            self._message_began = 0.0
        elif not self._message_began:
            self._message_began = now = self._context.update_clock()
            self._context.wheel.schedule_no_later(self, now + self._context.message_timeout)

    def _fast_handshake(self, data: bytes) -> bool:
        """Complete the handshake without a parser, or refuse it; False if this request needs one."""
        context = self._context
        if self.handshake is None:
            return True  # the connection is being aborted
        if data.startswith(PROXY_PROTOCOL):
            context.manager.note_proxy_protocol(self)
            self._send_last(proxy_protocol_refused())
            return True
        found = context.read_fast_handshake(data)
        if found is None or len(data) > context.max_headers:
            return False
        rejection = context.manager.respond(self, found.request)
        if rejection is not None:
            self._send_last(rejection.serialize())
        else:
            self._put(found.response)
            self._open(found.subprotocol)
            if self.state is OPEN:
                self._enable_fast_path()
        return True

    def _continue_handshake(self, parser: ServerProtocol, size: int) -> None:
        """Process `size` more bytes of the handshake, which the parser has received."""
        context, handshake = self._context, self.handshake
        if handshake is None:
            return  # the connection is being aborted
        handshake.bytes_read += size
        if handshake.bytes_read > context.max_headers:
            response: bytes | None = headers_too_large(context.max_headers)
        else:
            response = run_handshake(parser, lambda request: context.manager.respond(self, request))
        if response is not None:
            self._send_last(response)
        elif parser.state is PARSER_OPEN:
            self._send_parser_output(parser)
            self._open(parser.subprotocol, compressed=bool(parser.extensions))

    def _open(self, subprotocol: str | None, *, compressed: bool = False) -> None:
        self.codec = codec_for(subprotocol)
        self.session = self._context.session_class(self._context.limits)
        self.compressed = compressed
        self.state = OPEN
        self._context.manager.opened(self)

    def _enable_fast_path(self) -> None:
        self._fast_byte = BINARY if self.codec.binary else TEXT

    def _process_frames(self, events: Sequence[Event]) -> None:
        frames = cast("Sequence[Frame]", events)
        pings = sum(event.opcode is Opcode.PING for event in frames)
        # Of many pings only the last is answered, as RFC 6455 section 5.5.3 allows.
        unanswered = pings - 1 if pings > _MAX_PONGS else 0
        pongs = sum(event.opcode is Opcode.PONG for event in frames)
        try:
            # Once it closes, no message is processed, and so none is charged: then each frame is.
            self._charge_frames(pings + pongs if self.state is OPEN else len(frames))
            for received in frames:
                if self._parser is None:
                    return
                if received.opcode is Opcode.PING:
                    unanswered -= 1
                    if unanswered < 0:
                        self._put(pong(cast("bytes", received.data)))
                elif self.state is OPEN:
                    self._process_frame(received)
        except CloseConnection as error:
            self._fail(error)

    def _charge_frames(self, count: int) -> None:
        """Count frames against the message rate; the only way to reject one is to close."""
        limit, now = self._context.rate_limit, self._last_received
        if not count or not limit.interval:
            return
        self._tat = max(self._tat, now) + count * limit.interval
        allowed = 2 * limit.tolerance
        if self._tat - now > allowed and self._tat - self._context.update_clock() > allowed:
            raise CloseConnection(CloseCode.TOO_MANY, "too many control frames")

    def _process_frame(self, received: Frame) -> None:
        data = cast("bytes", received.data)
        if received.opcode is Opcode.TEXT or received.opcode is Opcode.BINARY:
            binary = received.opcode is Opcode.BINARY
            if received.fin:
                self._data_frame(data, binary=binary)
            else:
                self._fragments = Fragments(binary=binary, limit=self.max_fragments)
                self._fragments.add(data, fin=False)
        elif received.opcode is Opcode.CONT and self._fragments is not None:
            message = self._fragments.add(data, fin=received.fin)
            if message is not None:
                binary = self._fragments.binary
                self._fragments = None
                self.message_received(message, binary=binary)

    def _data_frame(self, payload: bytes, *, binary: bool) -> None:
        if not binary:
            check_text(payload)
        self.message_received(payload, binary=binary)

    def message_received(self, payload: bytes, *, binary: bool) -> None:
        """Process one complete message: pass its intent to the handler, or send an `error` to the client.

        Raises:
            CloseConnection: 1003 if the frame type is not the codec's, 4029 after too many excess messages.

        """
        if binary is not self.codec.binary:
            kind = "binary" if self.codec.binary else "text"
            raise CloseConnection(CloseCode.UNSUPPORTED, f"{self.codec.subprotocol} uses {kind} frames")
        context, now, tat = self._context, self._last_received, self._tat
        limit, size = context.rate_limit, len(payload)
        weight = 1 if size <= limit.large else limit.weight(size)
        self._tat = tat = (max(now, tat)) + limit.interval * weight
        if tat - now > limit.tolerance and self._is_over_rate(payload, weight):
            return
        self.carry_out(payload)

    def carry_out(self, payload: bytes) -> None:
        """Pass the intent of a message that was charged to the handler, or send an `error` to the client."""
        context = self._context
        request: Any = None
        try:
            if len(payload) <= CHEAP_MESSAGE:
                request = self.codec.decode_at_once(payload)
            if request is not None:
                intent = self.session.receive(request)
            elif context.handler.admits(self, payload):
                began = thread_time()
                try:
                    request = self.codec.decode(payload, context.limits.max_data)
                    intent = self.session.receive(request)
                finally:
                    context.handler.charge_reading(self, payload, thread_time() - began)
            else:
                return
            if type(intent) is Refresh:
                self._heartbeat_at = self._last_received
            if intent is not None:
                context.handler.intent(self, intent)
            elif self.session.checks_first_token:
                context.keep_early(self, request, payload)
        except ProtocolError as error:
            self.send(error.reply())
        except Exception:
            log.exception("request_failed", socket_id=self.socket_id, request=type(request).__name__)
            sentence = "the server failed to process this request; the connection stays open"
            self.send(ErrorMessage("internal", sentence, getattr(request, "id", None)))

    def _is_over_rate(self, payload: bytes, weight: int) -> bool:
        """Return whether a message is rejected for its rate; the client then receives an error.

        weight: how many messages it counts as.

        Raises:
            CloseConnection: 4029, after too many such messages.

        """
        context = self._context
        now, limit = context.update_clock(), context.rate_limit
        if self._tat - now <= limit.tolerance:
            return False  # only the cached clock was late
        self._tat -= limit.interval * weight
        if self._excess is None:
            self._excess = ExcessMessages(2 * context.limits.max_rooms)
        decision = self._excess.decide(now, limit.forget_after, may_use_credit=weight == 1)
        if decision is ExcessDecision.ACCEPT:
            return False
        if decision is ExcessDecision.CLOSE:
            raise CloseConnection(CloseCode.TOO_MANY, "too many requests")
        request_id, room_id = self.codec.identify(payload)
        sentence = "too many requests: wait a second, then send this one again"
        self.send(ErrorMessage("too_many_requests", sentence, request_id, room_id))
        return True

    # What goes out

    def send(self, message: Any) -> int:
        """Send a message, and return its size in bytes; does nothing unless the connection is open."""
        if self.state is not OPEN:
            return 0
        if type(message) is ErrorMessage:
            self._context.counts.errors[message.code] += 1
        payload = self.codec.encode(message)
        self.send_payload(payload)
        return len(payload)

    def send_now(self, message: Any) -> None:
        """Send a message that is probably the only one in this turn of the event loop: a heartbeat's reply.

        It bypasses the outbox and the flush if both are empty, which saves 0.9 of a heartbeat's 13 us. uvloop
        itself writes at the end of the turn.
        """
        if self.state is not OPEN or self.compressed or self._outbox.blocked or self._outbox.size:
            self.send(message)
        elif not self._transport.is_closing():
            data = frame(self.codec.encode(message), binary=self.codec.binary)
            self._context.counts.sent += len(data)
            self._transport.write(data)

    def send_payload(self, payload: bytes) -> None:
        """Send a message that is already encoded with this connection's codec.

        A large one is not compressed (RFC 7692 section 6.1): a megabyte takes up to 30 ms of the node's time.
        """
        if self.state is not OPEN:
            return
        if self.compressed and self._parser is not None and len(payload) <= _MAX_COMPRESSED:
            self._put(self._deflated(payload, self._parser))
        else:
            self._put(frame(payload, binary=self.codec.binary))

    def send_deflated(self, payload: bytes, shared: dict[Any, bytes]) -> None:
        """Send a message, encoded with this connection's codec, as a `compressed` connection receives it.

        shared: the frames of this message for others. No message is compressed with what one before it held
        (`server_no_context_takeover`), so connections with the same parameters receive the same bytes.
        """
        if self.state is OPEN and self._parser is not None:
            key = self.codec, cast("PerMessageDeflate", self._parser.extensions[0]).local_max_window_bits
            if (deflated := shared.get(key)) is None:
                deflated = shared[key] = self._deflated(payload, self._parser)
            self._put(deflated)

    def _deflated(self, payload: bytes, parser: ServerProtocol) -> bytes:
        opcode = Opcode.BINARY if self.codec.binary else Opcode.TEXT
        return Frame(opcode, payload).serialize(mask=False, extensions=parser.extensions)

    def send_parts(self, size: int, head: bytes, *parts: bytes | Part) -> None:
        """Send a message of `size` bytes, encoded with this connection's codec, in parts."""
        if self.compressed and size <= _MAX_COMPRESSED:
            self.send_payload(
                head + b"".join(one if isinstance(one, bytes) else one.encode() for one in parts)
            )
        elif self.state is OPEN:
            self._put(frame_header(size, binary=self.codec.binary) + head, *parts)

    def send_frame(self, data: bytes) -> None:
        """Send a message that is already framed; not allowed on a `compressed` connection."""
        if self.state is OPEN:
            self._put(data)

    def close_as_too_slow(self) -> None:
        """Close with 4008, and discard what waits; abort where a large message was written in part."""
        if self.state is not OPEN:
            self.abort()
            return
        self._context.counts.too_slow += 1
        log.info("client_too_slow", socket_id=self.socket_id, buffered=self.held)
        rest = self._outbox.clear()
        if rest is None:
            self.abort()
        else:
            self._send_last(b"".join((*rest, close_frame(CloseCode.TOO_SLOW, "too slow to read"))))

    def _put(self, data: bytes, *rest: bytes | Part) -> None:
        result = self._outbox.put(data, *rest)
        if result is FLUSH_SOON:
            self._context.schedule_flush(self)
        elif result is FLUSH_NOW:
            self.flush()
        elif result is TOO_SLOW:
            self.close_as_too_slow()
        elif self._outbox.blocked:
            self.lags = self._outbox.size > self._context.lag_bytes
            self._context.check_budget()

    def flush(self) -> None:
        """Write what waits, unless the transport's buffer is full; of more than a slice the rest later.

        Other connections are served in between.
        """
        outbox = self._outbox
        if outbox.size and not outbox.blocked:
            self._write_slice()
            if outbox.size and not outbox.blocked:
                self._context.schedule_flush(self)
        if self._was_blocked and not outbox.size and not outbox.blocked and self.state is OPEN:
            self._was_blocked = self.lags = False
            self._context.handler.drained(self)

    def _write_slice(self) -> None:
        frames, transport = self._outbox.take(), self._transport
        if transport.is_closing():
            return
        counts = self._context.counts
        if len(frames) == 1:
            counts.sent += len(frames[0])
            transport.write(frames[0])
        else:
            counts.sent += sum(map(len, frames))
            transport.writelines(frames)

    def _send_parser_output(self, parser: ServerProtocol) -> None:
        """Send what the parser wrote, except pongs: those were sent in the order of the frames."""
        for data in parser.data_to_send():
            if not data:
                self._send_last(b"")
            elif self._parser is not None and not is_pong(data):
                self._put(data)

    # Closing

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake after what was sent before; the peer has the close time-out to answer.

        Args:
            code: Close code (RFC 6455 section 7.4).
            reason: A sentence, cut to 123 bytes.

        """
        if self.state is CONNECTING:
            self.abort()
        elif self.state is OPEN:
            parser = self._parser = self._parser or self._context.borrow_parser()
            # If the peer's close frame was just read, the parser has answered it.
            if parser.state is PARSER_OPEN:
                parser.send_close(code, short_reason(reason))
            self._start_closing()
            self._send_parser_output(parser)

    def abort(self) -> None:
        """Close the transport immediately; unwritten data is lost."""
        if self.state is not CLOSED:
            self.state = CLOSED
            self._release()
            self._transport.abort()

    def on_timeout(self) -> None:
        """Send the ping that is due, and ask for an overdue heartbeat; end the connection if a part is late.

        That is the rest of a message, or the answer to the opening or closing handshake, or to a ping.
        """
        if self.state is not OPEN:
            self.abort()
            return
        due = self._check_message()
        if self.state is OPEN:
            due = min(due, self._check_ping(), self._check_heartbeat())
        if self.state is OPEN and due < math.inf:
            self._context.wheel.schedule(self, due)

    def _check_message(self) -> float:
        """Close the connection if a message takes too long to arrive; return when to check again."""
        if not self._message_began:
            return math.inf
        due = self._message_began + self._context.message_timeout
        if due <= self._context.now:
            self._fail(CloseConnection(CloseCode.POLICY, "a message took too long to arrive"))
        return due

    def _check_ping(self) -> float:
        """Send the ping that is due, or abort if a pong is late; return when to check again."""
        context = self._context
        if not context.ping_interval:
            return math.inf
        if self._last_received < self._ping_sent:
            due = self._ping_sent + context.ping_timeout
            if due <= context.now:
                self.abort()
            return due
        due = self._last_received + context.ping_interval
        if due <= context.now:
            self._ping_sent = context.now
            due = context.now + min(context.ping_timeout, context.ping_interval)
            self._put(_PING)
        return due

    def settle(self) -> None:
        """Note that the connection is in use: it has joined a room, or watches one."""
        self._context.manager.settled(self)

    def expect_heartbeats(self, interval: float) -> None:
        """Note that the connection has joined a room with this heartbeat interval (seconds)."""
        self.settle()
        now = self._heartbeat_at = self._context.now
        self._context.wheel.schedule_no_later(self, now + interval * _OVERDUE)

    def _check_heartbeat(self) -> float:
        """Ask for a heartbeat that is overdue, once; return when to check again."""
        interval = self.session.heartbeat_interval()
        if interval is None:
            return math.inf
        now, patience = self._context.now, interval * _OVERDUE
        if self._heartbeat_at + patience <= now:
            self._heartbeat_at = math.inf
            self.send(HeartbeatDue())
        return min(self._heartbeat_at, now) + patience

    def _fail(self, error: CloseConnection) -> None:
        """Close without waiting for the peer, and ignore what it sends (RFC 6455 section 7.1.7)."""
        if self.state is OPEN:
            self._send_last(close_frame(error.code, str(error)))
        elif self.state is CLOSING:
            self._send_last(b"")

    def _send_last(self, data: bytes) -> None:
        """Write the outbox and `data`, close the sending side, and ignore what the peer sends afterwards."""
        self._start_closing()
        while self._outbox.size and not self._outbox.blocked:
            self._write_slice()
        rest = self._outbox.clear()
        self._release()
        if rest is None:  # a large message was written in part: nothing can follow it
            self.abort()
        if self._transport.is_closing():
            return
        if data := b"".join((*rest, data)) if rest else data:
            self._context.counts.sent += len(data)
            self._transport.write(data)
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _start_closing(self) -> None:
        """Send no further messages, and start the close time-out."""
        if self.state < CLOSING:
            self.state = CLOSING
            self._context.start_close_timeout(self)
        self._fast_byte = _NO_BYTE

    def _release(self) -> None:
        """Release buffers and parser: nothing the peer sends matters any more, and nothing is sent to it."""
        self.lags = False  # otherwise the fan-out would remember what it misses
        self._outbox.clear()
        self._outbox.unblock()
        self._context.note_unblocked(self)
        self._forget_unread()
        self._release_parser()

    def _release_parser(self) -> None:
        self._parser = None
        self._fragments = None
        self._fast_byte = _NO_BYTE
