"""Runs one server process: a node, its connection to Redis, and its admin port."""

import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

import anyio
import structlog

from reactor.backend.connect import open_backend
from reactor.backend.embedded import EmbeddedServer
from reactor.backend.target import parse_url
from reactor.errors import SettingError, unwrapped_errors
from reactor.log import set_log_level
from reactor.presence.lua_sources import lua_sources
from reactor.server.gc_tuning import tune_gc
from reactor.server.node import Node
from reactor.settings import Settings

log = structlog.get_logger()

LoadSettings = Callable[[], Settings]
"""Reads the settings again; for `workers` it must be picklable. Raises SettingError."""

AdminPort = Callable[[Node], AbstractAsyncContextManager[object]]
"""Serves the admin port of a node while its context is open; for `workers` it must be picklable."""


@asynccontextmanager
async def serve_node(
    settings: Settings, *, sock: socket.socket | None = None, admin: AdminPort | None = None
) -> AsyncIterator[Node]:
    """Yield a node that serves clients; when the block ends, it is stopped in order.

    sock: a bound socket to listen on, in place of the host and port of the settings.
    admin: serves the admin port where the settings name one; it comes from the caller, because the admin API
    is built upon this package.

    Raises ReactorError, whose message is one line with the fix, when the node cannot start.
    """
    if settings.admin_port is not None and admin is None:
        raise TypeError("settings.admin_port is set: pass `admin`, which serves that port")
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = (await stack.enter_async_context(EmbeddedServer(advertise=True))).url
        target = parse_url(url)
        stack.enter_context(unwrapped_errors())
        backend = await open_backend(target, lua_sources(departures_kept=settings.departures_kept))
        stack.push_async_callback(backend.aclose)
        async with anyio.create_task_group() as tasks:
            node = Node(settings, target, tasks, backend)
            if settings.listener:
                await node.check_events()
            async with nullcontext() if admin is None or settings.admin_port is None else admin(node):
                await node.start(sock)
                try:
                    yield node
                finally:
                    with anyio.CancelScope(shield=True):
                        await node.stop()


async def run_node(
    settings: Settings,
    *,
    on_ready: Callable[[Node], None] | None = None,
    sock: socket.socket | None = None,
    admin: AdminPort | None = None,
    load: LoadSettings | None = None,
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve until SIGINT or SIGTERM. Raises ReactorError when the node cannot start.

    on_ready is called once clients can connect. SIGHUP reloads certificates and key files and, where `load`
    reads the settings again, the log level and the terms of rooms.
    """
    tune_gc()
    with anyio.open_signal_receiver(*stop_signals, signal.SIGHUP) as signals:
        async with serve_node(settings, sock=sock, admin=admin) as node:
            if on_ready is not None:
                on_ready(node)
            async for number in signals:
                if number not in stop_signals:
                    reload_node(node, load)
                    continue
                log.info("stopping", connections=len(node.gateway.connections))
                return


def reload_node(node: Node, load: LoadSettings | None) -> None:
    """Take over what may change while a node serves; what cannot be read stays as it was, and is logged."""
    node.gateway.reload()
    if load is None:
        return
    try:
        settings = load()
    except SettingError as error:
        log.error("settings_not_reloaded", reason=str(error))  # noqa: TRY400 - no traceback for an expected error
        return
    set_log_level(settings.log_level)
    node.rules.use(settings)
    log.info("settings_reloaded")
