"""The node's own view of each room in which it has a member, advanced by the diffs that the scripts publish.

A view is made from one list of the room and the diffs after it. After a gap in the versions, or in the
subscription, the room is resynchronised by another list; what changed in between is passed to `on_diff` as
one diff, so that its receivers see every change exactly once and in order.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

import anyio
import structlog
from msgspec.structs import replace

from reactor.backend.interface import Channels
from reactor.errors import UNREADABLE, Unavailable
from reactor.presence.departures import Departures, MembershipKey
from reactor.presence.keys import Entry, suffix
from reactor.presence.lingering import LingeringRooms
from reactor.presence.recent_diffs import RecentDiffs
from reactor.presence.replies import RoomListing
from reactor.presence.rows import (
    DiffRow,
    LeftRow,
    decode_diff,
    is_room_message,
    is_unknown_kind,
    parse_room_message,
)
from reactor.presence.store import ANSWER_TIME, Store
from reactor.protocol.messages import Departed, Member, RoomDiff, RoomMessage
from reactor.protocol.room import DiffResult, RoomView, diff_between, visibly_changed
from reactor.tasks import Spawner

log = structlog.get_logger()

DIFF_TIMEOUT = 1.0
"""Seconds within which a diff that Redis published has to arrive; afterwards it counts as lost."""
DISCONNECTED_TIMEOUT = 1.0
"""Seconds that the first join of a room waits while the subscription is disconnected."""
SUBSCRIBE_TIMEOUT = 5.0
"""Seconds that the first join of a room waits for the confirmation of its channel."""
KNOWN_WITHIN = 5.0
"""Seconds that a request waits for a room to be known again, after diffs of it were missed."""
RESYNC_RETRY = 0.2
"""Seconds between attempts to list a room while Redis does not answer."""
LOOK_AGAIN = 1.0
"""Seconds after which it is looked whether who waits for a list can pay for it, or is gone."""
MAX_QUESTIONS = 3
"""How often nodes are asked for members that may have been evicted."""
DISCONNECTED = "disconnected"
"""The reason for members that were lost with Redis's data and for whose departure none is recorded."""

ViewPosition = tuple[str, int]
"""A view's epoch and version."""


CAUSES = ("diff_lost", "gap", "resubscribed", "unreadable", "moved", "data_lost")
"""Why a room is listed again."""


class Payer(Protocol):
    """Who pays for the first list of a room."""

    def charge(self, members: int, size: int) -> None:
        """Charge for a list of so many members, whose data has `size` bytes."""
        ...

    def wait(self) -> float:
        """Return for how many seconds nothing more is to be read for it. May raise Unavailable."""
        ...


async def _do_nothing(_room_id: str) -> None:
    pass


class FollowedRoom:
    """A room that this node follows: its view, its number of followers, and who waits for a version.

    lists_requested: how many lists were requested so far. newest_list: the number of the newest one applied.
    listed: the members in its first list, and the bytes of their data; about, until all were read.
    payer: who pays for that list. begun: whether its first page was read, or there will be none. paid:
    whether the rest may be read.
    """

    __slots__ = (
        "begun", "failed", "followers", "listed", "lists_requested", "newest_list", "paid", "payer", "ready",
        "resyncing", "view", "waiting",
    )  # fmt: skip

    def __init__(self, room_id: str, payer: Payer | None = None) -> None:
        self.view = RoomView(room_id)
        self.followers = 0
        self.payer = payer
        self.begun, self.paid, self.ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.failed: Unavailable | None = None
        self.resyncing = False
        self.lists_requested = self.newest_list = 0
        self.listed = 0, 0
        self.waiting: list[tuple[int, asyncio.Event]] = []

    @property
    def position(self) -> ViewPosition:
        """Where the view is."""
        return self.view.epoch, self.view.version

    def charge(self, members: int, size: int) -> None:
        """Charge who was the first to follow the room for its list."""
        self.listed = members, size
        if self.payer is not None:
            self.payer.charge(members, size)

    def wake(self, version: float) -> None:
        """Wake those that wait for this version or an older one."""
        if self.waiting:
            for awaited, event in self.waiting:
                if version >= awaited:
                    event.set()
            self.waiting = [waiter for waiter in self.waiting if not waiter[1].is_set()]


