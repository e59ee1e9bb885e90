"""Sends the counts of watched rooms: to each connection one message a window, however many rooms changed.

Connections that watch the counts of the same rooms, as the pages of one application mostly do, form a group.
Its message is encoded and framed once. The first change after a quiet time is sent at once.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

from reactor.gateway.connection import Connection
from reactor.protocol.messages import RoomCounted, RoomCounts
from reactor.protocol.room import RoomView

WINDOW = 0.25
"""Seconds for which the counts of watched rooms are collected: a lobby of a hundred rooms changes all the
time, and a reader takes in no more than a few numbers a second."""


class _Group:
    """Connections that watch the counts of the same rooms."""

    __slots__ = ("connections", "rooms")

    def __init__(self, rooms: frozenset[str]) -> None:
        self.rooms = rooms
        self.connections: dict[Connection, None] = {}


class WatchedCounts:
    """The connections that watch counts, and the rooms whose counts they have not been sent yet.

    Args:
        view: Returns a room's view, or None while the node does not know it.
        send: Sends a message about rooms to connections.
        seconds_per_connection: Shortest window for each connection that was sent something in the last one.
        loop: The event loop for timers.

    """

    def __init__(
        self,
        view: Callable[[str], RoomView | None],
        send: Callable[[Collection[str], object, Collection[Connection]], object],
        loop: asyncio.AbstractEventLoop,
        *,
        seconds_per_connection: float,
    ) -> None:
        self._view, self._send, self._loop = view, send, loop
        self._seconds_per_connection = seconds_per_connection
        self._rooms_of: dict[Connection, set[str]] = {}
        self._group_of: dict[Connection, _Group] = {}
        self._groups: dict[frozenset[str], _Group] = {}
        self._groups_in: dict[str, dict[_Group, None]] = {}
        self._ungrouped: dict[Connection, None] = {}  # their rooms have changed since they were grouped
        self._changed: dict[str, None] = {}
        self._unknown: set[str] = set()  # rooms that have changed, and are not known since then
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Discard what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, connection: Connection, room_ids: Iterable[str]) -> None:
        """Send a connection the counts of these rooms from now on."""
        self._rooms_of.setdefault(connection, set()).update(room_ids)
        self._regroup_later(connection)

    def unwatch(self, connection: Connection, room_ids: Iterable[str]) -> None:
        """Send a connection the counts of these rooms no more; those that it does not watch are ignored."""
        rooms = self._rooms_of.get(connection)
        if rooms is None:
            return
        rooms.difference_update(room_ids)
        self._regroup_later(connection)
        if not rooms:
            del self._rooms_of[connection]
            del self._ungrouped[connection]

    def changed(self, room_id: str) -> None:
        """Send a room's new count: at once, or at the end of the window."""
        if room_id not in self._groups_in and not self._ungrouped:
            return
        self._changed[room_id] = None
        if self._timer is None:
            self._flush()

    def known(self, room_id: str) -> None:
        """Send the count of a room that is known again, if a change fell into the time before.

        Where the new list shows what was known already, nothing else says that the room has changed.
        """
        if room_id in self._unknown:
            self._unknown.discard(room_id)
            self.changed(room_id)

    # Private methods

    def _regroup_later(self, connection: Connection) -> None:
        self._ungrouped[connection] = None
        group = self._group_of.pop(connection, None)
        if group is None:
            return
        del group.connections[connection]
        if group.connections:
            return
        del self._groups[group.rooms]
        for room_id in group.rooms:
            groups = self._groups_in[room_id]
            del groups[group]
            if not groups:
                del self._groups_in[room_id]

    def _regroup(self) -> None:
        """Group the connections whose rooms have changed: not before a message, so once for many requests."""
        for connection in self._ungrouped:
            rooms = frozenset(self._rooms_of[connection])
            group = self._groups.get(rooms)
            if group is None:
                group = self._groups[rooms] = _Group(rooms)
                for room_id in rooms:
                    self._groups_in.setdefault(room_id, {})[group] = None
            group.connections[connection] = None
            self._group_of[connection] = group
        self._ungrouped.clear()

    def _flush(self) -> None:
        self._timer = None
        if not self._changed:
            return
        self._regroup()
        self._unknown.intersection_update(self._groups_in)
        counts: dict[_Group, list[RoomCounted]] = {}
        for room_id in self._changed:
            groups, view = self._groups_in.get(room_id), self._view(room_id)
            if not groups:
                continue
            if view is None:
                self._unknown.add(room_id)
                continue
            counted = RoomCounted(room_id, view.epoch, view.version, len(view.members))
            for group in groups:
                counts.setdefault(group, []).append(counted)
        self._changed.clear()
        connections = 0
        for group, rooms in counts.items():
            connections += len(group.connections)
            self._send([one.room_id for one in rooms], RoomCounts(rooms), group.connections)
        if connections:
            seconds = max(WINDOW, connections * self._seconds_per_connection)
            self._timer = self._loop.call_later(seconds, self._flush)
