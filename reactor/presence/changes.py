"""The log of joins and departures that webhooks are sent from: one capped stream a shard.

It is kept in Redis, so that an endpoint receives, late but in order, what happened while no server was
running, or while the endpoint did not answer.
"""

from typing import NamedTuple

import msgspec

from reactor.backend.interface import Runner
from reactor.errors import UNREADABLE
from reactor.presence.keys import Keyspace
from reactor.presence.rows import DiffRow, decode_diff, room_from

LOG_TTL_MS = 7 * 86_400_000
"""A change is kept for a week, and a log that is not read for a week is deleted."""
MAX_REFUSED = 1000
"""Events that the stream of refused events keeps, for a week after the last one."""


class PersonLogged(msgspec.Struct, array_like=True, frozen=True):
    """A user went online or offline: `at` is since when online, or when last seen (ms; 0 where unknown)."""

    status: str
    at: int


_decode_person = msgspec.msgpack.Decoder(PersonLogged).decode
_PERSON = b":"  # precedes a user's id, in place of a room's


class Change(NamedTuple):
    """One entry. `id` is the stream's: unique in its shard, and its first part is Redis's time (ms).

    place: how many entries the log has had up to this one, with it. diff: of a room; or of a user who went
    online or offline, in place of `room_id`; None for an entry that cannot be read, since another program
    wrote it.
    """

    shard: int
    id: str
    place: int
    room_id: str
    diff: DiffRow | PersonLogged | None

    @property
    def at(self) -> int:
        """The time of the change, in milliseconds since 1970, by Redis's clock."""
        return int(self.id.partition("-")[0])


class Changes(NamedTuple):
    """The next changes for an endpoint. missed: entries that the cap removed before they were read."""

    missed: int
    entries: list[Change]


class RequestRange(NamedTuple):
    """The changes of one shard in a request: from the entry `first` to `last`, which is the `place`th."""

    shard: int
    first: str
    last: str
    place: int


class RequestRecord(msgspec.Struct, frozen=True):
    """What a request is made of: changes of these ranges, cut into bodies of at most `max_bytes`."""

    max_bytes: int
    ranges: list[RequestRange]


class ChangeLog:
    """Reads the logs of one namespace, and stores how far each endpoint has received them.

    All calls raise Unavailable when Redis does not answer.
    """

    def __init__(self, runner: Runner, keys: Keyspace) -> None:
        self._runner = runner
        self.keys = keys

    async def read(self, shard: int, endpoint: str, *, limit: int) -> Changes:
        """Return up to `limit` changes that the endpoint has not received yet, oldest first.

        The first call for an endpoint returns none: it begins with the changes from then on.
        """
        reply = await self._runner.run("read_changes", self._prefix(shard), endpoint, limit, LOG_TTL_MS)
        first, missed, *flat = reply
        return Changes(missed, _entries(shard, first + 1, flat))

    async def confirm(self, last: Change, endpoint: str) -> None:
        """Store that the endpoint has received all changes of a shard up to this one."""
        await self._runner.run("confirm_changes", self._prefix(last.shard), endpoint, last.id, last.place)

    async def begin_request(self, endpoint: str, record: RequestRecord) -> None:
        """Store what the request to be sent next is made of."""
        await self._runner.run(
            "begin_request", self._fleet, endpoint, msgspec.json.encode(record), LOG_TTL_MS
        )

    async def last_request(self, endpoint: str) -> RequestRecord | None:
        """Return what the last request to the endpoint was made of, whichever node began it."""
        text = await self._runner.run("last_request", self._fleet, endpoint)
        try:
            return msgspec.json.decode(text, type=RequestRecord)
        except UNREADABLE:  # there is none, or it was edited externally
            return None

    async def read_range(self, endpoint: str, wanted: RequestRange) -> tuple[bool, list[Change]]:
        """Return whether the endpoint is known to have received the changes of a range, and the changes."""
        shard, first, last, place = wanted
        confirmed, *flat = await self._runner.run(
            "read_change_range", self._prefix(shard), endpoint, first, last
        )
        return confirmed >= place, _entries(shard, place - len(flat) // 3 + 1, flat)

    async def record_refused(self, endpoint: str, event: bytes, reason: str) -> None:
        """Append an event, as JSON, to the stream of events that an endpoint refused."""
        await self._runner.run(
            "record_refused", self._fleet, endpoint, event, reason, MAX_REFUSED, LOG_TTL_MS
        )

    @property
    def _fleet(self) -> str:
        return self.keys.fleet

    def _prefix(self, shard: int) -> str:
        return self.keys.prefixes[shard]


def _entries(shard: int, place: int, flat: list[bytes]) -> list[Change]:
    """The entries of a reply; `place` is that of the first."""
    changes = []
    for i in range(0, len(flat), 3):
        entry_id, name, change = flat[i : i + 3]
        is_person = name.startswith(_PERSON)
        decoded: DiffRow | PersonLogged | None
        try:
            decoded = _decode_person(change) if is_person else decode_diff(change)
        except UNREADABLE:
            decoded = None
        subject = room_from(name.removeprefix(_PERSON))
        changes.append(Change(shard, entry_id.decode(), place + i // 3, subject, decoded))
    return changes
