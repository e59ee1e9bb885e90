"""Users watched by programs that have only Redis.

One subscription serves all watchers of a process. The users are read again now and then, since a loss of data
that ends no connection publishes nothing.
"""

from collections.abc import AsyncGenerator, Iterable

import anyio

from reactor.backend.interface import Backend
from reactor.presence.people import PeopleStore, PersonInfo, shown_rooms
from reactor.presence.people_feed import FollowedPerson, PeopleFeed
from reactor.presence.watch_subscription import WatchSubscription
from reactor.tasks import Spawner


class PersonWatches:
    """The users whom this process watches, over one subscription, which starts with the first.

    interval: seconds between two readings of them.
    """

    def __init__(self, backend: Backend, store: PeopleStore, tasks: Spawner, *, interval: float) -> None:
        self._tasks, self._interval = tasks, interval
        self._reading_again = False
        self._subscription = WatchSubscription(backend, tasks)
        self._feed = self._subscription.feed = PeopleFeed(
            store, self._subscription.channels, tasks, on_changed=self._on_changed
        )
        self._watchers: list[_Watcher] = []

    async def watch(self, user_ids: Iterable[str]) -> AsyncGenerator[PersonInfo]:
        """Yield users as they are, then each whenever it changes. May raise Unavailable."""
        await self._subscription.begin()
        if not self._reading_again:
            self._reading_again = True
            self._tasks.start_soon(self._read_again)
        users = list(dict.fromkeys(user_ids))
        await self._feed.follow(users)
        watcher = _Watcher(users)
        self._watchers.append(watcher)
        try:
            while True:
                for user_id in watcher.take():
                    person = self._feed.get(user_id)
                    if person is not None and watcher.is_new(info := info_of(person)):
                        yield info
                await watcher.changed.wait()
                if watcher.error is not None:
                    raise watcher.error
        finally:
            self._watchers.remove(watcher)
            self._feed.unfollow(users)

    def fail(self, error: Exception) -> None:
        """End every iteration with an error."""
        for watcher in self._watchers:
            watcher.error = error
            watcher.changed.set()

    async def _read_again(self) -> None:
        while True:
            await anyio.sleep(self._interval)
            self._feed.resync()

    def _on_changed(self, person: FollowedPerson) -> None:
        for watcher in self._watchers:
            watcher.put(person.user_id)


class _Watcher:
    """One iteration: who has changed since, and what it was given last of each."""

    def __init__(self, users: list[str]) -> None:
        self._users = frozenset(users)
        self._waiting = dict.fromkeys(users)
        self._given: dict[str, PersonInfo] = {}
        self.changed = anyio.Event()
        self.error: Exception | None = None

    def put(self, user_id: str) -> None:
        if user_id in self._users:
            self._waiting[user_id] = None
            self.changed.set()

    def take(self) -> list[str]:
        taken, self._waiting = list(self._waiting), {}
        self.changed = anyio.Event()
        return taken

    def is_new(self, info: PersonInfo) -> bool:
        known = self._given.get(info.user_id)
        self._given[info.user_id] = info
        return known != info


def info_of(person: FollowedPerson) -> PersonInfo:
    """Return what is known of a user who is followed; without the number of connections."""
    return PersonInfo(
        user_id=person.user_id,
        status=person.status,
        since=person.since,
        last_seen=person.last_seen,
        rooms=shown_rooms(person.rooms),
    )
