"""Sends a room's changes to the room's connections: encoded and framed once, at most once a window.

The first change after a quiet time is sent at once; changes within the window after it are merged and sent at
its end. So a burst of N joins in a room of N connections costs each a few messages, not N.

A room larger than `max_members_view` is served as a count, also to connections that asked for its members:
they receive `room:count` until the room has shrunk to nine tenths of that size; then they receive the
members again, and diffs from there on.
"""

import asyncio
from collections.abc import Callable, Iterable

from msgspec import json

from reactor.gateway.connection import Connection
from reactor.gateway.framing import frame
from reactor.gateway.roster import Roster
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import Codec
from reactor.protocol.messages import CountChanged, MembersReply, RoomDiff, RoomForceLeave, RoomMessage, View
from reactor.protocol.room import merge
from reactor.settings import Settings

_SECONDS_PER_CONNECTION = 50e-6
"""Minimum length of a window for each connection in the room: a write takes about 7 us, so the messages of
one room use at most a seventh of the node's time. Up to 1,000 connections the window stays at 50 ms."""

_MAX_BUSY_FACTOR = 2
"""Longest window, as a multiple of `diff_window`, while all rooms together exceed that share. In a storm into
100 rooms at once this saves 40 % of the messages and a quarter of the node's time."""

_MEMBERS_AGAIN = 0.9  # of the limit, so that a room at the limit does not switch back and forth


def broadcast(message: object, connections: Iterable[Connection]) -> None:
    """Send one message to many connections: encoded and framed once for each codec in use."""
    encoded: dict[Codec, tuple[bytes, bytes]] = {}
    for connection in connections:
        codec = connection.codec
        if (both := encoded.get(codec)) is None:
            payload = codec.encode(message)
            both = encoded[codec] = payload, frame(payload, binary=codec.binary)
        if connection.compressed:
            connection.send_payload(both[0])
        else:
            connection.send_frame(both[1])


class _Window:
    __slots__ = ("pending", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.pending: list[RoomDiff] = []


class Fanout:
    """Sends to the connections of this node.

    Args:
        settings: Of these, `diff_window` (seconds) and `max_members_view` (members).
        roster: The connections by room.
        snapshot: Returns a room's current members, or None while the node does not know them.
        loop: The event loop for timers; the running one by default.

    """

    def __init__(
        self,
        settings: Settings,
        roster: Roster[Connection],
        snapshot: Callable[[str], MembersReply | None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._window = settings.diff_window
        self._limit = settings.max_members_view
        self._roster = roster
        self._snapshot = snapshot
        self._windows: dict[str, _Window] = {}
        self._busy_until = 0.0  # end of all messages sent so far, at _SECONDS_PER_CONNECTION each

    def stop(self) -> None:
        """Discard the pending changes."""
        for window in self._windows.values():
            window.timer.cancel()
        self._windows.clear()

    def send_diff(self, diff: RoomDiff) -> None:
        """Send a room's change; the diffs of a room have to come in the order of their versions."""
        window = self._windows.get(diff.room_id)
        if window is not None:
            window.pending.append(diff)
        elif diff.room_id in self._roster:
            self._send(diff.room_id, [diff])

    def discard_pending(self, room_id: str) -> None:
        """Discard a room's pending changes: they are older than its first connection here."""
        window = self._windows.pop(room_id, None)
        if window is not None:
            window.timer.cancel()

    def send_message(self, room_id: str, timestamp: int, data: bytes) -> None:
        """Send an application's message (JSON) to all connections in a room, whatever their view.

        Raises:
            ValueError: `data` is not JSON; or another msgspec or Python error for data that cannot be
            encoded.

        """
        message = RoomMessage(room_id, json.decode(data), timestamp)
        views = self._roster.views(room_id)
        broadcast(message, [connection for connections in views.values() for connection in connections])

    def view_for(self, room_id: str, requested: View, count: int) -> View:
        """Return the view that a connection, just added to the roster, is served with."""
        if requested != "members":
            return requested
        if count > self._limit:
            self._roster.set_count_only(room_id, count_only=True)
        return "count" if self._roster.is_count_only(room_id) else requested

    def force_leave(
        self, room_id: str, user_id: str, message: str, reason: str, timestamp: int
    ) -> tuple[Connection, ...]:
        """Send `room:force-leave` to a member's connections, and remove them from the room's roster.

        A connection that is in no other room is then closed with 4003.

        Returns:
            The connections that were in the room.

        """
        connections = self._roster.connections_of(room_id, user_id)
        broadcast(RoomForceLeave(room_id, message, reason, timestamp), connections)
        for connection in connections:
            self._roster.remove(room_id, connection)
            if connection.session.expelled(room_id):
                connection.close(CloseCode.FORCE_LEAVE, reason)
        return connections

    def _send(self, room_id: str, diffs: list[RoomDiff]) -> None:
        views = self._roster.views(room_id)
        cost, now = sum(map(len, views.values())) * _SECONDS_PER_CONNECTION, self._loop.time()
        self._busy_until = min(max(self._busy_until, now) + cost, now + self._window * _MAX_BUSY_FACTOR)
        seconds = max(self._window, cost, self._busy_until - now)
        self._windows[room_id] = _Window(self._loop.call_later(seconds, self._on_window_end, room_id))

        members, counts = views.get("members", ()), views.get("count", ())
        last = diffs[-1]
        count = CountChanged(room_id, last.epoch, last.version, last.count)
        if self._roster.is_count_only(room_id):
            snapshot = self._snapshot(room_id) if last.count <= self._limit * _MEMBERS_AGAIN else None
            if snapshot is not None:
                self._roster.set_count_only(room_id, count_only=False)
            broadcast(snapshot or count, members)
        elif last.count > self._limit:
            self._roster.set_count_only(room_id, count_only=True)
            broadcast(count, members)
        elif members:
            broadcast(merge(diffs) if len(diffs) > 1 else last, members)
        # An update does not change the count.
        if counts and any(diff.joined or diff.left for diff in diffs):
            broadcast(count, counts)

    def _on_window_end(self, room_id: str) -> None:
        window = self._windows.pop(room_id)
        if window.pending and room_id in self._roster:
            self._send(room_id, window.pending)
