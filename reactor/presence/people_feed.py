"""Follows users: keeps what the index says of each of them, by their channels.

A user is read once the channel is subscribed to; what is published meanwhile is applied behind what was read,
which changes nothing where it is in there already. After a gap in the subscription all are read again.
"""

import asyncio
from collections.abc import Callable, Iterable, Set

import anyio
import msgspec

from reactor.backend.interface import Channels
from reactor.errors import UNREADABLE, Unavailable
from reactor.presence.keys import unescape
from reactor.presence.people import (
    PeopleStore,
    PersonChange,
    PersonRecord,
    decode_person_change,
    shown_rooms,
)
from reactor.protocol.messages import Person, PersonStatus
from reactor.tasks import Spawner

RETRY_DELAY = 0.5
"""Seconds between attempts to read users while Redis does not answer."""
SUBSCRIBE_TIMEOUT, DISCONNECTED_TIMEOUT = 5.0, 0.5
"""Seconds for which a `follow` waits for its subscriptions, while Redis is connected and while it is not."""
MAX_ROOMS_SHOWN = 100
"""Rooms of a user that a client is sent: each change of the user goes to all who watch it, with its rooms."""
_STATUSES: dict[str, PersonStatus] = {"online": "online", "away": "away", "offline": "offline"}


class FollowedPerson:
    """A user as known now: status, since when online or last seen (ms), and rooms."""

    __slots__ = (
        "_rooms",
        "_since",
        "_waiting",
        "channel",
        "followers",
        "known",
        "last_seen",
        "status",
        "user_id",
    )

    def __init__(self, user_id: str, channel: str = "") -> None:
        self.user_id, self.channel = user_id, channel
        self.status: PersonStatus = "offline"
        self._since: int | None = None
        self.last_seen: int | None = None
        self._rooms: set[str] | None = None  # an empty set takes 200 bytes, and most who are followed are out
        self.followers = 0
        self.known = False
        self._waiting: list[PersonChange] | None = None

    @property
    def rooms(self) -> Set[str]:
        """Return the rooms in which the user is."""
        return self._rooms or frozenset()

    @property
    def since(self) -> int | None:
        """Return since when the user is online (ms); None while offline, or where unknown."""
        return self._since if self.status != "offline" else None

    def person(self, *, where: bool) -> Person:
        """Return the user as clients see it. where: with the rooms, up to MAX_ROOMS_SHOWN."""
        seen = self.last_seen if self.status == "offline" else None
        return Person(
            self.user_id,
            self.status,
            msgspec.UNSET if seen is None else seen,
            shown_rooms(self.rooms)[:MAX_ROOMS_SHOWN] if where else msgspec.UNSET,
        )

    def begin_read(self) -> None:
        """Keep what is published from here on, for `take`."""
        self._waiting = []

    def take(self, record: PersonRecord) -> None:
        """Take over what was read, and what was published meanwhile."""
        self.status, self.last_seen, self._since = record.status, record.last_seen, record.since
        self._rooms, self.known = record.counted or None, True
        waiting, self._waiting = self._waiting or [], None
        for change in waiting:
            self.apply(change)

    def apply(self, change: PersonChange) -> None:
        """Apply what was published."""
        if self._waiting is not None:
            self._waiting.append(change)
            return
        status = _STATUSES.get(change.status, "online")
        if status == "offline":
            self.last_seen = change.at or None
        elif change.at:
            self._since = change.at
        self.status = status
        room = unescape(change.room[1:])
        if status == "offline":
            self._rooms = None
        elif change.room.startswith("+"):
            self._rooms = self._rooms or set()
            self._rooms.add(room)
        elif change.room.startswith("-") and self._rooms:
            self._rooms.discard(room)


class PeopleFeed:
    """The users that a process follows.

    on_changed is called with each who has changed.
    """

    def __init__(
        self, store: PeopleStore, channels: Channels, tasks: Spawner, *,
        on_changed: Callable[[FollowedPerson], None],
    ) -> None:  # fmt: skip
        self._store, self._channels, self._tasks = store, channels, tasks
        self._on_changed = on_changed
        self._people: dict[str, FollowedPerson] = {}
        self._by_channel: dict[bytes, FollowedPerson] = {}
        self._reading = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._people)

    def get(self, user_id: str) -> FollowedPerson | None:
        """Return a user who is followed."""
        return self._people.get(user_id)

    async def follow(self, user_ids: Iterable[str]) -> None:
        """Follow users, once more each; return when all of them are known.

        Raises Unavailable: then none of them is followed once more.
        """
        user_ids = tuple(user_ids)
        new: list[FollowedPerson] = []
        for user_id in user_ids:
            person = self._people.get(user_id)
            if person is None:
                person = self._people[user_id] = FollowedPerson(user_id, self._store.channel(user_id))
                self._by_channel[person.channel.encode()] = person
            if not person.known:
                new.append(person)
            person.followers += 1
        try:
            if new:
                await self._begin(new)
        except BaseException:
            self.unfollow(user_ids)
            raise

    def unfollow(self, user_ids: Iterable[str]) -> None:
        """Undo one `follow` of each user."""
        for user_id in user_ids:
            person = self._people[user_id]
            person.followers -= 1
            if not person.followers:
                del self._people[user_id]
                del self._by_channel[person.channel.encode()]
                self._channels.unsubscribe(person.channel)

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """Apply what was published on a user's channel."""
        person = self._by_channel.get(channel)
        if person is None:
            return
        try:
            change = decode_person_change(payload)
        except UNREADABLE:  # of a newer node, or not ours
            return
        person.apply(change)
        if person.known:
            self._on_changed(person)

    def resync(self, channels: frozenset[str] | None = None) -> None:
        """Read users again, since something published may have been missed; of some channels, or all."""
        people = [
            person for channel, person in self._by_channel.items()
            if channels is None or channel.decode() in channels
        ]  # fmt: skip
        if people:
            self._tasks.start_soon(self._read_again, people)

    # Private methods

    async def _begin(self, people: list[FollowedPerson]) -> None:
        for person in people:
            person.begin_read()
        # A subscription that is disconnected means most often that Redis is away: fail soon.
        timeout = SUBSCRIBE_TIMEOUT if self._channels.listening else DISCONNECTED_TIMEOUT
        channels = [person.channel for person in people]
        try:
            with anyio.fail_after(timeout):
                await asyncio.gather(*map(self._channels.subscribe, channels))
        except TimeoutError:
            raise Unavailable("Redis did not confirm the subscription") from None
        await self._read(people)

    async def _read(self, people: list[FollowedPerson]) -> None:
        async with self._reading:  # what one reading keeps for later, another must not apply
            for person in people:
                person.begin_read()
            records = await self._store.records([person.user_id for person in people])
            for person in people:
                known = person.known
                person.take(records[person.user_id])
                if known:  # others follow it, who have seen what was before
                    self._on_changed(person)

    async def _read_again(self, people: list[FollowedPerson]) -> None:
        while people := [one for one in people if self._people.get(one.user_id) is one]:
            try:
                await self._read(people)
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
            else:
                return
