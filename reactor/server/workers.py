"""Runs several processes on one port, each a node. Their parent starts them, and starts again any that ends.

The kernel distributes new connections over the processes that listen with SO_REUSEPORT (socket(7)). A worker
that dies is a node that died: the other nodes detach its members, and the parent starts a new one. The first
worker has the admin port of the settings, each other one the next port.
"""

import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import monotonic

import anyio
import structlog

from reactor.backend.embedded import EmbeddedServer
from reactor.errors import ReactorError, unwrapped_errors
from reactor.gateway.listening import bind_sockets
from reactor.gateway.server import check_files
from reactor.log import set_up_logs
from reactor.server.process import AdminPort, LoadSettings, run_node
from reactor.settings import Settings

log = structlog.get_logger()

STABLE_AFTER = 5.0
"""Seconds. A worker that ran at least that long is started again at once, any other after RESTART_DELAY."""
RESTART_DELAY = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_workers(
    settings: Settings,
    *,
    on_ready: Callable[[int], None] | None = None,
    admin: AdminPort | None = None,
    load: LoadSettings | None = None,
) -> None:
    """Run `settings.workers` processes until SIGINT or SIGTERM. Raises ReactorError when they cannot start.

    on_ready(port) is called once clients can connect to all of them. admin serves each worker's admin port.
    SIGHUP is passed on to every worker; load reads the settings again there, see `run_node`.
    """
    async with AsyncExitStack() as stack:
        embedded = EmbeddedServer(advertise=True) if settings.redis_url is None else None
        if embedded is not None:
            await stack.enter_async_context(embedded)
            settings = replace(settings, redis_url=embedded.url)
        _check_admin_ports(settings)
        check_files(settings)
        if settings.port:
            # Another server's workers share their port, and would share it with these as well.
            _demand_free(settings.host, settings.port)
        reserved = _bound_in(stack, settings)
        settings = replace(settings, port=reserved[0].getsockname()[1])
        workers = [Worker(settings, number, admin, load) for number in range(settings.workers)]
        with unwrapped_errors(), anyio.open_signal_receiver(*_SIGNALS) as signals:
            async with anyio.create_task_group() as stopping:
                try:
                    await _run_until_signalled(workers, signals, settings.port, on_ready, embedded)
                finally:
                    # A second signal reaches the workers, which then close their connections at once.
                    stopping.start_soon(_pass_on, signals, workers)
                    await _stop(workers)
                    stopping.cancel_scope.cancel()


async def _run_until_signalled(
    workers: "list[Worker]",
    signals: AsyncIterator[signal.Signals],
    port: int,
    on_ready: Callable[[int], None] | None,
    embedded: EmbeddedServer | None,
) -> None:
    """Keep the workers alive until SIGINT or SIGTERM. Raises the error with which they cannot start."""
    async with anyio.create_task_group() as tasks:
        if embedded is not None:
            tasks.start_soon(embedded.keep_running)
        for worker in workers:
            tasks.start_soon(worker.keep_alive)
        if on_ready is not None:
            tasks.start_soon(_notify_when_ready, workers, lambda: on_ready(port))
        async for number in signals:
            if number != signal.SIGHUP:
                log.info("stopping", workers=len(workers))
                tasks.cancel_scope.cancel()
                return
            for worker in workers:
                worker.reload()


async def _pass_on(signals: AsyncIterator[signal.Signals], workers: "list[Worker]") -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            for worker in workers:
                worker.signal(signal.SIGTERM)


def _check_admin_ports(settings: Settings) -> None:
    """Raise ReactorError where an admin port is in use, once instead of by every worker."""
    if settings.admin_port is not None:
        for number in range(settings.workers if settings.admin_port else 1):
            _demand_free(settings.admin_host, settings.admin_port + number, flags="--admin-")


def _demand_free(host: str, port: int, *, flags: str = "--") -> None:
    for sock in bind_sockets(host, port, flags=flags):
        sock.close()


def _bound_in(stack: ExitStack | AsyncExitStack, settings: Settings) -> list[socket.socket]:
    """Return sockets for the port that the workers share; they are closed with the stack."""
    bound = bind_sockets(settings.host, settings.port, shared=True)
    for sock in bound:
        stack.callback(sock.close)
    return bound


