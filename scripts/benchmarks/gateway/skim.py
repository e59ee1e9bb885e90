"""Reads the heads of long messages without storing the rest: all sockets share one buffer.

picows keeps each message until it is whole, in a buffer of the socket's own: 5,000 snapshots of 5,000 members
would be gigabytes of the load generator's memory, and the time to fill them more than the server takes.
"""

import asyncio
from collections.abc import Callable

HEAD = 512
_BUFFER = memoryview(bytearray(256 * 1024))
_TEXT, _CLOSE = 0x81, 0x88


class Skimmer(asyncio.BufferedProtocol):
    """Replaces the protocol of picows on a socket after its handshake.

    Args:
        heard: Called with the head of each text message (up to HEAD bytes) and its size.
        closed: Called when the server closes, with its code; or with 0 when the connection is lost.
        whole: Messages up to this size are handed over whole.

    """

    def __init__(
        self, on_message: Callable[[bytes, int], None], closed: Callable[[int], None], whole: int = HEAD
    ) -> None:
        self._heard, self._closed, self._whole = on_message, closed, whole
        self._header = b""  # of an incomplete frame
        self._kind = self._size = self._left = 0
        self._head = b""
        self._missing = 0  # bytes of its head that are still missing

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the shared buffer; its contents are processed at once."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Process the received bytes."""
        place = 0
        # Most received bytes are from the middle of a list and are skipped.
        if self._left > nbytes and not self._missing:
            self._left -= nbytes
            return
        while place < nbytes:
            if not self._left:
                place = self._begin(place, nbytes)
                continue
            end = min(place + self._left, nbytes)
            if self._missing:
                part = bytes(_BUFFER[place : min(place + self._missing, end)])
                self._missing -= len(part)
                self._head = self._head + part if self._head else part
            self._left -= end - place
            place = end
            if not self._left:
                self._frame()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Report the end of the connection."""
        self._closed(0)

    def _begin(self, place: int, end: int) -> int:
        """Parse a frame header if it is complete (RFC 6455 section 5.2); a server sends no mask."""
        before = len(self._header)
        header = bytes(_BUFFER[place : min(place + 10, end)])
        if before:
            header = self._header + header
        size = header[1] & 127 if len(header) > 1 else 0
        length = 2 if size < 126 else 4 if size == 126 else 10
        if len(header) < length:
            self._header = header
            return end
        self._kind = header[0]
        self._size = self._left = size if size < 126 else int.from_bytes(header[2:length])
        self._header = self._head = b""
        self._missing = min(self._left, self._whole)
        if not self._left:
            self._frame()
        return place + length - before

    def _frame(self) -> None:
        if self._kind == _TEXT:
            self._heard(self._head, self._size)
        elif self._kind == _CLOSE:
            self._closed(int.from_bytes(self._head[:2]))
