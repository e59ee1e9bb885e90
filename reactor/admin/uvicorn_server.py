"""Serves the admin port by uvicorn, in the event loop of its node."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import structlog
import uvicorn

from reactor.admin.app import make_app
from reactor.admin.connections import KEEP_ALIVE, MAX_CONNECTIONS, AdminConnection, AdminTls, Places
from reactor.gateway.listening import bind_sockets
from reactor.gateway.tls import Certificate
from reactor.server.node import Node

log = structlog.get_logger()

SHUTDOWN_TIMEOUT = 1
"""Seconds in which responses under way may complete when the server stops."""


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
    sockets = bind_sockets(settings.admin_host, settings.admin_port, flags="--admin-")
    for sock in sockets:
        sock.listen()  # so that connections are accepted from now on, not from the first run of the task
    port: int = sockets[0].getsockname()[1]
    places = Places(node.admin_connections_cut)
    certificate = node.gateway.certificate if settings.admin_tls else None
    make_connection: Any = partial(AdminConnection, places)
    if certificate is not None:
        make_connection = partial(_tls_connection, certificate, places)
    config = uvicorn.Config(
        make_app(node, settings.admin_key),
        loop="none", http=make_connection, ws="none", lifespan="off", interface="asgi3",
        # Its warnings are about requests, and as many as those: who may send them is anyone.
        log_config=None, log_level="error", access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS + 1, timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT, h11_max_incomplete_event_size=16_384,
    )  # fmt: skip
    config.load()
    server = SignallessServer(config)
    # Not in a task group: its cancellation would leave the port open.
    running = asyncio.create_task(server.serve(sockets))
    scheme = "https" if certificate else "http"
    log.info("admin_serving", url=f"{scheme}://{settings.admin_host}:{port}/")
    try:
        yield port
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await running
        places.stop()
        for sock in sockets:
            sock.close()


def _tls_connection(certificate: Certificate, places: Places, **options: Any) -> AdminTls:
    return AdminTls(AdminConnection(places, **options), certificate, places)