class Worker:
    """One worker: a process, and each one that replaces it."""

    def __init__(
        self, settings: Settings, number: int, admin: AdminPort | None, load: LoadSettings | None
    ) -> None:
        if settings.admin_port:
            settings = replace(settings, admin_port=settings.admin_port + number, workers=1)
        self._settings, self._number, self._admin, self._load = settings, number, admin, load
        self._process: BaseProcess | None = None
        self.ready = anyio.Event()
        self._serving = self._reloaded = False
        # However the parent ends, its end of the pipe is closed then, and the worker stops.
        self._ours: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    async def ended(self) -> None:
        """Return once the process has ended."""
        if self._process is not None and self._process.is_alive():
            await anyio.wait_readable(self._process.sentinel)
            self._process.join()

    async def keep_alive(self) -> None:
        """Start the process, and start it again whenever it ends, until cancelled."""
        context = multiprocessing.get_context("spawn")
        while True:
            started = monotonic()
            self._serving = False
            self._ours, theirs = context.Pipe()
            name = f"reactor worker {self._number}"
            self._process = context.Process(
                target=_work, args=(self._settings, theirs, self._admin, self._load), name=name
            )
            self._process.start()
            theirs.close()
            log.info("worker_started", worker=self._number, pid=self._process.pid)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._wait_until_ready, self._ours)
                await self.ended()
                tasks.cancel_scope.cancel()
            log.warning("worker_ended", worker=self._number, exit_code=self._process.exitcode)
            if monotonic() - started < STABLE_AFTER:
                await anyio.sleep(RESTART_DELAY)

    async def _wait_until_ready(self, ours: Connection) -> None:
        await anyio.wait_readable(ours.fileno())
        try:
            error: ReactorError | None = ours.recv()
        except EOFError:  # it has ended, which `keep_alive` notices
            return
        if error is not None:
            if self.ready.is_set():  # it was serving before: what has changed may be corrected
                log.error("worker_failed", worker=self._number, reason=str(error))
                return
            raise error
        self._serving = True
        self.ready.set()
        if self._reloaded:  # the settings that it was started with are older
            self.signal(signal.SIGHUP)

    def reload(self) -> None:
        """Have the process read its settings again, as soon as it serves: before, SIGHUP would end it."""
        self._reloaded = True
        if self._serving:
            self.signal(signal.SIGHUP)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if (pid := self.pid) is not None:
            os.kill(pid, number)


async def _notify_when_ready(workers: list[Worker], on_ready: Callable[[], None]) -> None:
    for worker in workers:
        await worker.ready.wait()
    on_ready()


async def _stop(workers: list[Worker]) -> None:
    """Stop all workers; each limits the time that it takes itself."""
    for worker in workers:
        worker.signal(signal.SIGTERM)
    with anyio.CancelScope(shield=True):
        for worker in workers:
            await worker.ended()


def _work(settings: Settings, parent: Connection, admin: AdminPort | None, load: LoadSettings | None) -> None:
    """Run a node on the shared port for as long as the parent lives; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent stops the workers
    set_up_logs(settings)

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_with, parent)
            with ExitStack() as stack:
                await run_node(
                    settings,
                    sockets=_bound_in(stack, settings),
                    admin=admin,
                    load=load,
                    stop_signals=(signal.SIGTERM,),
                    on_ready=lambda _node: _report(parent, None),
                )
            tasks.cancel_scope.cancel()

    try:
        anyio.run(serve, backend_options={"use_uvloop": True})
    except* ReactorError as group:
        _report(parent, next(leaf for leaf in _leaves(group) if isinstance(leaf, ReactorError)))
        raise SystemExit(1) from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)


def _report(parent: Connection, error: ReactorError | None) -> None:
    """Send the parent that this worker serves, or the error with which it ends."""
    with suppress(BrokenPipeError):  # the parent has ended meanwhile, and `_end_with` ends this process
        parent.send(error)


async def _end_with(parent: Connection) -> None:
    await anyio.wait_readable(parent.fileno())  # the parent writes nothing: readable means closed
    os.kill(os.getpid(), signal.SIGTERM)
