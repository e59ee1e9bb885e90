"""The gateway: listens for clients, and closes all connections when the node stops."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from reactor.gateway.auth import Authenticator, Objection, RefusedLogin
from reactor.gateway.connection import Connection
from reactor.gateway.context import ConnectionCounts
from reactor.gateway.handler import Handler
from reactor.gateway.listening import bind_sockets, explain
from reactor.gateway.manager import ConnectionManager
from reactor.gateway.tls import Certificate, TlsLayer
from reactor.protocol.closing import CloseCode
from reactor.settings import Settings

_BACKLOG = 4096  # the kernel caps it at net.core.somaxconn; after a deploy all clients reconnect at once
_CLOSE_INTERVAL = 0.05  # seconds between two batches of a close that is spread over time
_BATCH = 1000  # connections closed before other callbacks of the event loop get their turn


class Gateway:
    """WebSockets, and a page and two probes over HTTP, on one port.

    objection: whether a token was revoked, see `Objection`. refused_login: whether a user is banned, see
    `RefusedLogin`.

    Attributes:
        connections: The open connections.
        port: The port that it listens on, once started.
        counts: Counters of its connections.
        certificate: The TLS certificate, if TLS is configured.

    Raises:
        SettingError: The certificate, the keys or the hook for tokens cannot be loaded.

    """

    connection_class: type[Connection] = Connection

    def __init__(
        self, settings: Settings, handler: Handler,
        objection: Objection = lambda _user_id, _issued_at: None,
        refused_login: RefusedLogin = lambda _user_id, _request_id: None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._handler, self._objection, self._refused_login = handler, objection, refused_login
        self._manager: ConnectionManager | None = None
        self._servers: list[asyncio.Server] = []
        self.connections: set[Connection] = set()
        self.port = settings.port
        self.counts = ConnectionCounts()
        self._hurry = asyncio.Event()
        self.certificate = Certificate.from_settings(settings)
        self._authenticator = Authenticator(settings) if settings.requires_tokens else None

    async def start(self, sockets: Sequence[socket.socket] = (), *, admitting: bool = True) -> None:
        """Listen on bound sockets, or on the host and port of the settings (0: any free port).

        admitting: whether WebSockets may open; otherwise they may after `admit`.

        Raises:
            AddressInUse: Another program uses the port.
            SettingError: The host is not an address of this machine, or the port needs privileges.

        """
        loop = asyncio.get_running_loop()
        host, port = self._settings.host, self._settings.port
        bound = sockets or bind_sockets(host, port)
        manager = ConnectionManager(
            self._settings,
            self._handler,
            self.connections,
            self.counts,
            self._authenticator,
            self._objection,
            self._refused_login,
        )
        manager.admission.admitting = admitting
        make = partial(self.connection_class, manager.context)
        factory: Callable[[], asyncio.Protocol] = make
        if self.certificate is not None:
            factory = partial(_tls_connection, make, self.certificate)
        # asyncio's own loop also accepts, and logs errors, this many times in a row when files run out.
        backlog = 100 if isinstance(loop, asyncio.BaseEventLoop) else _BACKLOG
        servers: list[asyncio.Server] = []
        try:
            for sock in bound:
                server = await loop.create_server(factory, sock=sock, backlog=backlog)
                servers.append(server)
        except OSError as error:
            manager.context.stop()
            for server in servers:
                server.close()
            for sock in bound:
                sock.close()
            raise explain(error, host, port) from error
        self._manager, self._servers = manager, servers
        name = servers[0].sockets[0].getsockname()
        # The name of a Unix socket is a path.
        self.port = name[1] if isinstance(name, tuple) else 0

    @property
    def listening(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._manager is not None

    async def drain(self, over_seconds: float) -> None:
        """Admit no more WebSockets, and close those that are open, evenly over some seconds."""
        if self._manager is not None:
            self._manager.admission.admitting = False
            await self._close_all(CloseCode.RESTART, over_seconds)

    def admit(self) -> None:
        """Let WebSockets open from now on."""
        if self._manager is not None:
            self._manager.admission.admitting = True

    def hurry(self) -> None:
        """Have a `stop` that is under way close the remaining connections at once."""
        self._hurry.set()

    @property
    def buffered(self) -> int:
        """The bytes that wait for clients which do not read as fast as they are sent."""
        return self._manager.context.send_budget.used if self._manager is not None else 0

    def reload(self) -> None:
        """Reload the certificate and the keys of tokens; what cannot be read stays as it was."""
        if self.certificate is not None:
            self.certificate.reload()
        if self._authenticator is not None:
            self._authenticator.reload()

    @property
    def notices(self) -> list[str]:
        """Sentences about proxies in front of this server that its settings do not fit."""
        return self._manager.admission.proxies.lines if self._manager is not None else []

    def use_secrets(self, settings: Settings) -> None:
        """Verify tokens with the secret of these settings from now on."""
        if self._authenticator is not None and settings.auth_secret is not None:
            self._authenticator.use_secret(settings.auth_secret)

    def connections_of(self, user_id: str) -> tuple[Connection, ...]:
        """Return the connections whose token proved the user."""
        auth = self._manager.auth if self._manager is not None else None
        return auth.connections_of(user_id) if auth is not None else ()

    def close_revoked(self) -> None:
        """Close the connections whose token was revoked."""
        if self._manager is not None and self._manager.auth is not None:
            self._manager.auth.close_revoked()

    async def stop(self, *, code: int = CloseCode.RESTART, over_seconds: float = 0.0) -> None:
        """Accept no more connections, close all with `code`, and return when the last has been removed.

        The closes are spread evenly over `over_seconds`, so that not all clients reach the next node at once.
        A client that does not answer within the close time-out is aborted; the handler's `closed` has been
        called for every connection when this returns.
        """
        manager, self._manager = self._manager, None
        if manager is None:
            return
        manager.stopping = True
        for server in self._servers:
            server.close()
        try:
            for connection in list(manager.pending):
                connection.close(code)
            await self._close_all(code, over_seconds)
            with anyio.move_on_after(self._settings.close_timeout):
                await manager.empty.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await manager.stop()

    async def _close_all(self, code: int, over_seconds: float) -> None:
        connections = list(self.connections)
        batches = max(1, int(over_seconds / _CLOSE_INTERVAL), -(-len(connections) // _BATCH))
        for batch in range(batches):
            for connection in connections[batch::batches]:
                connection.close(code, "the node restarts")
            if batch + 1 < batches:
                with anyio.move_on_after(over_seconds / batches):
                    await self._hurry.wait()


def check_files(settings: Settings) -> None:
    """Load once what each process will load: certificate, keys, and hook for tokens. Raises SettingError."""
    Certificate.from_settings(settings)
    if settings.requires_tokens:
        Authenticator(settings)


def _tls_connection(make: Callable[[], Connection], certificate: Certificate) -> TlsLayer:
    connection = make()
    return TlsLayer(connection, certificate, connection.note_not_tls)
