"""The log of what changed, from which webhooks are told: capped, a stream for each shard.

It outlives whoever reads it, so that an endpoint hears, late but in order, what happened while no server was
there to tell it, or while it did not answer itself.
"""

from typing import NamedTuple

from reactor.backend.interface import Runner
from reactor.presence.keys import shard_prefix
from reactor.presence.rows import DiffRow, decode_diff, room_from

LOG_TTL_MS = 7 * 86_400_000
"""A log that nobody asked for in a week goes away."""


class Change(NamedTuple):
    """One entry. `id` is the stream's: unique in its shard, and its first part is Redis's time (ms)."""

    shard: int
    id: str
    room_id: str
    diff: DiffRow

    @property
    def at(self) -> int:
        """When it happened, in milliseconds since 1970, by Redis's clock."""
        return int(self.id.partition("-")[0])


class Changes(NamedTuple):
    """What comes next for an endpoint. `missed`: entries that the cap took away before they were read."""

    first: int
    missed: int
    entries: list[Change]


class ChangeLog:
    """Reads the logs of one namespace, and remembers how far. All raise Unavailable."""

    def __init__(self, runner: Runner, namespace: str) -> None:
        self._runner = runner
        self._namespace = namespace

    async def read(self, shard: int, endpoint: str, *, limit: int) -> Changes:
        """The changes that the endpoint was not told yet, oldest first.

        An endpoint that is asked for the first time begins with what happens from then on.
        """
        reply = await self._runner.run("read_changes", self._prefix(shard), endpoint, limit, LOG_TTL_MS)
        first, missed, *flat = reply
        entries = [
            Change(shard, flat[i].decode(), room_from(flat[i + 1]), decode_diff(flat[i + 2]))
            for i in range(0, len(flat), 3)
        ]
        return Changes(first, missed, entries)

    async def confirm(self, shard: int, endpoint: str, last: str, place: int) -> None:
        """Note that the endpoint was told all up to the entry `last`, the `place`th of the log."""
        await self._runner.run("confirm_changes", self._prefix(shard), endpoint, last, place)

    def _prefix(self, shard: int) -> str:
        return shard_prefix(self._namespace, shard)
