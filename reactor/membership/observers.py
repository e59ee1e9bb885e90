"""Carries out `room:watch` and `room:unwatch`: connections that follow rooms without being members.

A user who is banned from a room may not watch it, and a ban ends what the user watches.

An observer exists on its node alone: it is in the roster, and the node follows the room as it does for
members, also while it is empty. Nothing is stored in Redis, and nothing has to be restored there: after an
outage the node lists the room again and passes on what changed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection

import anyio
from msgspec.structs import replace

from reactor.errors import Unavailable
from reactor.gateway.address_share import AddressShare
from reactor.gateway.connection import Connection
from reactor.gateway.cost import change_price
from reactor.gateway.fanout import Fanout
from reactor.gateway.roster import Roster
from reactor.membership.ban_check import BanCheck
from reactor.membership.paid_lists import PaidLists
from reactor.presence.bans import Ban
from reactor.presence.room_feed import LOOK_AGAIN, Payer, RoomFeed
from reactor.protocol import intents, messages
from reactor.protocol.room import RoomView

MAX_OPENED = 16
"""Rooms that are listed at a time for their first observer."""


class _Observer:
    """What a connection watches. Its requests are carried out one after the other."""

    __slots__ = ("in_order", "rooms")

    def __init__(self) -> None:
        self.in_order = asyncio.Lock()
        self.rooms: dict[str, messages.WatchView] = {}


class _Place:
    """Pays for a list as a connection does, and gives the list's place back where that has to wait."""

    __slots__ = ("_held", "_payer", "_places")

    def __init__(self, payer: Payer, places: asyncio.Semaphore) -> None:
        self._payer, self._places, self._held = payer, places, True

    def charge(self, members: int, size: int) -> None:
        self._payer.charge(members, size)

    def wait(self) -> float:
        seconds = self._payer.wait()
        if seconds:
            self.give_back()
        return seconds

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._places.release()


