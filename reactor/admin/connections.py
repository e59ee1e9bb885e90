"""The connections of the admin port: a deadline for each part of a request, and who keeps a place.

uvicorn has neither: it stops its keep-alive timer at the first byte of a request, and waits without limit
for the rest of it, for a body, and for a client that does not read. Here a connection that takes too long is
closed. Where places run short, the oldest connection that has not shown the key makes room for a new one, so
that a client without the key cannot keep out an operator who has it.
"""

import asyncio
from collections import Counter
from enum import Enum
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from reactor.gateway.addresses import counted_address
from reactor.log import RateLimitedLog

MAX_CONNECTIONS = 200
"""Connections at the same time. Beyond them the oldest one without the key is closed; when all have shown it,
a request on a new one is answered with 503."""
MAX_PER_ADDRESS = 32
"""Connections of one address (IPv6: of one /64 network) that have not shown the key; a further one closes the
oldest of them."""
HEAD_TIMEOUT = 10.0
"""Seconds from a new connection, or the end of a response, to the end of the next request's head."""
KEEP_ALIVE = 5
"""Seconds after a response in which the next request must begin."""
BODY_TIMEOUT = 12.0
"""Seconds for a body. The API itself answers with 408 earlier; this holds where nothing reads the body."""
WRITE_TIMEOUT = 30.0
"""Seconds in which a client must have read the response."""

_TICK = 0.25  # seconds between two checks of the deadlines


class _Stage(Enum):
    """What a connection waits for."""

    HEAD = "head"
    BODY = "body"
    HANDLER = "handler"  # the handlers limit their time themselves
    WRITE = "write"


class AdminConnection(H11Protocol):
    """One connection of the admin port.

    Attributes:
        address: The address that it is counted under.
        key_shown: Whether a request on it has had the key.

    """

    def __init__(
        self,
        places: "Places",
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # The app finds the connection in the scope's `state`.
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self._places = places
        self.address = ""
        self.key_shown = False
        self._waits_for: tuple[_Stage, object] = _Stage.HEAD, None
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place."""
        super().connection_made(transport)
        self.address = counted_address(self.client[0] if self.client else "")
        self._since = self.loop.time()
        self._places.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._places.remove(self)
        super().connection_lost(exc)

    def is_late(self, now: float) -> bool:
        """Return whether the present stage has taken longer than it may."""
        stage = self._stage()
        waits_for = stage, self.cycle  # uvicorn creates a cycle for each request
        if waits_for != self._waits_for:
            self._waits_for, self._since = waits_for, now
        limits = {_Stage.HEAD: HEAD_TIMEOUT, _Stage.BODY: BODY_TIMEOUT, _Stage.WRITE: WRITE_TIMEOUT}
        return stage in limits and now - self._since >= limits[stage]

    def _stage(self) -> _Stage:
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            return _Stage.WRITE
        if self.conn.their_state is h11.SEND_BODY:
            return _Stage.BODY
        answered = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        return _Stage.HEAD if answered else _Stage.HANDLER


class Places:
    """The open connections of one admin port.

    Args:
        cut: Counts the connections that are closed here, by reason: `late`, `address` or `full`.

    """

    def __init__(self, cut: Counter[str]) -> None:
        self._open: dict[AdminConnection, None] = {}  # in the order in which they came
        self._cut = cut
        self._log = RateLimitedLog()
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.call_later(_TICK, self._tick)

    def stop(self) -> None:
        """Check no more deadlines."""
        self._ticker.cancel()

    def add(self, connection: AdminConnection) -> None:
        """Give a connection a place, where necessary that of another one."""
        without_key = [each for each in self._open if not each.key_shown]
        of_address = [each for each in without_key if each.address == connection.address]
        if len(of_address) >= MAX_PER_ADDRESS:
            self._close(of_address[0], "address")
        elif len(self._open) >= MAX_CONNECTIONS and without_key:
            self._close(without_key[0], "full")
        self._open[connection] = None

    def remove(self, connection: AdminConnection) -> None:
        """Free the place of a connection that is closed."""
        self._open.pop(connection, None)

    def _close(self, connection: AdminConnection, reason: str) -> None:
        self.remove(connection)
        self._cut[reason] += 1
        self._log.warning(
            "admin_connection_cut", self._loop.time(), reason=reason, address=connection.address
        )
        connection.transport.abort()

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_TICK, self._tick)
        now = self._loop.time()
        for connection in [each for each in self._open if each.is_late(now)]:
            self._close(connection, "late")
