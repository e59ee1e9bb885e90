"""The small part of RFC 6455 that is implemented here; websockets' Sans-I/O parser does the rest.

Implemented here are: framing a message once for many connections, joining fragments within bounds, and
detecting that a parser holds no state of its connection, so that another connection may use it.
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
"""First byte of a complete text message: FIN and the opcode (RFC 6455 section 5.2)."""
BINARY = 0x80 | Opcode.BINARY
"""First byte of a complete binary message."""
MAX_FRAGMENTS = 16
"""Fragments that one message may have."""

_PONG = 0x80 | Opcode.PONG
_PONG_BYTE = bytes((_PONG,))
_MAX_REASON = 123  # a control frame carries 125 bytes, of which two are the code (RFC 6455 section 5.5)
_SHORT_TEXT = tuple(bytes((TEXT, size)) for size in range(126))
_SHORT_BINARY = tuple(bytes((BINARY, size)) for size in range(126))
_AT_FRAME_START = StreamReader.at_eof.__code__


def frame(payload: bytes, *, binary: bool = False) -> bytes:
    """Return a complete message in one frame, without mask and extension (RFC 6455 section 5.2).

    Equal to websockets' `Frame.serialize`, at a tenth of its cost for a short message.
    """
    return frame_header(len(payload), binary=binary) + payload


def frame_header(size: int, *, binary: bool = False) -> bytes:
    """Return the header of a complete message of `size` bytes."""
    if size < 126:
        return (_SHORT_BINARY if binary else _SHORT_TEXT)[size]
    first = BINARY if binary else TEXT
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; the reason is cut to what a control frame can hold (RFC 6455 section 5.5.1)."""
    return Frame(Opcode.CLOSE, Close(code, short_reason(reason)).serialize()).serialize(mask=False)


def short_reason(reason: str) -> str:
    """Return a reason cut to the 123 bytes of a close frame, between two characters."""
    return reason.encode(errors="replace")[:_MAX_REASON].decode(errors="ignore")


def pong(data: bytes) -> bytes:
    """Return the frame that answers a ping with its data (RFC 6455 section 5.5.3)."""
    return bytes((_PONG, len(data))) + data


def is_pong(data: bytes) -> bool:
    """Return whether a serialized frame is a pong."""
    return data[:1] == _PONG_BYTE


def at_frame_start(parser: ServerProtocol) -> bool:
    """Return whether a parser has read complete frames (or a complete handshake) and not a byte more.

    An empty buffer is not enough: the parser may wait in the middle of a header. So the coroutine that it
    waits in is examined; an unknown one counts as the middle of a frame, which is slower but correct.
    """
    if parser.reader.buffer:
        return False
    waiting: Any = parser.parser
    while waiting.gi_yieldfrom is not None:
        waiting = waiting.gi_yieldfrom
    return bool(waiting.gi_code is _AT_FRAME_START)


def at_rest(parser: ServerProtocol) -> bool:
    """Return whether a parser is between two messages and equals a new one."""
    return (
        parser.state is OPEN
        and parser.current_size is None
        and not parser.extensions
        and not parser.events
        and not parser.writes
        and at_frame_start(parser)
    )


class CloseConnection(Exception):
    """The client violated a rule: the connection closes with `code`, and the text as the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Fragments:
    """A message received in several frames.

    The parser bounds its size (`max_size` counts over fragments), and this class the number of frames:
    empty fragments use memory too. Text is decoded as it arrives, so that invalid UTF-8 closes the
    connection at once (RFC 6455 section 8.1).
    """

    __slots__ = ("_decoder", "_limit", "_parts", "binary")

    def __init__(self, *, binary: bool, limit: int = MAX_FRAGMENTS) -> None:
        self.binary = binary
        self._limit = limit
        self._parts: list[bytes] = []
        self._decoder = None if binary else codecs.getincrementaldecoder("utf-8")()

    def add(self, data: bytes, *, fin: bool) -> bytes | None:
        """Add the next fragment; return the complete message if it was the last.

        Raises:
            CloseConnection: 1008 for too many fragments, 1007 for text that is not UTF-8.

        """
        if len(self._parts) == self._limit:
            raise CloseConnection(CloseCode.POLICY, f"a message may have at most {self._limit} fragments")
        self._parts.append(data)
        if self._decoder is not None:
            try:
                self._decoder.decode(data, final=fin)
            except UnicodeDecodeError:
                raise CloseConnection(CloseCode.NOT_UTF8, "text is not valid UTF-8") from None
        return b"".join(self._parts) if fin else None


def check_text(payload: bytes) -> None:
    """Raise CloseConnection 1007 for text that is not UTF-8 (RFC 6455 section 8.1)."""
    if not payload.isascii():  # the fast check, true for nearly all messages
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise CloseConnection(CloseCode.NOT_UTF8, "text is not valid UTF-8") from None
