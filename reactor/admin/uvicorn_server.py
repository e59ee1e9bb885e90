"""Serves the admin port by uvicorn, in the event loop of its node."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from reactor.admin.app import make_app
from reactor.gateway.tls import load_certificate
from reactor.server.node import Node
from reactor.server.sockets import bind_socket

log = structlog.get_logger()

MAX_CONNECTIONS = 200
"""Connections at the same time; more are answered with 503."""
SHUTDOWN_TIMEOUT = 1
"""Seconds in which responses under way may complete when the server stops."""
FIRST_REQUEST_TIMEOUT = 10.0
"""Seconds within which a new connection must send the head of its first request."""


class _Connection(H11Protocol):
    """A connection that closes when its first request does not come in time; uvicorn has no such limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self.loop.call_later(FIRST_REQUEST_TIMEOUT, self._close_unless_requested)

    def _close_unless_requested(self) -> None:
        if getattr(self, "cycle", None) is None:  # uvicorn creates it with the first request
            self.transport.close()


class SignallessServer(uvicorn.Server):
    """A server that leaves signals to its owner, which stops it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[int]:
    """Serve the admin port of a node while the context is open. Yields the port.

    Raises AddressInUse or SettingError.
    """
    settings = node.settings
    assert settings.admin_port is not None
    assert settings.admin_key is not None
    sock = bind_socket(settings.admin_host, settings.admin_port, settings="--admin-")
    sock.listen()  # so that connections are accepted from now on, not from the first run of the task
    port: int = sock.getsockname()[1]
    config = uvicorn.Config(
        make_app(node, settings.admin_key),
        loop="none", http=_Connection, ws="none", lifespan="off", interface="asgi3",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS, timeout_keep_alive=5, timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
        h11_max_incomplete_event_size=16_384,
    )  # fmt: skip
    config.load()
    config.ssl = _ssl_context(node)
    server = SignallessServer(config)
    # Not in a task group: its cancellation would leave the port open.
    running = asyncio.create_task(server.serve([sock]))
    scheme = "https" if config.ssl else "http"
    log.info("admin_serving", url=f"{scheme}://{settings.admin_host}:{port}/")
    try:
        yield port
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await running
        sock.close()


def _ssl_context(node: Node) -> ssl.SSLContext | None:
    """TLS with the main port's certificate, also after it was reloaded; None where the settings want none."""
    settings, certificate = node.settings, node.gateway.certificate
    if certificate is None or settings.tls_cert is None or settings.tls_key is None or not settings.admin_tls:
        return None

    def use_current(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificate.context

    context = load_certificate(settings.tls_cert, settings.tls_key)
    context.sni_callback = use_current  # called in each handshake
    return context
