"""What happens in rooms, as events, for whoever has only Redis.

One subscription serves all watchers of a process.
"""

from collections import deque
from collections.abc import AsyncIterator

import anyio

from reactor.backend.interface import Backend
from reactor.presence.departures import Departures
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Store
from reactor.protocol.events import RoomEvent, events_of
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import diff_between
from reactor.tasks import Spawner

MAX_BEHIND = 10_000
"""Diffs that a watcher may be behind. One that is further gets the whole list anew, as a `sync`."""


class Watcher:
    """One iteration over a room's events, and what it has told so far."""

    def __init__(self, room_id: str) -> None:
        self._room_id = room_id
        self._epoch = ""
        self._told: dict[str, Member] = {}
        self._diffs: deque[RoomDiff] = deque()
        self._news = anyio.Event()
        self._behind = False

    def put(self, diff: RoomDiff) -> None:
        """Take a diff; the oldest are dropped where too many wait."""
        if len(self._diffs) >= MAX_BEHIND:
            self._behind = True
            self._diffs.clear()
        self._diffs.append(diff)
        self._news.set()

    async def next_diffs(self) -> list[RoomDiff]:
        """Wait for news; empty when the watcher fell behind and has to be synced."""
        if not self._diffs:
            await self._news.wait()
        self._news = anyio.Event()
        if self._behind:
            self._behind = False
            self._diffs.clear()
            return []
        diffs = list(self._diffs)
        self._diffs.clear()
        return diffs

    def sync(self, epoch: str, members: dict[str, Member]) -> RoomEvent:
        """Start from a whole list."""
        self._epoch, self._told = epoch, dict(members)
        return RoomEvent(
            kind="sync", room_id=self._room_id, count=len(members), members=tuple(members.values())
        )

    def events(self, diff: RoomDiff) -> list[RoomEvent]:
        """The events of a diff, noted as told."""
        if diff.epoch != self._epoch:
            # A fresh room comes whole: tell only what differs from what was told of the former one.
            self._epoch = diff.epoch
            reasons = {left.user_id: left.reason for left in diff.left}
            joined, updated, gone = diff_between(self._told, diff.joined)
            left = [type(one)(one.user_id, reasons.get(one.user_id, one.reason)) for one in gone]
            diff = RoomDiff(
                diff.room_id, diff.epoch, diff.from_, diff.version, diff.count, joined, updated, left
            )
        events = events_of(diff, self._told)
        for departed in diff.left:
            self._told.pop(departed.user_id, None)
        self._told.update((member.user_id, member) for member in (*diff.joined, *diff.updated))
        return events


class Watches:
    """The rooms that this process watches."""

    def __init__(self, backend: Backend, store: Store, departures: Departures, tasks: Spawner) -> None:
        self._watchers: dict[str, set[Watcher]] = {}
        self._tasks = tasks
        self._serving = False
        self._subscription = backend.channels(self._on_message, self._on_gap, self._on_lost)
        self._feed = RoomFeed(
            store, self._subscription, departures, tasks,
            on_diff=self._on_diff, on_left=lambda _room_id, _left, _member: None,
        )  # fmt: skip

    async def watch(self, room_id: str) -> AsyncIterator[RoomEvent]:
        """A `sync` with the whole list, then every join, update and leave. It may begin with Unavailable."""
        if not self._serving:
            self._serving = True
            self._tasks.start_soon(self._subscription.serve)
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

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        self._feed.on_message(channel, payload)

    def _on_gap(self, first: bool) -> None:
        if not first:
            self._feed.resync()

    def _on_lost(self, reason: str) -> None:
        """Nothing to do: the subscription comes back by itself, and a gap then tells that it did."""

    def _on_diff(self, diff: RoomDiff) -> None:
        for watcher in self._watchers.get(diff.room_id, ()):
            watcher.put(diff)
