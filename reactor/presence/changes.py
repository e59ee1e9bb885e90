"""The log of joins and departures that webhooks are sent from: one capped stream a shard.

It is kept in Redis, so that an endpoint receives, late but in order, what happened while no server was
running, or while the endpoint did not answer.
"""

from typing import NamedTuple

from reactor.backend.interface import Runner
from reactor.presence.keys import shard_prefix
from reactor.presence.rows import DiffRow, decode_diff, room_from

LOG_TTL_MS = 7 * 86_400_000
"""A log that is not read for a week is deleted."""


class Change(NamedTuple):
    """One entry. `id` is the stream's: unique in its shard, and its first part is Redis's time (ms)."""

    shard: int
    id: str
    room_id: str
    diff: DiffRow

    @property
    def at(self) -> int:
        """The time of the change, in milliseconds since 1970, by Redis's clock."""
        return int(self.id.partition("-")[0])


class Changes(NamedTuple):
    """The next changes for an endpoint.

    first: the place of the first entry, counted from the log's beginning. missed: entries that the cap
    removed before they were read.
    """

    first: int
    missed: int
    entries: list[Change]


class ChangeLog:
    """Reads the logs of one namespace, and stores how far each endpoint has received them.

    All calls raise Unavailable when Redis does not answer.
    """

    def __init__(self, runner: Runner, namespace: str) -> None:
        self._runner = runner
        self._namespace = namespace

    async def read(self, shard: int, endpoint: str, *, limit: int) -> Changes:
        """Return up to `limit` changes that the endpoint has not received yet, oldest first.

        The first call for an endpoint returns none: it begins with the changes from then on.
        """
        reply = await self._runner.run("read_changes", self._prefix(shard), endpoint, limit, LOG_TTL_MS)
        first, missed, *flat = reply
        entries = [
            Change(shard, flat[i].decode(), room_from(flat[i + 1]), decode_diff(flat[i + 2]))
            for i in range(0, len(flat), 3)
        ]
        return Changes(first, missed, entries)

    async def confirm(self, shard: int, endpoint: str, last: str, place: int) -> None:
        """Store that the endpoint has received all up to the entry `last`, the `place`th of the log."""
        await self._runner.run("confirm_changes", self._prefix(shard), endpoint, last, place)

    def _prefix(self, shard: int) -> str:
        return shard_prefix(self._namespace, shard)
