"""Rooms watched as events, by programs that have only Redis.

One subscription serves all watchers of a process.
"""

from collections import deque
from collections.abc import AsyncGenerator

import anyio
from msgspec.structs import replace

from reactor.backend.interface import Backend
from reactor.presence.departures import Departures
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rows import built_member
from reactor.presence.store import Store
from reactor.presence.watch_subscription import WatchSubscription
from reactor.protocol.events import RoomEvent, SyncEvent, events_of
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import diff_between
from reactor.tasks import Spawner

MAX_BEHIND = 10_000
"""Diffs that a watcher may be behind. A watcher that is further behind gets the whole list, as a `sync`."""


class Watcher:
    """One iteration over a room's events: the members as of the last event, and the diffs after it."""

    def __init__(self, room_id: str) -> None:
        self._room_id = room_id
        self._epoch = ""
        self._members: dict[str, Member] = {}
        self._diffs: deque[RoomDiff] = deque()
        self._changed = anyio.Event()
        self._behind = False
        self._error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Have the iteration raise an error: no diffs will come any more."""
        self._error = error
        self._changed.set()

    def put(self, diff: RoomDiff) -> None:
        """Add a diff; where too many wait, all are dropped and the next event is a `sync`."""
        if len(self._diffs) >= MAX_BEHIND:
            self._behind = True
            self._diffs.clear()
        self._diffs.append(diff)
        self._changed.set()

    async def next_diffs(self) -> list[RoomDiff]:
        """Wait for diffs; an empty list means that the watcher fell behind and needs a `sync`."""
        if not self._diffs and self._error is None:
            await self._changed.wait()
        if self._error is not None:
            raise self._error
        self._changed = anyio.Event()
        if self._behind:
            self._behind = False
            self._diffs.clear()
            return []
        diffs = list(self._diffs)
        self._diffs.clear()
        return diffs

    def sync(self, epoch: str, members: dict[str, Member]) -> SyncEvent:
        """Start from a list of all members, and return it as an event."""
        self._epoch, self._members = epoch, {user: built_member(one) for user, one in members.items()}
        return SyncEvent(
            kind="sync", room_id=self._room_id, count=len(members), members=tuple(self._members.values())
        )

    def events(self, diff: RoomDiff) -> list[RoomEvent]:
        """Return the events of the next diff."""
        joined, updated = list(map(built_member, diff.joined)), list(map(built_member, diff.updated))
        diff = replace(diff, joined=joined, updated=updated)
        if diff.epoch != self._epoch:
            # The first diff of an epoch holds the whole room: only what differs from before is an event.
            self._epoch = diff.epoch
            reasons = {left.user_id: left.reason for left in diff.left}
            joined, updated, gone = diff_between(self._members, diff.joined)
            left = [type(one)(one.user_id, reasons.get(one.user_id, one.reason)) for one in gone]
            diff = RoomDiff(
                diff.room_id, diff.epoch, diff.from_, diff.version, diff.count, joined, updated, left
            )
        events = events_of(diff, self._members)
        for departed in diff.left:
            self._members.pop(departed.user_id, None)
        self._members.update((member.user_id, member) for member in (*diff.joined, *diff.updated))
        return events


class Watches:
    """The rooms that this process watches, over one subscription, which starts with the first."""

    def __init__(self, backend: Backend, store: Store, departures: Departures, tasks: Spawner) -> None:
        self._watchers: dict[str, set[Watcher]] = {}
        self._subscription = WatchSubscription(backend, tasks)
        self._feed = self._subscription.feed = RoomFeed(
            store, self._subscription.channels, departures, tasks,
            on_diff=self._on_diff, on_left=lambda _room_id, _left, _member: None,
        )  # fmt: skip

    async def watch(self, room_id: str) -> AsyncGenerator[RoomEvent]:
        """Yield a `sync` with the whole list, then every join, update and leave. May raise Unavailable."""
        await self._subscription.begin()
        view = await self._feed.follow(room_id)
        watcher = Watcher(room_id)
        self._watchers.setdefault(room_id, set()).add(watcher)
        try:
            yield watcher.sync(view.epoch, view.members)
            while True:
                diffs = await watcher.next_diffs()
                if not diffs:
                    yield watcher.sync(view.epoch, view.members)
                for diff in diffs:
                    for event in watcher.events(diff):
                        yield event
        finally:
            self._watchers[room_id].discard(watcher)
            if not self._watchers[room_id]:
                del self._watchers[room_id]
            self._feed.unfollow(room_id)

    def fail(self, error: Exception) -> None:
        """End every iteration with an error."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.fail(error)

    def _on_diff(self, diff: RoomDiff) -> None:
        for watcher in self._watchers.get(diff.room_id, ()):
            watcher.put(diff)
