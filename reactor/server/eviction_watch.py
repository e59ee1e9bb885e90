"""Watches whether Redis may evict keys, and whether it does.

A member whose key was evicted is registered again by its next heartbeat or by its node; but until then it is
not listed, and an application that reads Redis misses it. So it is reported, and what was evicted is restored
at once.
"""

from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog

from reactor.backend.clients import MemoryState
from reactor.backend.interface import Backend
from reactor.errors import Unavailable

log = structlog.get_logger()

READ_INTERVAL = 5.0
"""Seconds between two readings."""


class EvictionWatch:
    """Reads the state of Redis's memory. `serve` has to run.

    on_evicted: called when keys were evicted since the last reading. state: as last read.
    """

    def __init__(self, backend: Backend, *, on_evicted: Callable[[], None]) -> None:
        self._backend, self._on_evicted = backend, on_evicted
        self.state = MemoryState()

    async def serve(self) -> None:
        """Read until cancelled."""
        while True:
            with suppress(Unavailable):
                self._take(await self._backend.memory_state())
            await anyio.sleep(READ_INTERVAL)

    def _take(self, state: MemoryState) -> None:
        former, self.state = self.state, state
        if state.evicts and state.policy != former.policy:
            log.warning("redis_may_evict", policy=state.policy, fix="CONFIG SET maxmemory-policy noeviction")
        if state.evicted > former.evicted:
            self._on_evicted()
