"""Lists of rooms for those who ask, at most one at a time of a room.

A list begins after it was asked for, so it is never older than the question; who asks while one is being made
shares the next one. Between the beginnings of two lists of a room are MIN_INTERVAL, and after each list this
node leaves Redis alone for REST times as long as it took. So whatever is asked for, listings use a bounded
part of Redis's time. A list that no client waits for any more is cancelled.
"""

import asyncio

from reactor.errors import Unavailable
from reactor.presence.replies import RoomListing
from reactor.presence.store import Store

MIN_INTERVAL = 0.25
"""Seconds between the beginnings of two lists of one room."""
MAX_AT_A_TIME = 2
"""Rooms that are listed at a time."""
REST = 4
"""So many times as long as a list took its place stays empty: both places use two fifths of Redis's time."""
MAX_ROOMS = 1024
"""Rooms whose list is waited for at most."""


class _NextList:
    """The list of a room that is to begin, the task that makes it, and how many wait for it."""

    __slots__ = ("found", "task", "waiting")

    def __init__(self) -> None:
        self.found: asyncio.Future[RoomListing] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0


class Listings:
    """The lists that are asked for on this node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: dict[str, _NextList] = {}
        self._begun_at: dict[str, float] = {}  # of the last MIN_INTERVAL
        self._places = asyncio.Semaphore(MAX_AT_A_TIME)

    async def members(self, room_id: str) -> RoomListing:
        """Return a list of the room's members that begins after this call. Raises Unavailable."""
        following = self._next.get(room_id)
        if following is None:
            if len(self._next) >= MAX_ROOMS:
                raise Unavailable("too many rooms are to be listed")
            following = self._next[room_id] = _NextList()
            following.task = asyncio.get_running_loop().create_task(self._list(room_id, following))
        following.waiting += 1
        try:
            return await asyncio.shield(following.found)
        finally:
            following.waiting -= 1
            if not following.waiting and following.task is not None:
                self._forget_next(room_id, following)
                following.task.cancel()

    async def _list(self, room_id: str, following: _NextList) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._begun_at.get(room_id, -MIN_INTERVAL) + MIN_INTERVAL - loop.time())
        await self._places.acquire()
        began = self._begun_at[room_id] = loop.time()
        self._forget_next(room_id, following)
        loop.call_at(began + MIN_INTERVAL, self._forget_begun, room_id)
        try:
            found = await self._store.members(room_id)
        except Exception as error:  # noqa: BLE001 - it is raised where the list is waited for
            following.found.set_exception(error)
            following.found.exception()  # no longer waited for, perhaps
        else:
            following.found.set_result(found)
        finally:
            following.found.cancel()
            loop.call_later(REST * (loop.time() - began), self._places.release)

    def _forget_next(self, room_id: str, following: _NextList) -> None:
        if self._next.get(room_id) is following:
            del self._next[room_id]

    def _forget_begun(self, room_id: str) -> None:
        if self._begun_at.get(room_id, 0.0) + MIN_INTERVAL <= asyncio.get_running_loop().time():
            self._begun_at.pop(room_id, None)
