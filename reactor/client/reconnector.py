"""Keeps a client connected: opens one connection after another, and renews the token while one is open.

When a connection has ended, `_next` either reconnects after a delay, waits until there is something to
reconnect for (the server closes a connection that is in no room any more, with 4003), or gives up for good.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, time
from typing import Protocol

import anyio
from msgspec import UNSET

from reactor.client.backoff import Backoff, ReconnectDelays
from reactor.client.delivery import ChangeNotifier
from reactor.client.dial import Dialer, closed_by_server
from reactor.client.open_connection import ConnectionLost, OpenConnection, refusal
from reactor.client.status import Status
from reactor.errors import ConnectionClosed, ReactorError, Refused, RequestTimedOut, TokenFailed
from reactor.protocol.closing import CloseCode, may_return
from reactor.protocol.messages import (
    AuthOk,
    ErrorMessage,
    HeartbeatDue,
    MessageLimits,
    RoomJoined,
    ServerMessage,
    ServiceDegraded,
    ServiceRestored,
)
from reactor.protocol.requests import Auth, Request

log = logging.getLogger(__name__)

RENEW_BEFORE = 60.0
"""Seconds before a token expires at which a fresh one is sent; with less than twice that left, half of it."""

RENEW_RETRY = 10.0
"""Seconds until the next attempt when a token could not be renewed."""

RENEW_FLOOR = 5.0
"""Least seconds between two renewals, whatever the lives of tokens look like by this machine's clock."""


class ConnectionListener(Protocol):
    """What is notified of the connections: the memberships of a client."""

    def __len__(self) -> int:
        """Return the number of memberships, for which to reconnect."""
        ...

    async def rejoin_all(self, connection: OpenConnection) -> None:
        """Rejoin the rooms on a new connection; runs beside it."""

    def receive(self, connection: OpenConnection, message: ServerMessage) -> None:
        """Handle a message of the server."""

    def connection_lost(self) -> None:
        """Note that the connection was lost."""


class TokenRenewal:
    """Sends a fresh token before the present one expires."""

    def __init__(self, dialer: Dialer, timeout: float, on_failure: Callable[[TokenFailed], None]) -> None:
        """Call `on_failure` when the token function fails. timeout: seconds that a reply may take."""
        self._dialer = dialer
        self._timeout = timeout
        self._on_failure = on_failure
        self._due = float("inf")
        self._last = float("-inf")  # when the last renewal began
        self._changed = ChangeNotifier()

    def accepted(self, message: AuthOk) -> None:
        """Schedule the next renewal: the server has accepted a token."""
        left = _seconds_left(message)
        # By a wall clock that is ahead the token has expired already; then the server asks for a fresh one.
        self._schedule(monotonic() + max(left / 2, left - RENEW_BEFORE) if left > 0 else float("inf"))

    def renew_now(self) -> None:
        """Renew at once: the server has sent that the token expired."""
        self._schedule(float("-inf"))

    async def run(self, connection: OpenConnection) -> None:
        """Renew tokens on a connection; runs beside it."""
        while self._dialer.can_renew:
            if (wait := max(self._due, self._last + RENEW_FLOOR) - monotonic()) > 0:
                with anyio.move_on_after(wait):
                    await self._changed.wait()
                continue
            self._due, self._last = float("inf"), monotonic()
            try:
                token = await self._dialer.fresh_token()
                with anyio.fail_after(self._timeout):
                    # The reply schedules the next renewal.
                    await connection.ask(Auth(token or ""))
            except ConnectionLost:
                return
            except (ReactorError, TimeoutError) as error:
                if isinstance(error, TokenFailed):
                    self._on_failure(error)
                if _is_permanent(error):
                    return
                log.info("the token was not renewed: %s", error)
                self._due = monotonic() + RENEW_RETRY

    def _schedule(self, due: float) -> None:
        self._due = due
        self._changed.notify()


def _seconds_left(message: AuthOk) -> float:
    """Return the seconds until the token expires; negative where that is unknown or never."""
    if message.expires_in is not None:
        return message.expires_in / 1000
    return -1.0 if message.expires_at is None else message.expires_at / 1000 - time()


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, TokenFailed) and error.permanent