class RoomFeed:
    """The rooms that a node follows, each from the first `follow` to the last `unfollow`.

    on_diff(diff): called for each change of a view, in order, after it was applied.
    on_known(room_id): called when a view that was resynchronised is known again, after its change, if there
    is one, was passed on.
    on_left(room_id, row, member): called for each departure before its diff; `member` as last seen, or None.
    on_room_message(message, to): called for each message to a room; to: see `parse_room_message`.
    recent: keeps the diffs of the views, for clients that return.
    is_data_loss(room_id, user_ids): asked when a list shows a followed room in a new epoch with these users,
    whether Redis must have lost data; where it has, this callback also pauses the feed.
    before_list(room_id): awaited before the first list of a room.
    on_data_lost(room_id): called when a diff shows it: a room begins anew that is not empty here.
    tasks: where lists are read.
    """

    def __init__(
        self, store: Store, subscription: Channels, departures: Departures, tasks: Spawner, *,
        on_diff: Callable[[RoomDiff], None], on_left: Callable[[str, LeftRow, Member | None], None],
        on_known: Callable[[str], None] = lambda _room_id: None,
        on_room_message: Callable[[RoomMessage, list[str] | None], None] = lambda _message, _to: None,
        is_data_loss: Callable[[str, set[str]], bool] = lambda _room_id, _user_ids: False,
        on_data_lost: Callable[[str], None] = lambda _room_id: None,
        before_list: Callable[[str], Awaitable[None]] = _do_nothing,
        recent: RecentDiffs | None = None,
    ) -> None:  # fmt: skip
        self.recent = recent or RecentDiffs(0)
        self._store, self._subscription, self._departures = store, subscription, departures
        self._tasks, self._on_diff, self._on_left = tasks, on_diff, on_left
        self._on_known, self._on_room_message = on_known, on_room_message
        self._is_data_loss, self._on_data_lost = is_data_loss, on_data_lost
        self._before_list = before_list
        self._rooms: dict[str, FollowedRoom] = {}
        self._by_channel: dict[bytes, str] = {}
        self._resumed = anyio.Event()
        self._resumed.set()
        self._gaps = 0
        # Their views take at most a quarter as much as the recent diffs.
        self._lingering = LingeringRooms(self.recent.max_bytes // 4, self._remove)
        self.resyncs: Counter[str] = Counter()

    def view(self, room_id: str) -> RoomView | None:
        """Return the view of a followed room, or None before its first list has arrived."""
        room = self._rooms.get(room_id)
        return room.view if room is not None and room.ready.is_set() else None

    def rooms(self) -> Collection[str]:
        """Return the ids of the followed rooms."""
        return self._rooms.keys()

    def last_known(self, room_id: str, user_id: str) -> Member | None:
        """Return a member as last seen, also while the room is resynchronised."""
        room = self._rooms.get(room_id)
        return room.view.members.get(user_id) if room is not None else None

    async def follow(self, room_id: str, payer: Payer | None = None) -> RoomView:
        """Follow a room and return its view. Raises Unavailable; otherwise each call needs one `unfollow`.

        The first to follow a room pays for its list. Of more than a page the rest is read once one of those
        who wait for it may spend that much: who comes later and can pay does not wait for the first.
        """
        room = self._rooms.get(room_id)
        if room is None:
            room = self._rooms[room_id] = FollowedRoom(room_id, payer)
            self._by_channel[self._store.diff_channel(room_id).encode()] = room_id
            self._tasks.start_soon(self._open, room_id, room)
        elif room.followers == 0:
            self._lingering.discard(room_id)
        room.followers += 1
        try:
            await room.begun.wait()
            if not room.paid.is_set():
                await _pay(room, payer)
            await room.ready.wait()
            if room.failed is not None:
                raise Unavailable(str(room.failed))
        except BaseException:
            self.unfollow(room_id, room)
            raise
        return room.view

    def unfollow(self, room_id: str, followed: FollowedRoom | None = None) -> None:
        """Undo one `follow`; with the last one, or some time after it, the room's channel is unsubscribed."""
        room = self._rooms.get(room_id)
        if room is None or room.followers == 0 or (followed is not None and followed is not room):
            return  # it lingers, or it was followed anew
        room.followers -= 1
        if room.followers == 0:
            members = 0 if room.view.waiting else len(room.view.members)
            if not self._lingering.add(room_id, members):
                self._remove(room_id)

    async def wait_for_version(self, room_id: str, epoch: str, version: int) -> RoomView:
        """Return the room's view once it has reached that version, or a newer list has replaced it.

        Raises Unavailable when the room is no longer followed, or not known within KNOWN_WITHIN: Redis may
        refuse what a list needs, and take joins.
        """
        deadline = anyio.current_time() + KNOWN_WITHIN
        first, room = self._rooms.get(room_id), None
        requested = first.lists_requested if first is not None else 0
        while True:
            room = self._rooms.get(room_id)
            if room is None or room is not first:
                raise Unavailable("the room is not followed any more")
            # A list that was requested from here on is newer than what the caller knows, in any epoch.
            reached = room.newest_list > requested or (
                room.view.epoch == epoch and room.view.version >= version
            )
            if reached and not room.resyncing:
                return room.view
            left = deadline - anyio.current_time()
            if left <= 0:
                raise Unavailable("diffs of the room were missed, and it cannot be listed")
            woken = asyncio.Event()
            room.waiting.append((version, woken))
            with anyio.move_on_after(min(DIFF_TIMEOUT, left)) as waited:
                await woken.wait()
            if waited.cancelled_caught and not room.resyncing:
                self._start_resync(room, "diff_lost", room.position)

    def offer(self, room_id: str, payload: bytes) -> None:
        """Apply a diff that a script returned, before its publication arrives, if it continues the view."""
        room = self._rooms.get(room_id)
        if room is not None and payload:
            row = decode_diff(payload)
            if (row.epoch, row.from_version) == room.position and not room.resyncing:
                self._apply(room, row, row.diff(room_id), payload)

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """Handle a publication on a room's channel: a diff, or a message to the room."""
        room_id = self._by_channel.get(channel)
        if room_id is None:
            return
        room = self._rooms[room_id]
        try:
            if is_room_message(payload):
                self._on_room_message(*parse_room_message(room_id, payload))
                return
            if is_unknown_kind(payload):
                return
            row = decode_diff(payload)
            view = room.view
            if row.version <= view.version and row.epoch == view.epoch and not view.waiting:
                return  # applied by `offer`, as for each join of this node, where skipping it saves 10 us
            diff = row.diff(room_id)
        except UNREADABLE:
            # Published by another program, or in the format of a newer release: the list has its content.
            log.warning("diff_unreadable", room=room_id, bytes=len(payload))
            if room.ready.is_set():
                self._start_resync(room, "unreadable", room.position)
        else:
            self._apply(room, row, diff, payload)

    def resync(self, channels: frozenset[str] | None = None) -> None:
        """Resynchronise the rooms of these channels, or every room: diffs may have been missed."""
        if channels is None:
            self.pause()
            self.resume()
            return
        for channel in channels:
            room = self._rooms.get(self._by_channel.get(channel.encode(), ""))
            if room is not None and room.ready.is_set():
                self._start_resync(room, "moved", room.position)

    def pause(self) -> None:
        """Pass on nothing until `resume`: diffs were missed, and Redis may have lost data."""
        self._gaps += 1
        for room_id in self._lingering.rooms():
            self._remove(room_id)
        if self._resumed.is_set():
            self._resumed = anyio.Event()
        for room in self._rooms.values():
            if room.ready.is_set() and not room.resyncing:
                position = room.position
                room.view.invalidate()
                self._start_resync(room, "resubscribed", position)

    def resume(self) -> None:
        """Resynchronise every room; what changed in each is passed on as one diff."""
        self._resumed.set()

    # Private methods

    def _apply(self, room: FollowedRoom, row: DiffRow, diff: RoomDiff, payload: bytes) -> None:
        position, members = room.position, room.view.members
        if row.epoch != room.view.epoch and row.from_version == 0 and not room.view.waiting:
            listed = {one.user_id for one in diff.joined}.union(one.user_id for one in diff.left)
            if not members.keys() <= listed:
                # A script begins a room anew only when it is empty, and the departures that empty it come
                # before. The members that are missing need not be connected here: other nodes register theirs
                # again too.
                self._on_data_lost(diff.room_id)
                self._start_resync(room, "data_lost", position)
                return
        leaving = [(left, members.get(left.user_id)) for left in row.left]
        visible = _visible_part(diff, members) if diff.left or diff.updated else diff
        result = room.view.apply(diff)
        if result is DiffResult.APPLIED:
            room.wake(room.view.version)
            for left, member in leaving:
                self._on_left(diff.room_id, left, member)
            count = len(room.view.members)  # the diff's count includes suspended members
            sent = visible if visible.count == count else replace(visible, count=count)
            self._pass_on(room, sent, payload if visible is diff else b"")
            if room.followers == 0 and self._lingering.must_end(diff.room_id, count):
                self._remove(diff.room_id)
        elif result is DiffResult.GAP:
            self._start_resync(room, "gap", position)

    async def _open(self, room_id: str, room: FollowedRoom) -> None:
        try:
            # A subscription that is disconnected means most often that Redis is away: fail soon.
            timeout = SUBSCRIBE_TIMEOUT if self._subscription.listening else DISCONNECTED_TIMEOUT
            with anyio.fail_after(timeout):
                await self._subscription.subscribe(self._store.diff_channel(room_id))
                await self._resumed.wait()
            found = await self._first_list(room_id, room)
        except (Unavailable, TimeoutError) as error:
            room.failed = Unavailable(str(error) or "Redis did not confirm the subscription")
            if self._rooms.get(room_id) is room:
                self._remove(room_id)
        else:
            at = found.position
            if not room.paid.is_set():
                room.charge(len(found.members), found.size)
            if room.view.reset(at.epoch, at.version, found.members) is DiffResult.GAP:
                self._start_resync(room, "gap", room.position)
            if self._rooms.get(room_id) is room:
                self.recent.begin(room.view)
        room.paid.set()
        room.begun.set()
        room.ready.set()

    async def _first_list(self, room_id: str, room: FollowedRoom) -> RoomListing:
        while True:
            gaps = self._gaps
            await self._before_list(room_id)
            with suppress(_BeginAnew):
                found = await self._store.members(room_id, partial(self._have_paid, room))
                if gaps == self._gaps:
                    return found

    async def _have_paid(self, room: FollowedRoom, members: int, size: int) -> None:
        """Have the list of a large room paid before it is read on. Raises _BeginAnew where that took time."""
        if room.paid.is_set():
            return
        room.charge(members, size)
        room.begun.set()
        # Those who wait for it run before, and set `paid` at once where one of them can pay.
        await asyncio.sleep(0)
        if room.paid.is_set():
            return
        await room.paid.wait()
        if self._rooms.get(room.view.room_id) is not room:
            raise Unavailable("the room is not followed any more")
        raise _BeginAnew

    def _start_resync(self, room: FollowedRoom, cause: str, position: ViewPosition) -> None:
        """Replace the view by a list. position: up to which diffs were passed on."""
        if room.view.room_id in self._lingering:
            self._remove(room.view.room_id)
            return
        if not room.resyncing:
            room.resyncing = room.view.waiting = True
            self.resyncs[cause] += 1
            log.info("room_resync", room=room.view.room_id, cause=cause)
            self._tasks.start_soon(self._resync_room, room, position)

    async def _resync_room(self, room: FollowedRoom, position: ViewPosition) -> None:
        room_id, before = room.view.room_id, dict(room.view.members)
        while self._rooms.get(room_id) is room:
            await self._resumed.wait()
            gaps = self._gaps
            room.lists_requested += 1
            number = room.lists_requested
            try:
                found = await _read_explained_state(self._store, self._departures, room_id, before)
                new_epoch = found.epoch != position[0] != ""
                if new_epoch and gaps == self._gaps:
                    if self._is_data_loss(room_id, {member.user_id for member in found.members}):
                        continue
                    recorded = await _record_lost_members(self._store, room_id, found)
                    if recorded is None:
                        continue
                    found = found._replace(reasons=recorded)
            except Unavailable:
                await anyio.sleep(RESYNC_RETRY)
                continue
            if self._rooms.get(room_id) is not room:
                return  # unfollowed meanwhile, and perhaps followed again
            reasons = {**_reasons_in_deferred(room.view, found, before), **found.reasons}
            # A list from before the last gap does not show what was missed in it.
            if (
                gaps != self._gaps
                or room.view.reset(found.epoch, found.version, found.members) is DiffResult.GAP
            ):
                continue
            room.resyncing, room.newest_list = False, number
            room.wake(float("inf"))
            if room.position != position:
                diff = _resync_diff(room.view, before, position, reasons)
                for left in diff.left:
                    row = LeftRow(left.user_id, left.reason, found.now, "")
                    self._on_left(room_id, row, before.get(left.user_id))
                self._pass_on(room, diff)
            self._on_known(room_id)
            return

    def _pass_on(self, room: FollowedRoom, diff: RoomDiff, payload: bytes = b"") -> None:
        if self._rooms.get(diff.room_id) is room:  # else its last follower was expelled just now
            self.recent.add(room.view, diff, payload)
        self._on_diff(diff)

    def _remove(self, room_id: str) -> None:
        room = self._rooms.pop(room_id)
        self._lingering.discard(room_id)
        self.recent.forget(room_id)
        channel = self._store.diff_channel(room_id)
        del self._by_channel[channel.encode()]
        self._subscription.unsubscribe(channel)
        room.paid.set()
        room.wake(float("inf"))


class _BeginAnew(Exception):
    """A list that was begun has to begin anew: it would be too old to be continued by the diffs since."""


async def _pay(room: FollowedRoom, payer: Payer | None) -> None:
    """Wait until this payer, or another one, may spend what the list of a room costs."""
    if payer is not None:
        if payer is not room.payer:
            payer.charge(*room.listed)
        while not room.paid.is_set() and (seconds := payer.wait()) > 0:
            with anyio.move_on_after(min(seconds, LOOK_AGAIN)):
                await room.paid.wait()
    room.paid.set()


def _visible_part(diff: RoomDiff, members: Mapping[str, Member]) -> RoomDiff:
    """Return what the receivers of a diff are sent, who have these members: where it is all, the diff itself.

    A member that was suspended when the view was made is missing in it: it cannot leave, and with an update
    it joins.
    """
    changed = [one for one in diff.updated if visibly_changed(members.get(one.user_id), one)]
    joined = [*diff.joined, *(one for one in changed if one.user_id not in members)]
    updated = [one for one in changed if one.user_id in members]
    left = [one for one in diff.left if one.user_id in members]
    if (len(joined), len(updated), len(left)) == (len(diff.joined), len(diff.updated), len(diff.left)):
        return diff
    return replace(diff, joined=joined, updated=updated, left=left)


class _RoomState(NamedTuple):
    """What Redis holds of a room. `members` includes suspended ones.

    gone: members of the view before whose membership has ended. reasons: why, where that is recorded.
    """

    now: int
    epoch: str
    version: int
    members: list[Member]
    gone: list[Member]
    reasons: Mapping[MembershipKey, str]


def membership_key(member: Member) -> MembershipKey:
    """Return what distinguishes this membership of the user from earlier and later ones."""
    return member.user_id, member.joined_at


async def _read_state(
    store: Store, departures: Departures, room_id: str, before: Mapping[str, Member]
) -> _RoomState:
    """Read a room and why those of `before` left it. Raises Unavailable."""
    listing = await store.members(room_id)
    at, members = listing.position, listing.members
    listed = {member.user_id for member in members}
    missing = [member for member in before.values() if member.user_id not in listed]
    # Suspended members are still members: a diff of their own will publish their departure.
    members += await store.still_members(room_id, missing) if missing else ()
    present = {membership_key(member) for member in members}
    gone = [member for member in before.values() if membership_key(member) not in present]
    reasons = await departures.reasons(room_id, map(membership_key, gone))
    return _RoomState(at.now, at.epoch, at.version, members, gone, reasons)


def _reasons_in_deferred(
    view: RoomView, found: _RoomState, before: Mapping[str, Member]
) -> dict[MembershipKey, str]:
    """Return why members of `before` left that the list still has, from deferred diffs after the list."""
    reasons: dict[MembershipKey, str] = {}
    for diff in view.deferred:
        if diff.epoch == found.epoch and diff.version > found.version:
            for left in diff.left:
                if (member := before.get(left.user_id)) is not None:
                    reasons.setdefault(membership_key(member), left.reason)
    return reasons


async def _read_explained_state(
    store: Store, departures: Departures, room_id: str, before: Mapping[str, Member]
) -> _RoomState:
    """Read a room; where Redis may evict keys, once the nodes could restore who left without a record.

    Raises Unavailable.
    """
    found = await _read_state(store, departures, room_id, before)
    for _ in range(MAX_QUESTIONS):
        without = [one for one in found.gone if membership_key(one) not in found.reasons]
        suffixes = [suffix(Entry(room_id, one.user_id)) for one in without]
        if not suffixes or not await store.ask_nodes(store.keys.shard_of(room_id), suffixes):
            break
        await anyio.sleep(ANSWER_TIME)
        found = await _read_state(store, departures, room_id, before)
    return found


async def _record_lost_members(
    store: Store, room_id: str, found: _RoomState
) -> dict[MembershipKey, str] | None:
    """Record the departures of members that were lost with Redis's data.

    Returns the recorded reason of each, or None when one of them is a member again. Raises Unavailable.
    """
    reasons = [found.reasons.get(membership_key(one), DISCONNECTED) for one in found.gone]
    recorded = await asyncio.gather(
        *(store.record_lost_member(room_id, one, why) for one, why in zip(found.gone, reasons, strict=True))
    )
    if None in recorded:
        return None
    return {
        membership_key(one): why for one, why in zip(found.gone, recorded, strict=True) if why is not None
    }


def _resync_diff(
    view: RoomView, before: Mapping[str, Member], position: ViewPosition, reasons: Mapping[MembershipKey, str]
) -> RoomDiff:
    """Return the diff from the last position that was passed on to the new view."""
    epoch, version = position
    joined, updated, left = diff_between(before, view.members.values())
    # The reason has to be that of this very membership: the user may have joined and left again since.
    ended = ((one, membership_key(before[one.user_id])) for one in left)
    left = [Departed(one.user_id, reasons.get(key, one.reason)) for one, key in ended]
    if view.epoch != epoch:
        # A new epoch starts from an empty room: the diff replaces whatever its receivers hold.
        joined, updated, version = list(view.members.values()), [], 0
    count = len(view.members)
    return RoomDiff(view.room_id, view.epoch, version, view.version, count, joined, updated, left)