class Observers:
    """The connections of this node that watch rooms.

    lists: sends lists, and knows who pays for them. charge: charges a connection for units of cost. bans: who
    may not watch. max_watched: rooms that one connection may watch.
    """

    def __init__(
        self,
        feed: RoomFeed,
        roster: Roster[Connection],
        fanout: Fanout,
        lists: PaidLists,
        charge: Callable[[Connection, float], None],
        bans: BanCheck,
        max_watched: int,
    ) -> None:
        self._share = AddressShare(max_watched)
        self._watchers: Counter[str] = Counter()  # connections by room
        self._feed, self._roster, self._fanout, self._charge = feed, roster, fanout, charge
        self._lists, self._bans = lists, bans
        self._observers: dict[Connection, _Observer] = {}
        self._opening = asyncio.Semaphore(MAX_OPENED)

    @property
    def watched(self) -> int:
        """The number of watched rooms, summed over connections."""
        return sum(len(observer.rooms) for observer in self._observers.values())

    async def watch(self, connection: Connection, intent: intents.WatchRooms) -> None:
        """Follow rooms and answer with what is in them. Raises Unavailable: none of them is followed anew."""
        session = connection.session
        if session.closed:
            return
        observer = self._observers.setdefault(connection, _Observer())
        try:
            async with observer.in_order:
                await self._watch(connection, observer, intent)
        except BaseException:
            session.watched.difference_update(room for room in intent.added if room not in observer.rooms)
            raise

    async def unwatch(self, connection: Connection, intent: intents.UnwatchRooms) -> None:
        """Follow rooms no more, once the requests before this one are carried out."""
        observer = self._observers.get(connection)
        if observer is not None:
            async with observer.in_order:
                self._end(connection, observer, intent.room_ids)
        listed = None if intent.single else list(intent.room_ids)
        connection.send(messages.RoomUnwatched(intent.room_id, intent.id, listed))

    def end_by_ban(self, connection: Connection, room_id: str, ban: Ban) -> None:
        """End a connection's watch of a room, if there is one, and say why."""
        observer = self._observers.get(connection)
        if observer is None or room_id not in observer.rooms:
            return  # a request that is under way looks at the bans once more
        self._end(connection, observer, (room_id,))
        connection.session.watched.discard(room_id)
        self._bans.refuse(connection, ban, room_id)

    def closed(self, connection: Connection) -> None:
        """Forget a closed connection."""
        observer = self._observers.pop(connection, None)
        if observer is not None:
            self._end(connection, observer, tuple(observer.rooms))

    # Private methods

    async def _watch(self, connection: Connection, observer: _Observer, intent: intents.WatchRooms) -> None:
        intent = self._without_banned(connection, observer, intent)
        if intent.single and not intent.room_ids:
            return
        added = [room_id for room_id in intent.room_ids if room_id not in observer.rooms]
        if not self._share.take(connection, added):
            self._refuse(connection, intent, added)
            return
        try:
            await self._watch_counted(connection, observer, intent, added)
        finally:
            self._share.release(room_id for room_id in added if room_id not in self._watchers)

    async def _watch_counted(
        self, connection: Connection, observer: _Observer, intent: intents.WatchRooms, added: list[str]
    ) -> None:
        views = await self._follow(connection, added, intent)
        # Asked again: another request for these rooms may have failed meanwhile.
        closed = connection.session.closed
        if closed or not self._share.take(connection, added):
            for room_id in added:
                self._feed.unfollow(room_id)
            if not closed:
                self._refuse(connection, intent, added)
            return
        # Once more, for bans that were made meanwhile. From here until the roster has it nothing waits.
        intent = self._without_banned(connection, observer, intent, followed=added)
        views = [view for view in views if view.room_id in intent.room_ids]
        if intent.single and not intent.room_ids:
            return
        for room_id in intent.room_ids:
            self._watchers[room_id] += room_id not in observer.rooms
            observer.rooms[room_id] = intent.view
            if self._roster.observe(room_id, connection, intent.view):
                self._fanout.discard_pending(room_id)
            if intent.view == "members" and len(self._roster.observers(room_id)["members"]) == 1:
                self._fanout.watched_members.discard(room_id)
        if intent.view == "count":
            self._fanout.watched_counts.watch(connection, intent.room_ids)
        else:
            self._fanout.watched_counts.unwatch(connection, intent.room_ids)
        connection.settle()
        self._answer(connection, intent, views)

    def _without_banned(
        self, connection: Connection, observer: _Observer, intent: intents.WatchRooms, *,
        followed: Collection[str] = (),
    ) -> intents.WatchRooms:  # fmt: skip
        """Refuse the rooms from which the user is banned. followed: those that were followed for it."""
        found = {room_id: self._bans.ban_of(connection, room_id) for room_id in intent.room_ids}
        bans = {room_id: ban for room_id, ban in found.items() if ban is not None}
        if not bans:
            return intent
        for room_id, ban in bans.items():
            connection.session.watched.discard(room_id)
            if room_id in observer.rooms:
                self._end(connection, observer, (room_id,))
            elif room_id in followed:
                self._feed.unfollow(room_id)
            if intent.single:
                self._bans.refuse(connection, ban, room_id, intent.id)
        refused = () if intent.single else self._bans.refused_rooms(bans)
        return replace(
            intent,
            room_ids=tuple(room_id for room_id in intent.room_ids if room_id not in bans),
            refused=(*intent.refused, *refused),
        )

    def _refuse(self, connection: Connection, intent: intents.WatchRooms, added: list[str]) -> None:
        connection.session.watched.difference_update(added)
        sentence = "the clients of this address watch too many rooms: send room:unwatch first"
        connection.send(messages.ErrorMessage("too_many_rooms", sentence, intent.id, intent.room_id))

    def _answer(self, connection: Connection, intent: intents.WatchRooms, views: list[RoomView]) -> None:
        if not intent.single:
            rooms = [
                messages.RoomCounted(view.room_id, view.epoch, view.version, len(view.members))
                for view in views
            ]
            size = connection.send(messages.RoomCounts(rooms, list(intent.refused), intent.id))
            price = change_price(size, 1)
        else:
            (view,) = views
            shown = self._fanout.view_for(view.room_id, intent.view, len(view.members), observer=True)
            answer = messages.RoomWatching(
                view.room_id,
                view.epoch,
                view.version,
                len(view.members),
                "members" if shown == "members" else "count",
                id=intent.id,
            )
            price = self._lists.send(connection, answer, view, whole=shown == "members")
        self._charge(connection, price)

    async def _follow(
        self, connection: Connection, added: list[str], intent: intents.WatchRooms
    ) -> list[RoomView]:
        """Follow the added rooms, and return the views of all. Raises Unavailable: none is followed."""
        followed: list[str] = []
        failed: list[Unavailable] = []

        async def view_of(room_id: str) -> RoomView | None:
            if failed:
                return None  # Redis is away: the next attempt is the client's
            try:
                if room_id in added:
                    await self._open(connection, room_id)
                    followed.append(room_id)
                view = await self._known(room_id)
                if self._fanout.is_listed(room_id, intent.view, len(view.members), observer=True):
                    await self._lists.prepare(connection, view)
                return await self._known(room_id)
            except Unavailable as error:
                failed.append(error)
                return None

        try:
            views = await asyncio.gather(*map(view_of, intent.room_ids))
        except BaseException:
            failed.append(Unavailable("the request was cancelled"))
            raise
        finally:
            if failed:
                for room_id in followed:
                    self._feed.unfollow(room_id)
        if failed:
            raise failed[0]
        return [view for view in views if view is not None]

    async def _open(self, connection: Connection, room_id: str) -> None:
        if self._feed.view(room_id) is not None:
            await self._feed.follow(room_id)
            return
        payer = self._lists.payer(connection)
        while True:
            await self._opening.acquire()
            place = _Place(payer, self._opening)
            try:
                # Before the first page, too, since one request may be about hundreds of rooms.
                seconds = place.wait()
                if not seconds:
                    await self._feed.follow(room_id, place)
                    return
            finally:
                place.give_back()
            await anyio.sleep(min(seconds, LOOK_AGAIN))

    async def _known(self, room_id: str) -> RoomView:
        """Return a followed room's view, once nothing is known to be missing in it."""
        view = self._feed.view(room_id)
        if view is None:
            raise Unavailable("the room is not followed any more")
        if view.waiting:
            return await self._feed.wait_for_version(room_id, view.epoch, view.version)
        return view

    def _end(self, connection: Connection, observer: _Observer, room_ids: tuple[str, ...]) -> None:
        self._fanout.watched_counts.unwatch(connection, room_ids)
        for room_id in room_ids:
            if observer.rooms.pop(room_id, None) is not None:
                self._roster.unobserve(room_id, connection)
                self._feed.unfollow(room_id)
                self._watchers[room_id] -= 1
                if not self._watchers[room_id]:
                    del self._watchers[room_id]
                    self._share.release((room_id,))
