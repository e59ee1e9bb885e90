"""Runs one server process: a node, its connection to Redis, and its admin port."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

import anyio
import structlog

from reactor.backend.connect import make_backend, target_of
from reactor.backend.embedded import EmbeddedServer
from reactor.backend.interface import Backend
from reactor.errors import SettingError, unwrapped_errors
from reactor.log import set_log_level
from reactor.presence.lua_sources import lua_sources
from reactor.server.gc_tuning import tune_gc
from reactor.server.node import Node
from reactor.settings import Settings
from reactor.tasks import run_in_daemon_thread
from reactor.tracing.node_parts import Parts

log = structlog.get_logger()

READ_TIMEOUT = 10.0
"""Seconds that reading the settings again may take."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing the connections to Redis may take."""

LoadSettings = Callable[[], Settings]
"""Reads the settings again; for `workers` it must be picklable. Raises SettingError."""

AdminPort = Callable[[Node], AbstractAsyncContextManager[object]]
"""Serves the admin port of a node while its context is open; for `workers` it must be picklable."""


@asynccontextmanager
async def serve_node(
    settings: Settings,
    *,
    sockets: Sequence[socket.socket] = (),
    admin: AdminPort | None = None,
    load: LoadSettings | None = None,
    parts: Parts | None = None,
) -> AsyncIterator[Node]:
    """Yield a node that serves clients; when the block ends, it is stopped in order.

    Where Redis does not answer yet it waits for it; meanwhile it listens, and /readyz says what is missing.

    sockets: bound ones to listen on, in place of the host and port of the settings.
    admin: serves the admin port where the settings name one; it comes from the caller, because the admin API
    is built upon this package.
    load: reads the settings again, for a password of Redis that is replaced meanwhile.
    parts: what builds the node's parts, in place of what the setting `tracing` asks for.

    Raises ReactorError, whose message is one line with the fix, when the node cannot start.
    """
    if settings.admin_port is not None and admin is None:
        raise TypeError("settings.admin_port is set: pass `admin`, which serves that port")
    async with AsyncExitStack() as stack:
        embedded = EmbeddedServer(advertise=True) if settings.redis_url is None else None
        if embedded is not None:
            await stack.enter_async_context(embedded)
        target = target_of(settings, embedded.url if embedded is not None else None, load=load)
        stack.enter_context(unwrapped_errors())
        backend = make_backend(
            target, lua_sources(departures_kept=settings.departures_kept, database=target.db)
        )
        stack.push_async_callback(_close, backend)
        if parts is None:
            parts = await stack.enter_async_context(_tracing()) if settings.tracing else Parts()
        async with anyio.create_task_group() as tasks:
            if embedded is not None:
                tasks.start_soon(embedded.keep_running)
            node = Node(settings, target, tasks, backend, parts)
            async with nullcontext() if admin is None or settings.admin_port is None else admin(node):
                try:
                    await node.start(sockets)
                    yield node
                finally:
                    with anyio.CancelScope(shield=True):
                        await node.stop()


def _tracing() -> AbstractAsyncContextManager[Parts]:
    try:
        from reactor.tracing.export import tracing  # noqa: PLC0415 - it needs an extra, and costs memory
    except ImportError as error:
        raise SettingError(
            f"tracing is on, but {error.name} is not installed: "
            "pip install 'reactor-presence[server,otel]', or leave tracing off."
        ) from None
    return tracing(f"{socket.gethostname()}:{os.getpid()}")


async def _close(backend: Backend) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_TIMEOUT):
        await backend.aclose()


async def run_node(
    settings: Settings,
    *,
    on_ready: Callable[[Node], None] | None = None,
    sockets: Sequence[socket.socket] = (),
    admin: AdminPort | None = None,
    load: LoadSettings | None = None,
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve until SIGINT or SIGTERM. Raises ReactorError when the node cannot start.

    on_ready is called once clients can connect. A second signal closes the remaining connections at once.
    SIGHUP reloads certificates and key files and, where `load` reads the settings again, the log level and
    the terms of rooms.
    """
    tune_gc()
    serving: Node | None = None
    reload_due = anyio.Event()
    stop = anyio.Event()

    async def handle_signals() -> None:
        async for number in signals:
            if number not in stop_signals:
                reload_due.set()
            elif stop.is_set():
                if serving is not None:
                    serving.gateway.hurry()
            else:
                log.info("stopping", connections=len(serving.gateway.connections) if serving else 0)
                stop.set()
                if serving is None:
                    starting.cancel()

    async def reload_when_due(node: Node) -> None:
        nonlocal reload_due
        while True:
            await reload_due.wait()
            reload_due = anyio.Event()
            await reload_node(node, load)

    with unwrapped_errors(), anyio.open_signal_receiver(*stop_signals, signal.SIGHUP) as signals:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as starting:
                tasks.start_soon(handle_signals)
                async with serve_node(settings, sockets=sockets, admin=admin, load=load) as node:
                    serving = node
                    tasks.start_soon(reload_when_due, node)
                    if on_ready is not None:
                        on_ready(node)
                    await stop.wait()
            tasks.cancel_scope.cancel()


async def reload_node(node: Node, load: LoadSettings | None) -> None:
    """Take over what may change while a node serves; what cannot be read stays as it was, and is logged.

    The files are read in a thread: on a file system that hangs, nothing else waits for them.
    """
    try:
        with anyio.fail_after(READ_TIMEOUT):
            await run_in_daemon_thread(node.gateway.reload)
            if load is None:
                return
            settings = await run_in_daemon_thread(load)
    except (SettingError, TimeoutError) as error:
        reason = str(error) or f"a file could not be read within {READ_TIMEOUT:g} s"
        log.error("settings_not_reloaded", reason=reason)  # noqa: TRY400 - no traceback for an expected error
        return
    set_log_level(settings.log_level)
    node.rules.use(settings)
    node.use_secrets(settings)
    log.info("settings_reloaded")
