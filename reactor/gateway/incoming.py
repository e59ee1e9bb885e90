"""The incoming half of a socket: bytes to frames, frames to whole messages.

websockets' Sans-I/O parser decides what the bytes mean. It is held only while it holds something: from the
first byte of the handshake to its answer, while a message is half read, while the closing handshake runs, and
all the time with compression.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

from websockets.frames import Frame, Opcode
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
    is_pong,
    pong,
)
from reactor.gateway.manager import Hub
from reactor.gateway.wire import CONNECTING, OPEN, Wire
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import JSON, Codec

_SLICE = 4096  # bytes parsed at a time, so that a flood of tiny frames is never many objects at once
_MAX_PONGS = 16  # for one slice
_NEVER = -1  # is no byte


class Incoming(Wire):
    """A socket as far as it is read from.

    Attributes:
        codec: JSON or MessagePack, by the subprotocol it asked for.

    """

    __slots__ = ("_fragments", "_heard", "_paid", "_parser", "_quick", "codec")

    max_fragments = MAX_FRAGMENTS

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.codec: Codec = JSON
        self._parser: ServerProtocol | None = None
        self._fragments: Fragments | None = None
        self._heard = 0.0  # when something came, on the hub's clock
        self._paid = 0.0  # up to when all that it has said is paid for; see pace.py
        self._quick = _NEVER  # first byte of a frame that needs no parser

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

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            if self.state is CONNECTING:
                if self._open_quickly(data):
                    return
                parser = self._hub.new_parser()
            elif self.state is OPEN:
                parser = self._hub.borrow_parser()
            else:
                return
            self._parser, self._quick = parser, _NEVER
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            parser.receive_data(part)
            if self.state is CONNECTING:
                self._handshake(parser, len(part))
            else:
                self._events(parser.events_received())
                self._pass_on(parser)
            if self._parser is None:
                return
        if self.state is OPEN and at_rest(parser):
            self._drop()
            self._hub.return_parser(parser)
            self._rest()

    def _rest(self) -> None:
        """Hold no parser until something comes that needs one."""
        self._quick = BINARY if self.codec.binary else TEXT

    def _events(self, events: Sequence[Event]) -> None:
        frames = cast("Sequence[Frame]", events)
        pings = sum(event.opcode is Opcode.PING for event in frames)
        # To many at once only the last is answered, as RFC 6455 section 5.5.3 allows.
        unanswered = pings - 1 if pings > _MAX_PONGS else 0
        try:
            self._charge(pings + sum(event.opcode is Opcode.PONG for event in frames))
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

    def _charge(self, controls: int) -> None:
        """Count control frames as messages; there is no way to refuse one but to close."""
        pace, now = self._hub.pace, self._heard
        if not controls or not pace.gap:
            return
        self._paid = max(self._paid, now) + controls * pace.gap
        if self._paid - now > 2 * pace.slack and self._paid - self._hub.look_at_clock() > 2 * pace.slack:
            raise Refused(CloseCode.TOO_MANY, "too many control frames")

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
        """Act on one whole message. Raises Refused."""

    @abstractmethod
    def _open_quickly(self, data: bytes) -> bool:
        """Take a whole handshake that is usual in every way; False when it is not."""

    def _handshake(self, parser: ServerProtocol, size: int) -> None:
        """Go on with the handshake, after so many more bytes."""

    def _pass_on(self, parser: ServerProtocol) -> None:
        """Write what the parser wants written, but for pongs, which went out in their place."""
        for data in parser.data_to_send():
            if not data:
                self._last_word(b"")
            elif self._parser is not None and not is_pong(data):
                self._put(data)

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
