"""The admin port: uvicorn in the loop of its node."""

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
from reactor.server.sockets import EXCLUSIVE, bind_socket

log = structlog.get_logger()

AT_ONCE = 200
"""Connections; the next ones get 503."""
LAST_ANSWERS = 1
"""Seconds that answers on their way get when the server stops."""


ASKED_WITHIN = 10.0
"""Seconds that a new connection gets for the head of its first request."""


class _Wire(H11Protocol):
    """A connection that does not wait for ever for somebody to say what they want."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.loop.call_later(ASKED_WITHIN, self._see_asked)

    def _see_asked(self) -> None:
        if getattr(self, "cycle", None) is None:  # of its first request
            self.transport.close()


class SignallessServer(uvicorn.Server):
    """A server that leaves signals to the node, which stops it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[int]:
    """Serve the admin port of a node while the block runs; the port.

    Raises AddressInUse or SettingError.
    """
    settings = node.settings
    assert settings.admin_port is not None
    assert settings.admin_key is not None
    sock = bind_socket(settings.admin_host, settings.admin_port, option=EXCLUSIVE, settings="--admin-")
    sock.listen()  # from now on, and not when the task gets to it
    port: int = sock.getsockname()[1]
    config = uvicorn.Config(
        make_app(node, settings.admin_key),
        loop="none", http=_Wire, ws="none", lifespan="off", interface="asgi3",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=AT_ONCE, timeout_keep_alive=5, timeout_graceful_shutdown=LAST_ANSWERS,
        h11_max_incomplete_event_size=16_384,
    )  # fmt: skip
    config.load()
    config.ssl = _context(node)
    server = SignallessServer(config)
    # Cancelling it would leave the port open, so it is no task of a group that may be cancelled.
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


def _context(node: Node) -> ssl.SSLContext | None:
    """TLS with the certificate of the main port, as last read; none where the settings ask for none."""
    settings, certificate = node.settings, node.gateway.certificate
    if certificate is None or settings.tls_cert is None or settings.tls_key is None or not settings.admin_tls:
        return None

    def take_newest(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificate.context

    context = load_certificate(settings.tls_cert, settings.tls_key)
    context.sni_callback = take_newest  # called with each client's first words
    return context
