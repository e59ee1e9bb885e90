"""The outgoing half of a socket: what waits, what is written, and how the last word is said.

All that is sent in one turn of the loop goes out by one write, at its end. The bound on what waits is the
outbox's; what crosses it ends the socket here.
"""

import asyncio
from enum import IntEnum
from typing import cast

import structlog

from reactor.gateway.framing import close_frame
from reactor.gateway.manager import Hub
from reactor.gateway.outbox import FLUSH_NOW, FLUSH_SOON, TOO_SLOW, Outbox
from reactor.gateway.timing_wheel import NOWHERE
from reactor.protocol.closing import CloseCode

log = structlog.get_logger(__name__)


class State(IntEnum):
    """Where a socket is in its life; it only moves forward."""

    CONNECTING = 0  # no handshake yet
    OPEN = 1  # messages flow
    CLOSING = 2  # the last was said: a close frame or an HTTP answer is on its way
    GONE = 3  # the transport is closed, or was told to be


CONNECTING, OPEN, CLOSING, GONE = State


class Wire(asyncio.Protocol):
    """A socket as far as it is written to. `slot` is the wheel's, `socket_id` the handler's."""

    __slots__ = ("_hub", "_outbox", "_transport", "slot", "socket_id", "state")

    _transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._outbox = Outbox(hub.send_buffer)
        self.state = CONNECTING
        self.socket_id = ""
        self.slot = NOWHERE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """Learn that the socket has stopped taking."""
        self._outbox.blocked = True

    def resume_writing(self) -> None:
        """Learn that it takes again."""
        self._outbox.blocked = False
        self._write_out()

    def flush(self) -> None:
        """Write what waits, in one call, unless the socket has stopped taking."""
        if not self._outbox.blocked:
            self._write_out()

    def abort(self) -> None:
        """Cut the socket off; what was not yet written is lost."""
        if self.state is not GONE:
            self.state = GONE
            self._let_go()
            self._transport.abort()

    def time_is_up(self) -> None:
        """See to a deadline that has passed: the opening or the closing handshake took too long."""
        self.abort()

    def _put(self, data: bytes, *rest: bytes) -> None:
        verdict = self._outbox.put(data, *rest)
        if verdict is FLUSH_SOON:
            self._hub.flush_soon(self)
        elif verdict is FLUSH_NOW:
            self._write_out()
        elif verdict is TOO_SLOW:
            self._hub.counts.too_slow += 1
            log.info("a client does not read", socket_id=self.socket_id, waiting=self._outbox.size)
            self._outbox.take()
            self._last_word(close_frame(CloseCode.TOO_SLOW, "too slow to read"))

    def _write_out(self) -> None:
        frames = self._outbox.take()
        if self._transport.is_closing():
            return
        if len(frames) == 1:
            self._transport.write(frames[0])
        elif frames:
            self._transport.writelines(frames)

    def _last_word(self, data: bytes) -> None:
        """Write everything that waits and this, and half-close; hear nothing more."""
        self._close_soon()
        self._write_out()
        self._let_go()
        if self._transport.is_closing():
            return
        if data:
            self._transport.write(data)
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _close_soon(self) -> None:
        """Begin to close: from here on nothing is sent, and the close time-out runs."""
        if self.state < CLOSING:
            self.state = CLOSING
            self._hub.closing(self)

    def _let_go(self) -> None:
        """Release what is held for the peer: nothing that it says matters any more."""
        self._outbox.take()
