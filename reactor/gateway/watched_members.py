"""When the changes of rooms are sent to those who watch their members: a bounded number of messages a second.

Who changes a room is charged for its members, and cannot know of observers on other nodes. So observers pay
with time: what all of them are sent takes a bounded part of the node's time, however many rooms they watch
and however often these change. Beyond it changes are collected, and the rooms share that time equally: an
attacker who watches rooms with many connections delays the changes of those rooms, and hardly of others.
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush

from reactor.protocol.messages import RoomDiff
from reactor.protocol.room import merge

MAX_SENT = 1000
"""Connections that are sent something at a time; the other work of the node comes in between."""
_MAX_DIFFS = 64  # of a room that wait before they are merged


class _Room:
    """A room of which something waits, or was sent lately.

    finish: when, in the virtual time of fair queueing, what was sent of it last would be sent if each room
    had its share of the time alone.
    """

    __slots__ = ("diffs", "finish")

    def __init__(self, diff: RoomDiff) -> None:
        self.diffs = [diff]
        self.finish = 0.0


class WatchedMembers:
    """The changes that observers of rooms have not been sent yet.

    Args:
        send: Sends a room's changes to its observers; returns how many were sent something, and the bytes.
        observers: Returns how many connections watch a room's members.
        loop: The event loop for timers.
        window: Seconds between two messages about one room at least.
        seconds: Returns the share of time (seconds) that a message of so many bytes to so many connections
            takes of all observers, and that of the room alone.

    """

    def __init__(
        self,
        send: Callable[[str, list[RoomDiff]], tuple[int, int]],
        observers: Callable[[str], int],
        loop: asyncio.AbstractEventLoop,
        *,
        window: float,
        seconds: Callable[[int, int], tuple[float, float]],
    ) -> None:
        self._send, self._observers, self._loop = send, observers, loop
        self._window, self._seconds = window, seconds
        self._rooms: dict[str, _Room] = {}
        self._windows: list[tuple[float, str]] = []  # when rooms may be sent again, as a heap
        # The rooms that may be sent now, as a heap by virtual time. That advances as if all of them were
        # sent at once, each a part at a time: fair queueing (Demers, Keshav, Shenker 1989).
        self._ready: list[tuple[float, str]] = []
        self._virtual = 0.0
        self._busy_until = 0.0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handle of a timer that is due at once has no `when()`

    def stop(self) -> None:
        """Discard what waits."""
        self._rooms.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def changed(self, diff: RoomDiff) -> None:
        """Send a room's change: at once, or with what changes until its turn."""
        room = self._rooms.get(diff.room_id)
        if room is not None:
            room.diffs.append(diff)
            if len(room.diffs) > _MAX_DIFFS:
                room.diffs = [merge(room.diffs)]
        elif self._observers(diff.room_id):
            self._rooms[diff.room_id] = _Room(diff)
            heappush(self._windows, (self._loop.time(), diff.room_id))
            self._schedule(self._busy_until - self._window)

    def discard(self, room_id: str) -> None:
        """Discard a room's changes: they are older than its first observer here."""
        if room_id in self._rooms:
            self._rooms[room_id].diffs = []

    # Private methods

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        if when <= now:
            self._flush()
        else:
            self._schedule_later(when, now)

    def _flush(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._end_windows(now)
        if self._busy_until - self._window <= now:
            self._send_ready(now)
        if self._ready:
            self._schedule_later(self._busy_until - self._window, now)
        elif self._windows:
            self._schedule_later(max(self._busy_until - self._window, self._windows[0][0]), now)

    def _schedule_later(self, when: float, now: float) -> None:
        self._timer_at = when
        self._timer = self._loop.call_later(max(0.0, when - now), self._flush)

    def _end_windows(self, now: float) -> None:
        """Make the rooms ready whose window has ended; forget those that have not changed."""
        while self._windows and self._windows[0][0] <= now:
            _, room_id = heappop(self._windows)
            room = self._rooms.get(room_id)
            observers = self._observers(room_id) if room is not None and room.diffs else 0
            if room is None or not observers:
                self._rooms.pop(room_id, None)
            else:
                room.finish = max(room.finish, self._virtual) + self._seconds(observers, 0)[0]
                heappush(self._ready, (room.finish, room_id))

    def _send_ready(self, now: float) -> None:
        sent, busy = 0, 0.0
        while self._ready and sent < MAX_SENT:
            finish, room_id = heappop(self._ready)
            room = self._rooms.get(room_id)
            if room is None:
                continue
            diffs, room.diffs = room.diffs, []
            connections, size = self._send(room_id, diffs) if diffs else (0, 0)
            of_all, of_room = self._seconds(connections, size)
            sent, busy = sent + connections, busy + of_all
            self._virtual = max(self._virtual + of_all / (len(self._ready) + 1), 0 if self._ready else finish)
            heappush(self._windows, (now + max(self._window, of_room), room_id))
        self._busy_until = max(self._busy_until, now) + busy
