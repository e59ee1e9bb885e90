"""Accepts, registers and removes the connections of a gateway."""

import asyncio

import structlog
from websockets.http11 import Request, Response

from reactor.gateway.admission import Admission
from reactor.gateway.auth import Authenticator, AuthMiddleware, Objection, RefusedLogin
from reactor.gateway.connection import Connection
from reactor.gateway.context import ConnectionCounts, GatewayContext
from reactor.gateway.fds import max_sockets
from reactor.gateway.handler import Handler
from reactor.gateway.http import Site
from reactor.protocol.auth_session import AuthSession
from reactor.protocol.session import Session
from reactor.settings import Settings

log = structlog.get_logger(__name__)


class ConnectionManager:
    """The connections of one gateway.

    Attributes:
        context: What they share.
        connections: Open connections.
        pending: Connections in the handshake, and plain HTTP requests.
        stopping: New connections are aborted.
        empty: Set while there is no connection at all.
        admission: Decides which connections may open.
        auth: Checks tokens; None if the server asks for none.

    """

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        connections: set[Connection],
        counts: ConnectionCounts,
        authenticator: Authenticator | None = None,
        objection: Objection = lambda _user_id, _issued_at: None,
        refused_login: RefusedLogin = lambda _user_id, _request_id: None,
    ) -> None:
        self.context = context = GatewayContext(settings, counts)
        self.handler = handler
        self.auth: AuthMiddleware | None = None
        context.manager, context.session_class = self, Session
        if authenticator is not None:
            self.handler = self.auth = AuthMiddleware(
                handler, authenticator, context, timeout=settings.auth_timeout, grace=settings.auth_grace,
                max_per_user=settings.max_per_user, max_message=settings.max_message,
                objection=objection, refused_login=refused_login,
            )  # fmt: skip
            context.session_class, context.keep_early = AuthSession, self.auth.keep_early
        context.handler = self.handler
        self.connections = connections
        self.pending: set[Connection] = set()
        self._unsettled: set[Connection] = set()
        self.stopping = False
        self.empty = asyncio.Event()
        self.empty.set()
        self.admission = Admission(
            settings,
            Site(handler.ready),
            limit=settings.max_connections or max_sockets(),
            occupied=lambda: len(self.connections) + len(self.pending),
            verify=authenticator.verify if authenticator else lambda _token: None,
            rejected=counts.rejected,
        )

    async def stop(self) -> None:
        """Abort every connection, and return when the last has been removed."""
        for connection in [*self.connections, *self.pending]:
            connection.abort()
        await self.empty.wait()
        if self.auth is not None:
            await self.auth.stop()
        self.context.stop()

    def accept(self, connection: Connection, peer: str) -> None:
        """Start the handshake of a new connection and its time-out; abort it if there is no place."""
        context = self.context
        handshake = None if self.stopping else self.admission.accept(peer, context.now)
        if handshake is None:
            connection.abort()
            return
        connection.handshake, connection.address = handshake, handshake.address
        self.empty.clear()
        self.pending.add(connection)
        context.wheel.schedule(connection, context.update_clock() + context.open_timeout)

    def respond(self, connection: Connection, request: Request) -> Response | None:
        """Return the HTTP response to a connection's request; None if the WebSocket may open."""
        handshake = connection.handshake
        assert handshake is not None
        response = self.admission.respond(request, handshake, self.context.now)
        connection.address = handshake.address
        return response

    def note_proxy_protocol(self, connection: Connection) -> None:
        """Take note of a connection that began with the PROXY protocol, which is not supported."""
        handshake = connection.handshake
        if handshake is not None:
            self.admission.proxies.proxy_protocol(handshake.peer, trusted=handshake.address is None)

    def settled(self, connection: Connection) -> None:
        """Note that a connection has joined a room or shown a token: it has no smaller limit any more."""
        if connection in self._unsettled:
            self._unsettled.discard(connection)
            if connection.address is not None:
                self.admission.settle(connection.address)

    def opened(self, connection: Connection) -> None:
        """Register a connection whose handshake is complete, and notify the handler."""
        context = self.context
        self.pending.discard(connection)
        self.connections.add(connection)
        context.counts.opened += 1
        context.wheel.cancel(connection)
        if context.ping_interval:
            context.wheel.schedule(connection, context.now + context.ping_interval)
        if connection.address is not None:
            self._unsettled.add(connection)
        try:
            self.handler.opened(connection)
        except Exception:
            log.exception("handler_failed", method="opened")
            connection.abort()
        connection.handshake = None

    def closed(self, connection: Connection) -> None:
        """Remove a connection, and notify the handler if the connection was open."""
        self.context.wheel.cancel(connection)
        self.pending.discard(connection)
        self.settled(connection)
        self.admission.release(connection.address, connection.handshake)
        connection.address = connection.handshake = None
        if connection in self.connections:
            self.connections.discard(connection)
            try:
                self.handler.closed(connection)
            except Exception:
                log.exception("handler_failed", method="closed", socket_id=connection.socket_id)
        if not self.connections and not self.pending:
            self.empty.set()
