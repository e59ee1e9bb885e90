"""The listening socket: lets clients in, and sees all of them out when the node stops."""

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial

import anyio

from reactor.errors import AddressInUse, ReactorError, SettingError
from reactor.gateway.authenticator import Authenticator
from reactor.gateway.connection import Connection
from reactor.gateway.manager import Counts, Handler, Hub
from reactor.gateway.tls import Certificate, Secured
from reactor.protocol.closing import CloseCode
from reactor.settings import Settings

__all__ = ["Gateway", "Handler"]

_BACKLOG = 4096  # the kernel caps it at net.core.somaxconn; a deploy brings everyone back at once
_STEP = 0.05  # seconds between the portions of a spread close
_AT_ONCE = 1000  # sockets closed before the loop gets its turn


class Gateway:
    """WebSockets, and a page and two probes over HTTP, on one port.

    Raises SettingError where the certificate, the keys or the hook for tokens cannot be had.

    Attributes:
        connections: The open sockets.
        port: The port that is listened on, once started.
        counts: What happened to sockets so far.
        certificate: What it proves itself with, if TLS is set.

    """

    connection_class: type[Connection] = Connection

    def __init__(self, settings: Settings, handler: Handler) -> None:
        self._settings = settings
        self._handler = handler
        self._hub: Hub | None = None
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.port = settings.port
        self.counts = Counts()
        self.certificate = Certificate.of(settings)
        self._authenticator = Authenticator(settings) if settings.asks_for_tokens else None

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen on `sock`, or on the host and port of the settings (0: any free port).

        Raises:
            AddressInUse: Another program has the port.
            SettingError: The host is none of this machine's, or the port takes rights we have not.

        """
        loop = asyncio.get_running_loop()
        hub = Hub(self._settings, self._handler, self.connections, self.counts, self._authenticator)
        factory: Callable[[], asyncio.Protocol] = partial(self.connection_class, hub)
        if self.certificate is not None:
            factory = partial(self._secured, hub, self.certificate)
        host, port = self._settings.host, self._settings.port
        # asyncio's own loop also tries, and complains, this many times at each accept when files run out.
        backlog = 100 if isinstance(loop, asyncio.BaseEventLoop) else _BACKLOG
        try:
            if sock is None:
                server = await loop.create_server(factory, host, port, backlog=backlog)
            else:
                server = await loop.create_server(factory, sock=sock, backlog=backlog)
        except OSError as error:
            hub.stop()
            raise _explained(error, host, port) from error
        self._hub, self._server = hub, server
        name = server.sockets[0].getsockname()
        # A Unix socket's name is a path.
        self.port = name[1] if isinstance(name, tuple) else 0

    def reload(self) -> None:
        """Read the certificate and the keys of tokens again; what cannot be read stays as it was."""
        if self.certificate is not None:
            self.certificate.reload()
        if self._authenticator is not None:
            self._authenticator.reload()

    def _secured(self, hub: Hub, certificate: Certificate) -> Secured:
        return Secured(self.connection_class(hub), certificate)

    async def stop(self, *, code: int = CloseCode.RESTART, over_seconds: float = 0.0) -> None:
        """Let nobody in, close every socket with `code`, and return when the last is gone.

        The closes are spread evenly over `over_seconds`, so that not all clients come to the next node at
        once. A client that does not answer within the close time-out is cut off; the handler has heard of
        every end when this returns.
        """
        hub, self._hub = self._hub, None
        if hub is None or self._server is None:
            return
        hub.stopping = True
        self._server.close()
        try:
            for stranger in list(hub.strangers):
                stranger.close(code)
            await self._close_all(code, over_seconds)
            with anyio.move_on_after(self._settings.close_timeout):
                await hub.empty.wait()
        finally:
            for left in [*hub.connections, *hub.strangers]:
                left.abort()
            with anyio.CancelScope(shield=True):
                await hub.empty.wait()
                await hub.chores.stop()
            hub.stop()

    async def _close_all(self, code: int, over_seconds: float) -> None:
        waiting = list(self.connections)
        portions = max(1, int(over_seconds / _STEP), -(-len(waiting) // _AT_ONCE))
        for portion in range(portions):
            for connection in waiting[portion::portions]:
                connection.close(code, "the node restarts")
            if portion + 1 < portions:
                await anyio.sleep(over_seconds / portions)


def check_files(settings: Settings) -> None:
    """Read once what each process will read: certificate, keys, and hook for tokens. Raises SettingError."""
    Certificate.of(settings)
    if settings.asks_for_tokens:
        Authenticator(settings)


def _explained(error: OSError, host: str, port: int) -> ReactorError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"port {port} on {host} is taken by another program: choose another --port")
    if error.errno == errno.EACCES:
        return SettingError(f"port {port} takes rights that this process has not: use a --port above 1023")
    return SettingError(f"cannot listen on {host} port {port} ({error}): give a --host of this machine")