class Reconnector:
    """The client's connection to its server, across reconnects.

    Attributes:
        status: The status of the connection.
        error: Why the latest attempt to connect failed; None once one has succeeded.
        limits: What the server takes, in bytes; None until it has said so.
        end: Why there will be no connection any more; None until then.
        request_timeout: Seconds that a reply may take; also that to a heartbeat, before the connection is
            given up.

    """

    def __init__(
        self, dialer: Dialer, *, backoff: Backoff, interval: float | None, request_timeout: float
    ) -> None:
        """interval: seconds between heartbeats, or None for the server's interval."""
        self.status = Status.CONNECTING
        self.error: ReactorError | None = None
        self.limits: MessageLimits | None = None
        self.end: ConnectionClosed | None = None
        self.request_timeout = request_timeout
        self._dialer = dialer
        self._delays = ReconnectDelays(backoff, random.uniform)
        self._interval = interval
        self._listener: ConnectionListener
        self._on_status: Callable[[], None] = lambda: None
        self._on_error: Callable[[ReactorError], None] = lambda _: None
        self._renewal = TokenRenewal(dialer, request_timeout, self._token_failed)
        self._connection: OpenConnection | None = None
        self._needed = False
        self._banned: ReactorError | None = None  # from every room, as the server said on this connection
        self._changed = ChangeNotifier()

    def set_listener(
        self,
        listener: ConnectionListener,
        on_status: Callable[[], None],
        on_error: Callable[[ReactorError], None],
    ) -> None:
        """Set what is notified of the connections.

        Args:
            listener: Receives messages, and is notified of new and lost connections.
            on_status: Called when the status has changed.
            on_error: Called with the error of an attempt to connect that failed.

        """
        self._listener, self._on_status, self._on_error = listener, on_status, on_error

    # Requests.

    async def connection(self) -> OpenConnection:
        """Return the open connection, once there is one.

        Raises:
            ConnectionClosed: There will be none.

        """
        while True:
            if self.end is not None:
                raise ConnectionClosed(str(self.end), self.end.code, self.end.until)
            if self._connection is not None and not self._connection.lost:
                return self._connection
            self._needed = True
            self._changed.notify()
            await self._changed.wait()

    async def ask(self, request: Request, what: str) -> ServerMessage:
        """Send a request, again after a reconnect if need be, and return its reply.

        Args:
            request: A request that may be processed twice.
            what: Its name for error messages.

        Raises:
            RequestTimedOut: There was no reply, or no connection, in time.
            ReactorError: It was refused, or there will be no connection.

        """
        with self.deadline(what):
            while True:
                connection = await self.connection()
                try:
                    return (await connection.ask(request))[0]
                except ConnectionLost:
                    continue

    def post(self, request: Request) -> None:
        """Send a request without waiting for its reply, if there is a connection."""
        if self._connection is not None:
            self._connection.post(request)

    @contextmanager
    def deadline(self, what: str) -> Iterator[None]:
        """Limit the block to `request_timeout`.

        Raises:
            RequestTimedOut: The block took longer; the message names `what`.

        """
        try:
            with anyio.fail_after(self.request_timeout):
                yield
        except RequestTimedOut:
            raise
        except TimeoutError as error:
            url, seconds = self._dialer.url, self.request_timeout
            if self._connection is None:
                raise RequestTimedOut(f"no connection to {url} for {what} within {seconds:g} s") from error
            raise RequestTimedOut(f"no reply to {what} from {url} within {seconds:g} s") from error

    def set_interval(self, interval: float) -> None:
        """Set the server's time between heartbeats (s), unless the client has its own."""
        if self._connection is not None and self._interval is None:
            self._connection.set_interval(interval)

    # Life cycle.

    async def open(self) -> OpenConnection:
        """Open a connection, to be passed to `serve`. Raises as `Dialer.open`."""
        socket, early = await self._dialer.open()
        self._banned = None
        connection = OpenConnection(socket, self._receive, heartbeat_timeout=self.request_timeout)
        connection.limits = self.limits
        if self._interval is not None:
            connection.set_interval(self._interval)
        connection.answered = any(not isinstance(message, ErrorMessage) for message in early)
        for message in early:
            self._receive(connection, message)
        return connection

    async def serve(self, connection: OpenConnection) -> None:
        """Serve a connection and those after it, until there will be no other."""
        while True:
            code = await self._serve_one(connection)
            if self.end is not None:
                return
            following = await self._next(code, connection)
            if following is None:
                return
            connection = following

    async def close(self, within: float) -> None:
        """Close for good, with a handshake of at most `within` seconds."""
        self.give_up(ConnectionClosed("the client is closed", CloseCode.NORMAL))
        if self._connection is not None:
            await self._connection.close(within)

    def give_up(self, end: ConnectionClosed) -> None:
        """Make no other connection from here on; the first reason counts."""
        if self.end is None:
            self.end = end
            self._set_status(Status.CLOSED)

    async def _serve_one(self, connection: OpenConnection) -> int:
        self._connection = connection
        self._needed = False
        self.error = None
        self._set_status(connection.status)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listener.rejoin_all, connection)
                tasks.start_soon(self._renewal.run, connection)
                code = await connection.run()
                tasks.cancel_scope.cancel()
            if self.end is None and self._is_final(code):
                # Before the rooms are notified of the loss, so that they end and do not wait for a reconnect.
                self._failed(closed_by_server(code, connection.close_reason))
            elif self.end is None and code == CloseCode.FORCE_LEAVE and self._banned is not None:
                self._failed(self._banned)
        finally:
            self._connection = None
            self._listener.connection_lost()
            await connection.abort()
        return code

    async def _next(self, code: int, connection: OpenConnection) -> OpenConnection | None:
        log.info("connection lost (close code %d)", code)
        if code != CloseCode.FORCE_LEAVE:
            self.error = closed_by_server(code, connection.close_reason)
            self._on_error(self.error)
        if code == CloseCode.FORCE_LEAVE and not self._listener:
            self._set_status(Status.IDLE)
            while not self._needed:
                await self._changed.wait()
            return await self._reconnect(0.0)
        lasted = monotonic() - connection.opened_at
        delay = self._delays.after_connection(
            code, lasted, answered=connection.answered, released=connection.released
        )
        return await self._reconnect(delay)

    def _is_final(self, code: int) -> bool:
        renewable = code == CloseCode.UNAUTHORISED and self._dialer.can_renew
        return not (may_return(code) or renewable or code == CloseCode.FORCE_LEAVE)

    async def _reconnect(self, delay: float) -> OpenConnection | None:
        self._set_status(Status.RECONNECTING)
        while True:
            await anyio.sleep(delay)
            try:
                return await self.open()
            except ReactorError as error:
                log.info("%s", error)
                self._failed(error)
                if self.end is not None:
                    return None
            delay = self._delays.after_failure()

    def _failed(self, error: ReactorError) -> None:
        """Note why an attempt to connect failed, and give up where the error says so."""
        self.error = error
        if isinstance(error, ConnectionClosed) and not may_return(error.code):
            self.give_up(error)
        elif _is_permanent(error):
            self.give_up(ConnectionClosed(str(error), CloseCode.UNAUTHORISED))
        elif isinstance(error, Refused) and error.code == "banned":
            self.give_up(ConnectionClosed(str(error), CloseCode.FORCE_LEAVE, error.until))
        self._on_error(error)

    def _token_failed(self, error: TokenFailed) -> None:
        self._failed(error)
        if self.end is not None and self._connection is not None:
            self._connection.drop()

    def _receive(self, connection: OpenConnection, message: ServerMessage) -> None:
        if isinstance(message, ServiceDegraded | ServiceRestored):
            connection.degraded = isinstance(message, ServiceDegraded)
            if self.end is None:
                self._set_status(connection.status)
            if not connection.degraded:
                connection.heartbeat_now()
        elif isinstance(message, RoomJoined) and message.limits is not UNSET:
            self.limits = connection.limits = message.limits
        elif isinstance(message, HeartbeatDue):
            connection.heartbeat_now()
        elif isinstance(message, AuthOk):
            self.error = None
            self._renewal.accepted(message)
        elif isinstance(message, ErrorMessage) and message.code == "token_expired" and message.id is None:
            self._renewal.renew_now()
        elif isinstance(message, ErrorMessage) and message.code == "banned" and message.room_id is None:
            self._banned = refusal(message)
        self._listener.receive(connection, message)

    def _set_status(self, status: Status) -> None:
        if status is not self.status:
            self.status = status
            self._on_status()
        self._changed.notify()
