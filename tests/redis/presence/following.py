"""A receiver of what a feed passes on of the lobby, while a probe changes it and messages get lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from reactor.backend.interface import ChannelCallbacks
from reactor.presence.recent_diffs import RecentDiffs
from reactor.presence.replies import RoomListing
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rows import LeftRow
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import RoomView
from tests.redis.presence.probe import Probe
from tests.support.keyspace import diff_channel
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, connected
from tests.support.waiting import until

CHANNEL = diff_channel(NAMESPACE, "lobby")


class Follower:
    """A feed, a view advanced by what it passes on, and a probe that changes the rooms."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.diffs: list[RoomDiff] = []
        self.left: list[tuple[str, str, str | None]] = []
        self.known: list[tuple[str, int]] = []  # rooms, and how many diffs were passed on before
        self.view = RoomView("lobby")
        self.publications_to_drop = 0  # the number of publications that do not arrive
        self.kept: list[bytes] = []
        self.feed: RoomFeed
        self.channels: Any

    def on_diff(self, diff: RoomDiff) -> None:
        """Check that the diff continues the one before, or begins a new epoch."""
        if diff.room_id == "lobby" and not self.view.waiting:
            fresh = diff.from_ == 0 and diff.epoch != self.view.epoch
            assert fresh or (diff.epoch, diff.from_) == (self.view.epoch, self.view.version), diff
            assert fresh or diff.version > diff.from_, diff
            self.view.apply(diff)
        self.diffs.append(diff)

    def on_left(self, room_id: str, left: LeftRow, member: Member | None) -> None:
        self.left.append((left.user_id, left.reason, member.username if member else None))

    def on_known(self, room_id: str) -> None:
        self.known.append((room_id, len(self.diffs)))

    def on_message(self, channel: bytes, payload: bytes) -> None:
        if self.publications_to_drop:
            self.publications_to_drop -= 1
            self.kept.append(payload)
        else:
            self.feed.on_message(channel, payload)

    def on_gap(self, first: bool) -> None:
        if not first:
            self.feed.resync()

    async def follow(self) -> RoomView:
        view = await self.feed.follow("lobby")
        self.view.reset(view.epoch, view.version, view.members.values())
        return view

    def during_next_list(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Run this between reading and using the next list of a room, which is outdated then."""
        store = self.feed._store
        listed = store.members

        async def slow(*args: Any) -> RoomListing:
            listing = await listed(*args)
            store.members = listed  # type: ignore[method-assign]
            await meanwhile()
            return listing

        store.members = slow  # type: ignore[method-assign, assignment]

    async def agrees(self) -> None:
        """Wait until the view, its receiver and Redis agree."""

        def same() -> bool:
            members = self.probe.in_room("list", "lobby", 0, 1000)
            names = {members[i].decode() for i in range(5, len(members), 7)}
            return names == set(self.view.members) == set(self._known()) and self.view.version == members[2]

        await until(same)

    def _known(self) -> set[str]:
        view = self.feed.view("lobby")
        return set(view.members) if view is not None and not view.waiting else {"(nothing known)"}


@asynccontextmanager
async def following(server: Server, *, follow: bool = True, recent_diffs: int = 0) -> AsyncIterator[Follower]:
    probe = Probe(server)
    try:
        async with connected(server) as redis:
            follower = Follower(probe)
            follower.channels = redis.backend.channels(
                ChannelCallbacks(follower.on_message, follower.on_gap, lambda _reason: None)
            )
            follower.feed = RoomFeed(
                redis.store, follower.channels, redis.departures, redis.tasks,
                on_diff=follower.on_diff, on_left=follower.on_left, on_known=follower.on_known,
                recent=RecentDiffs(recent_diffs),
            )  # fmt: skip
            redis.tasks.start_soon(follower.channels.serve)
            if follow:
                await follower.follow()
            yield follower
    finally:
        probe.close()
