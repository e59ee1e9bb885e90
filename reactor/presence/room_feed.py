"""The node's own view of each room in which it has a member, kept by the diffs that the scripts publish.

A view comes from one listing and the diffs after it. A gap in the versions, or a subscription that had to
be made anew, is healed by another listing; what it shows to have changed is handed on as a diff, so that
whoever follows the rooms through `on_diff` sees one unbroken line.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import anyio
import msgspec
import structlog

from reactor.backend.interface import Channels
from reactor.errors import Unavailable
from reactor.presence.departures import Departures
from reactor.presence.healing import healing_diff, look, reasons_told_since, record_lost
from reactor.presence.keys import diff_channel
from reactor.presence.rows import (
    ROOM_MESSAGE_PREFIX,
    DiffRow,
    LeftRow,
    decode_diff,
    is_unknown_kind,
    parse_room_message,
)
from reactor.presence.store import RoomListing, Store
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import DiffResult, RoomView, visibly_changed
from reactor.tasks import Spawner

log = structlog.get_logger()

CATCH_UP = 1.0
"""Seconds. A diff that Redis published but that has not come by then is taken for lost."""
NO_LINK_PATIENCE = 1.0
"""Seconds that a first join of a room waits while the link for diffs is down."""
CONFIRMED_WITHIN = 5.0
"""Seconds that a room's first holders wait for its channel."""
HEAL_AGAIN_AFTER = 0.2


class Room:
    """A room that this node follows: its view, who holds it, and who waits for it to move on."""

    __slots__ = ("asked", "failed", "healing", "holders", "listed", "ready", "view", "waiting")

    def __init__(self, room_id: str) -> None:
        self.view = RoomView(room_id)
        self.holders = 0
        self.ready = asyncio.Event()
        self.failed: Unavailable | None = None
        self.healing = False
        self.asked = self.listed = 0  # listings: how many were asked for, and the newest that was taken
        self.waiting: list[tuple[int, asyncio.Event]] = []


