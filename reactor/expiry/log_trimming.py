"""Keeps the logs in Redis, of departures and of changes for webhooks, within their bytes and their age."""

from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.presence.store import Store, each

log = structlog.get_logger()

TRIM_INTERVAL = 5.0
"""Seconds between two rounds; meanwhile the logs are capped by number alone."""


class LogTrimmer:
    """Trims the logs of all shards while `leading` returns True. `serve` has to run.

    max_bytes: of each log in each shard. max_age: seconds that departures are kept; 0 for any.
    """

    def __init__(self, store: Store, leading: Callable[[], bool], *, max_bytes: int, max_age: float) -> None:
        self._store, self._leading = store, leading
        self._max_bytes, self._max_age = max_bytes, max_age
        self._refused: set[int] = set()

    async def serve(self) -> None:
        """Trim until cancelled; what Redis does not take is repeated in the next round."""
        while True:
            await anyio.sleep(TRIM_INTERVAL)
            if self._leading():
                with suppress(Unavailable):
                    await each(self._store.keys.shards, self._trim)

    async def _trim(self, shard: int) -> None:
        removed, _ = await self._store.trim_logs(shard, self._max_bytes, round(self._max_age * 1000))
        if removed >= 0:
            self._refused.discard(shard)
        elif shard not in self._refused:
            if not self._refused:
                log.warning("logs_not_trimmed", fix="grant +xtrim: else they are capped by number alone")
            self._refused.add(shard)
