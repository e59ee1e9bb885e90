"""A Redis in use as the server uses it, for the length of a block."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from reactor.backend.connect import open_backend
from reactor.backend.interface import Backend
from reactor.backend.target import parse_url
from reactor.fleet.registry import Registry
from reactor.presence.departures import Departures
from reactor.presence.store import Store
from tests.support.direct import NAMESPACE
from tests.support.servers import Server

PATIENCE = 15.0
"""Seconds after which something that a test awaits is taken for lost."""


@dataclass
class Connected:
    """The parts that everything else is made of."""

    backend: Backend
    tasks: TaskGroup
    health: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self.backend.runner, NAMESPACE)
        self.registry = Registry(self.backend.runner, NAMESPACE)
        self.departures = Departures(self.backend.client_of, NAMESPACE)
        self.backend.on_health = lambda healthy, _reason: self.health.append(healthy)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Connected]:
    backend = await open_backend(parse_url(server.socket_url), departures_kept=10_000)
    try:
        async with anyio.create_task_group() as tasks:
            for loop in backend.loops:
                tasks.start_soon(loop)
            yield Connected(backend, tasks)
            tasks.cancel_scope.cancel()
    finally:
        await backend.aclose()


async def until(holds: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Wait until something holds that no event tells of."""
    with anyio.fail_after(within):
        while not holds():  # noqa: ASYNC110
            await anyio.sleep(0.005)
