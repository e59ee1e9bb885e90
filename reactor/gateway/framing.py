"""The little of RFC 6455 that is worth writing by hand.

Everything else about frames is left to websockets' Sans-I/O parser. By hand are: framing a message once for
many sockets, putting fragments together within bounds, and knowing when a parser holds nothing of its
connection, so that it may serve another.
"""

import codecs
import struct
from typing import Any

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from reactor.protocol.closing import CloseCode

TEXT = 0x80 | Opcode.TEXT
"""First byte of a whole text message: FIN and the opcode (RFC 6455 section 5.2)."""
BINARY = 0x80 | Opcode.BINARY
"""First byte of a whole binary message."""
MAX_FRAGMENTS = 16
"""Fragments that one message may come in."""

_PONG = 0x80 | Opcode.PONG
_PONG_BYTE = bytes((_PONG,))
_MAX_REASON = 123  # a control frame carries 125 bytes, of which two are the code (RFC 6455 section 5.5)
_SHORT_TEXT = tuple(bytes((TEXT, size)) for size in range(126))
_SHORT_BINARY = tuple(bytes((BINARY, size)) for size in range(126))
_AT_FRAME_START = StreamReader.at_eof.__code__


def frame(payload: bytes, *, binary: bool = False) -> bytes:
    """Frame a whole message as a server does: one frame, no mask, no extension (RFC 6455 section 5.2).

    Equal to websockets' `Frame.serialize`, at a tenth of its cost for a short message.
    """
    return frame_header(len(payload), binary=binary) + payload


def frame_header(size: int, *, binary: bool = False) -> bytes:
    """What stands before a whole message of so many bytes."""
    if size < 126:
        return (_SHORT_BINARY if binary else _SHORT_TEXT)[size]
    first = BINARY if binary else TEXT
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def close_frame(code: int, reason: str) -> bytes:
    """Frame a close with its reason, cut to what a control frame can hold (RFC 6455 section 5.5.1)."""
    return Frame(Opcode.CLOSE, Close(code, short_reason(reason)).serialize()).serialize(mask=False)


def short_reason(reason: str) -> str:
    """Cut a reason to the 123 bytes of a close frame, at a character's edge."""
    return reason.encode(errors="replace")[:_MAX_REASON].decode(errors="ignore")


def pong(data: bytes) -> bytes:
    """Frame the answer to a ping: its own data (RFC 6455 section 5.5.3)."""
    return bytes((_PONG, len(data))) + data


def is_pong(data: bytes) -> bool:
    """Whether these framed bytes are a pong."""
    return data[:1] == _PONG_BYTE


def at_frame_start(parser: ServerProtocol) -> bool:
    """Whether a parser has read whole frames (or a whole handshake) and not a byte more.

    An empty buffer is not enough: the parser may wait in the middle of a header. So the coroutine in which it
    waits is looked at; one that is unknown here counts as the middle of a frame, which is slower but right.
    """
    if parser.reader.buffer:
        return False
    waiting: Any = parser.parser
    while waiting.gi_yieldfrom is not None:
        waiting = waiting.gi_yieldfrom
    return bool(waiting.gi_code is _AT_FRAME_START)


def at_rest(parser: ServerProtocol) -> bool:
    """Whether a parser stands between two messages and holds nothing of either: it equals a fresh one."""
    return (
        parser.state is OPEN
        and parser.current_size is None
        and not parser.extensions
        and not parser.events
        and not parser.writes
        and at_frame_start(parser)
    )


class Refused(Exception):
    """The peer broke a rule: `code` is what to close with, and the text is the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Fragments:
    """One message that comes in several frames.

    Its size is bounded by the parser (`max_size` counts over fragments), their number here: empty fragments
    cost memory too. Text is decoded as it comes, so that bad UTF-8 ends the connection at once (RFC 6455
    section 8.1).
    """

    __slots__ = ("_decoder", "_limit", "_parts", "binary")

    def __init__(self, *, binary: bool, limit: int = MAX_FRAGMENTS) -> None:
        self.binary = binary
        self._limit = limit
        self._parts: list[bytes] = []
        self._decoder = None if binary else codecs.getincrementaldecoder("utf-8")()

    def add(self, data: bytes, *, fin: bool) -> bytes | None:
        """Take the next fragment; give the whole message when it was the last.

        Raises:
            Refused: 1008 for too many fragments, 1007 for text that is not UTF-8.

        """
        if len(self._parts) == self._limit:
            raise Refused(CloseCode.POLICY, f"a message may have {self._limit} fragments")
        self._parts.append(data)
        if self._decoder is not None:
            try:
                self._decoder.decode(data, final=fin)
            except UnicodeDecodeError:
                raise Refused(CloseCode.NOT_UTF8, "text that is not UTF-8") from None
        return b"".join(self._parts) if fin else None


def check_text(payload: bytes) -> None:
    """Refuse text that is not UTF-8 with 1007 (RFC 6455 section 8.1); `isascii` answers nearly always."""
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise Refused(CloseCode.NOT_UTF8, "text that is not UTF-8") from None