class RoomFeed:
    """The rooms that a node follows.

    on_diff(diff) is called for each change of a view, in order, after it was applied.
    on_room_message(room_id, at, data) is called for each message to a room: Redis's time (ms) and JSON.

    is_data_loss(room_id, user_ids) is asked when a followed room begins a new epoch with these users: whether
    Redis must have lost data. It then pauses the feed.

    tasks: where listings run. A room is followed from its first `hold` to the last `release`.
    """

    def __init__(
        self, store: Store, subscription: Channels, departures: Departures, tasks: Spawner, *,
        on_diff: Callable[[RoomDiff], None], on_left: Callable[[str, LeftRow, Member | None], None],
        on_room_message: Callable[[str, int, bytes], None] = lambda _room_id, _at, _data: None,
        is_data_loss: Callable[[str, set[str]], bool] = lambda _room_id, _user_ids: False,
    ) -> None:  # fmt: skip
        self._store, self._subscription, self._departures = store, subscription, departures
        self._tasks, self._on_diff, self._on_left, self._on_room_message = (
            tasks,
            on_diff,
            on_left,
            on_room_message,
        )
        self._is_data_loss = is_data_loss
        self._rooms: dict[str, Room] = {}
        self._by_channel: dict[bytes, str] = {}
        self._open_gate = anyio.Event()
        self._open_gate.set()
        self._missed = 0
        self.resyncs: Counter[str] = Counter()

    def view(self, room_id: str) -> RoomView | None:
        """The view of a room that is followed and known."""
        room = self._rooms.get(room_id)
        return room.view if room is not None and room.ready.is_set() else None

    def rooms(self) -> Iterable[str]:
        """The rooms that are followed."""
        return self._rooms.keys()

    async def follow(self, room_id: str) -> RoomView:
        """Follow the room; return when its view is there. Raises Unavailable, and then does not hold it."""
        room = self._rooms.get(room_id)
        if room is None:
            room = self._rooms[room_id] = Room(room_id)
            self._by_channel[diff_channel(self._store.namespace, room_id).encode()] = room_id
            self._tasks.start_soon(self._open, room_id, room)
        room.holders += 1
        try:
            await room.ready.wait()
            if room.failed is not None:
                raise Unavailable(str(room.failed))
        except BaseException:
            self.unfollow(room_id, room)
            raise
        return room.view

    def unfollow(self, room_id: str, held: Room | None = None) -> None:
        """Let go of the room; with the last holder it is followed no more."""
        room = self._rooms.get(room_id)
        if room is None or (held is not None and held is not room):
            return
        room.holders -= 1
        if room.holders == 0:
            self._forget(room_id)

    async def wait_for_version(self, room_id: str, epoch: str, version: int) -> RoomView:
        """The room's view, once it is at that version or newer.

        Raises Unavailable when the room is followed no more.
        """
        first, room = self._rooms.get(room_id), None
        asked = first.asked if first is not None else 0
        while True:
            room = self._rooms.get(room_id)
            if room is None or room is not first:
                raise Unavailable("the room is not followed any more")
            # A listing that was asked for from here on is newer than what the caller knows of, in any epoch.
            there = room.listed > asked or (room.view.epoch == epoch and room.view.version >= version)
            if there and not room.healing:
                return room.view
            moved = asyncio.Event()
            room.waiting.append((version, moved))
            with anyio.move_on_after(CATCH_UP) as waited:
                await moved.wait()
            if waited.cancelled_caught and not room.healing:
                self._heal(room, "diff_lost", (room.view.epoch, room.view.version))

    def offer(self, room_id: str, payload: bytes) -> None:
        """Take a diff that came back with a script's reply, ahead of its publication.

        One that does not fit waits for that.
        """
        room = self._rooms.get(room_id)
        if room is not None and payload:
            row = decode_diff(payload)
            if room.view.epoch == row.epoch and row.from_version == room.view.version and not room.healing:
                self._take(room, row, row.diff(room_id))

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """A publication on the channel of a room."""
        room_id = self._by_channel.get(channel)
        if room_id is None:
            return
        room = self._rooms[room_id]
        try:
            if payload.startswith(ROOM_MESSAGE_PREFIX):
                self._on_room_message(room_id, *parse_room_message(payload))
                return
            if is_unknown_kind(payload):
                return
            row = decode_diff(payload)
            view = room.view
            if row.version <= view.version and row.epoch == view.epoch and not view.waiting:
                return  # `offer` was faster, as for each join of this node, where it saves 10 us
            diff = row.diff(room_id)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            # Not ours, or of a version of ours to come: what it said is in the list.
            log.warning("diff_unreadable", room=room_id, bytes=len(payload))
            if room.ready.is_set():
                self._heal(room, "unreadable", (room.view.epoch, room.view.version))
        else:
            self._take(room, row, diff)

    def resync(self) -> None:
        """Diffs of any room may have been missed: heal all."""
        self.pause()
        self.resume()

    def pause(self) -> None:
        """Tell nothing until `resume`: diffs were missed, and what Redis says now may be less than true."""
        self._missed += 1
        if self._open_gate.is_set():
            self._open_gate = anyio.Event()
        for room in self._rooms.values():
            if room.ready.is_set() and not room.healing:
                told = room.view.epoch, room.view.version
                room.view.invalidate()
                self._heal(room, "resubscribed", told)

    def resume(self) -> None:
        """Heal every room; what changed meanwhile is told as one diff."""
        self._open_gate.set()

    def last_known(self, room_id: str, user_id: str) -> Member | None:
        """A member as it was last seen, also while the view waits to be healed."""
        room = self._rooms.get(room_id)
        return room.view.members.get(user_id) if room is not None else None

    def _take(self, room: Room, row: DiffRow, diff: RoomDiff) -> None:
        place = room.view.epoch, room.view.version
        members = room.view.members
        anew = row.epoch != room.view.epoch and row.from_version == 0 and not room.view.waiting
        if anew and self._is_data_loss(diff.room_id, {member.user_id for member in diff.joined}):
            return  # what is left of the room is listed when all are back
        leaving = [(left, members.get(left.user_id)) for left in row.left]
        news = [one for one in diff.updated if visibly_changed(members.get(one.user_id), one)]
        # One who was held, and not on the list when the view was made, comes in as far as anyone here knows.
        joined = [*diff.joined, *(one for one in news if one.user_id not in members)]
        news = [one for one in news if one.user_id in members]
        verdict = room.view.apply(diff)
        if verdict is DiffResult.APPLIED:
            self._moved(room)
            for left, member in leaving:
                self._on_left(diff.room_id, left, member)
            # No news is who was not listed any more when the view was made, or is entered again as it was.
            known = [told for told, (_, member) in zip(diff.left, leaving, strict=True) if member is not None]
            count = len(room.view.members)  # Redis counts those too whose end does not count yet
            self._on_diff(msgspec.structs.replace(diff, left=known, joined=joined, updated=news, count=count))
        elif verdict is DiffResult.GAP:
            self._heal(room, "gap", place)

    def _moved(self, room: Room) -> None:
        if room.waiting:
            version = room.view.version
            for awaited, event in room.waiting:
                if version >= awaited:
                    event.set()
            room.waiting = [waiter for waiter in room.waiting if not waiter[1].is_set()]

    async def _open(self, room_id: str, room: Room) -> None:
        try:
            # Without a link nobody is kept waiting: it is more likely to be Redis than a moment.
            with anyio.fail_after(CONFIRMED_WITHIN if self._subscription.listening else NO_LINK_PATIENCE):
                await self._subscription.subscribe(diff_channel(self._store.namespace, room_id))
                await self._open_gate.wait()
            while True:
                missed = self._missed
                listing = await self._store.members(room_id)
                if missed == self._missed:
                    break
        except (Unavailable, TimeoutError) as error:
            room.failed = Unavailable(str(error) or "Redis did not confirm the subscription")
            if self._rooms.get(room_id) is room:
                self._forget(room_id)
        else:
            if room.view.reset(*_snapshot(listing)) is DiffResult.GAP:
                self._heal(room, "gap", (room.view.epoch, room.view.version))
        room.ready.set()

    def _heal(self, room: Room, cause: str, told: tuple[str, int]) -> None:
        """Replace the view by a listing. told: the epoch and version up to which diffs were handed on."""
        if not room.healing:
            room.healing = room.view.waiting = True
            self.resyncs[cause] += 1
            log.info("room_resync", room=room.view.room_id, cause=cause)
            self._tasks.start_soon(self._heal_now, room, told)

    async def _heal_now(self, room: Room, told: tuple[str, int]) -> None:
        room_id, before = room.view.room_id, dict(room.view.members)
        while self._rooms.get(room_id) is room:
            await self._open_gate.wait()
            missed = self._missed
            room.asked += 1
            asked = room.asked
            try:
                found = await look(self._store, self._departures, room_id, before)
                another = found.epoch != told[0] != ""
                if another and missed == self._missed:
                    if self._is_data_loss(room_id, {member.user_id for member in found.members}):
                        continue
                    recorded = await record_lost(self._store, room_id, found)
                    if recorded is None:
                        continue
                    found = found._replace(reasons=recorded)
            except Unavailable:
                await anyio.sleep(HEAL_AGAIN_AFTER)
                continue
            if self._rooms.get(room_id) is not room:
                return  # let go of meanwhile, and followed anew by another
            reasons = {**reasons_told_since(room.view, found, before), **found.reasons}
            # What was found before the last loss does not show what was missed then.
            if missed != self._missed or room.view.reset(*found[1:4]) is DiffResult.GAP:
                continue
            room.healing, room.listed = False, asked
            for _, event in room.waiting:
                event.set()
            room.waiting.clear()
            if (room.view.epoch, room.view.version) != told:
                diff = healing_diff(room.view, before, told, reasons)
                self._tell_healed(diff, before, found.now)
            return

    def _tell_healed(self, diff: RoomDiff, before: Mapping[str, Member], now: int) -> None:
        for left in diff.left:
            row = LeftRow(left.user_id, left.reason, now, "")
            self._on_left(diff.room_id, row, before.get(left.user_id))
        self._on_diff(diff)

    def _forget(self, room_id: str) -> None:
        room = self._rooms.pop(room_id)
        channel = diff_channel(self._store.namespace, room_id)
        del self._by_channel[channel.encode()]
        self._subscription.unsubscribe(channel)
        for _, event in room.waiting:
            event.set()


def _snapshot(listing: RoomListing) -> tuple[str, int, list[Member]]:
    return listing.position.epoch, listing.position.version, listing.members
