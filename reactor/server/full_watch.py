"""Watches whether Redis takes joins again after it refused one because its memory is full.

A full Redis is no outage: members who are present are served, and can leave. But no client can join on any
node, so it is not ready. Nothing asks for that while no join is refused.
"""

import asyncio
from contextlib import suppress

import anyio
import structlog

from reactor.backend.interface import RedisFull, Runner
from reactor.errors import Unavailable

log = structlog.get_logger()

CHECK_INTERVAL = 1.0
"""Seconds between two questions whether there is memory again."""


class FullWatch:
    """Which shards are on a server that is full. `serve` has to run."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._prefixes: set[str] = set()
        self._noted = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether a call that adds data was refused, and no server has answered since that it has memory."""
        return bool(self._prefixes)

    def note(self, refusal: RedisFull) -> None:
        """Take in that a call which adds data was refused."""
        if not self._prefixes:
            log.warning("redis_full", fix="raise maxmemory, or remove what is not needed")
        self._prefixes.add(refusal.prefix)
        self._noted.set()

    async def serve(self) -> None:
        """Ask, for each shard that was refused, until it is not; until cancelled."""
        while True:
            await self._noted.wait()
            await anyio.sleep(CHECK_INTERVAL)
            for prefix in list(self._prefixes):
                with suppress(Unavailable):  # it is still full; or it is away, which is reported otherwise
                    await self.check(prefix)
                    self._prefixes.discard(prefix)
            if not self._prefixes:
                self._noted.clear()
                log.info("redis_has_memory")

    async def check(self, prefix: str) -> None:
        """Ask whether a shard's server takes more data. Raises RedisFull, or another Unavailable."""
        await self._runner.run("check_memory", prefix)
