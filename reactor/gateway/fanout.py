"""Sends a room's changes to the room's connections: encoded and framed once, at most once a window.

The first change after a quiet time is sent at once; changes within the window after it are merged and sent at
its end. So a burst of N joins in a room of N connections costs each a few messages, not N. A window is longer
where more bytes were sent, so that a room sends each connection a bounded number of them a second.

For a connection that reads too slowly, changes are not added to what waits already. As soon as it has read
that, it receives each of these rooms anew, as it is then: a bounded number of bytes a second, since these
lists cost no one anything. A change larger than a list is sent as a list, too.

A room larger than `max_members_view` is served as a count, also to connections that asked for its members:
they receive `room:count` until the room has shrunk to nine tenths of that size; then they receive the
members again, and diffs from there on.

A connection that watches a room is sent what the members of its view are, but in a time of its own: see
watched_members.py, and for counts watched_counts.py. Messages to a room are for its members alone.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from msgspec.structs import replace

from reactor.errors import Unavailable
from reactor.gateway.connection import Connection
from reactor.gateway.framing import frame
from reactor.gateway.roster import Roster
from reactor.gateway.snapshots import Snapshots
from reactor.gateway.usage import UsageByKey
from reactor.gateway.watched_counts import WatchedCounts
from reactor.gateway.watched_members import WatchedMembers
from reactor.log import RateLimitedLog
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import JSON, Codec
from reactor.protocol.messages import (
    CountChanged,
    MembersReply,
    RoomCounted,
    RoomCounts,
    RoomDiff,
    RoomForceLeave,
    RoomMessage,
    View,
)  # fmt: skip
from reactor.protocol.room import RoomView, merge
from reactor.settings import Settings

_SECONDS_PER_CONNECTION = 50e-6
"""Minimum length of a window for each connection in the room: a write takes about 7 us, so the messages of
one room use at most a seventh of the node's time. Up to 1,000 connections the window stays at 50 ms."""

_MAX_BUSY_FACTOR = 4
"""Longest window, as a multiple of `diff_window`, while all rooms together exceed that share. In a storm
of joins most of the node's time goes into writes of diffs: with windows of 200 ms it takes 1.6 times as many
joins as with windows of 100 ms."""

_LARGE_ROOM = 200
"""Connections in a room from which on its windows may be longer than that."""
_LONGEST_PER_MEMBERSHIP = 14e-6
"""Seconds of the longest window of a large room for each connection in any room: where all of them are sent
something in each window, writes take half of the node's time. With 30 rooms of 1,000 it is 0.4 s."""

MAX_WINDOW_MESSAGES = 64
"""Messages to one room that wait for the end of its window; further ones are lost, and counted."""

_BYTES_PER_SECOND = 2_000_000
"""Bytes a second that one room sends to one connection at most."""
_NODE_BYTES_PER_SECOND = 100_000_000
"""Bytes a second that one room sends to all connections together at most: its share of the node's network."""

_ANEW_BYTES_AT_ONCE = 4_000_000
"""Bytes of lists that a connection which missed changes is sent at once; from there on _BYTES_PER_SECOND. Who
is in a hundred large rooms that change all the time would else be sent all their lists again and again."""

_LARGE_DIFF = 262_144
"""Bytes of a change from which on the members are sent as a list, which is encoded as it is written."""

_MANY = 32  # members in a change from which on its size is looked at

_MEMBERS_AGAIN = 0.9  # of the limit, so that a room at the limit does not switch back and forth


def broadcast(message: object, connections: Iterable[Connection]) -> int:
    """Send one message to many connections: encoded, framed and compressed once for each codec in use.

    Returns the size of the largest frame.
    """
    encoded: dict[Codec, tuple[bytes, bytes]] = {}
    deflated: dict[object, bytes] = {}
    for connection in connections:
        codec = connection.codec
        if (both := encoded.get(codec)) is None:
            payload = codec.encode(message)
            both = encoded[codec] = payload, frame(payload, binary=codec.binary)
        if connection.compressed:
            connection.send_deflated(both[0], deflated)
        else:
            connection.send_frame(both[1])
    return max((len(framed) for _, framed in encoded.values()), default=0)


def _list_of(view: RoomView) -> MembersReply:
    """Return a list of a room without its members, which are added as it is sent."""
    return MembersReply(view.room_id, view.epoch, view.version, len(view.members))


def _count_of(diff: RoomDiff) -> CountChanged:
    return CountChanged(diff.room_id, diff.epoch, diff.version, diff.count)


def _seconds(connections: int, size: int) -> tuple[float, float]:
    """Return for how long a message of `size` bytes to so many connections uses up their share of the time.

    First that of all rooms together, then that of their room, which is bounded for each connection, too.
    """
    cost = connections * max(_SECONDS_PER_CONNECTION, size / _NODE_BYTES_PER_SECOND)
    return cost, max(cost, size / _BYTES_PER_SECOND)


class _ListsAnew:
    """The lists that a connection was sent anew: when they are paid off, and whether it waits for more."""

    __slots__ = ("until", "waits")

    def __init__(self) -> None:
        self.until, self.waits = 0.0, False


class _Window:
    __slots__ = ("messages", "pending", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.pending: list[RoomDiff] = []
        self.messages: list[tuple[RoomMessage, list[str] | None]] = []


class Fanout:
    """Sends to the connections of this node.

    Args:
        settings: Of these, `diff_window` (seconds) and `max_members_view` (members).
        roster: The connections by room.
        view: Returns a room's view, or None while the node does not know it.
        loop: The event loop for timers; the running one by default.

    """

    def __init__(
        self,
        settings: Settings,
        roster: Roster[Connection],
        view: Callable[[str], RoomView | None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._window = settings.diff_window
        self._limit = settings.max_members_view
        self._roster = roster
        self._view = view
        self.snapshots = Snapshots()
        self.watched_counts = WatchedCounts(
            view, self._send_counts, self._loop, seconds_per_connection=_SECONDS_PER_CONNECTION
        )
        self.watched_members = WatchedMembers(
            self._send_watched,
            lambda room_id: len(roster.observers(room_id).get("members", ())),
            self._loop,
            window=settings.diff_window,
            seconds=_seconds,
        )
        self._missed: dict[Connection, set[str]] = {}  # rooms of which a connection was not sent all changes
        # Rooms that are sent anew once they are known, and their lists prepared.
        self._unknown: dict[str, dict[Connection, None]] = {}
        self._preparing: dict[tuple[str, Codec], asyncio.Task[None]] = {}
        self._anew = UsageByKey[_ListsAnew](lambda lists, now: lists.until > now)  # by the connection's id
        self.lists_anew = 0
        self._windows: dict[str, _Window] = {}
        self.messages_lost = 0
        self._log = RateLimitedLog()
        self._busy_until = 0.0  # end of all messages sent so far, at _SECONDS_PER_CONNECTION each

    def stop(self) -> None:
        """Discard the pending changes."""
        for window in self._windows.values():
            window.timer.cancel()
        self._windows.clear()
        for task in self._preparing.values():
            task.cancel()
        self.watched_counts.stop()
        self.watched_members.stop()

    def send_diff(self, diff: RoomDiff) -> None:
        """Send a room's change; the diffs of a room have to come in the order of their versions."""
        if diff.joined or diff.left:
            self.watched_counts.changed(diff.room_id)
        window = self._windows.get(diff.room_id)
        if window is not None:
            window.pending.append(diff)
        elif self._roster.views(diff.room_id):
            self._open_window(diff.room_id, self._send(diff.room_id, [diff]))
        self.watched_members.changed(diff)

    def room_known(self, room_id: str) -> None:
        """Send what waits until the node knows a room again."""
        self._send_waiting(room_id)
        self.watched_counts.known(room_id)

    def discard_pending(self, room_id: str) -> None:
        """Discard a room's pending changes: they are older than its first connection here."""
        window = self._windows.pop(room_id, None)
        if window is not None:
            window.timer.cancel()

    def send_message(self, message: RoomMessage, to: list[str] | None) -> None:
        """Send a message to the connections in a room that it is for, whatever their view.

        to: user ids, or None for everyone but the member that sent it.
        """
        room_id = message.room_id
        window = self._windows.get(room_id)
        if window is None:
            if self._roster.views(room_id):
                self._open_window(room_id, self._deliver(message, to))
        elif len(window.messages) < MAX_WINDOW_MESSAGES:
            window.messages.append((message, to))
        else:
            self.messages_lost += 1
            self._log.warning(
                "room_messages_lost", self._loop.time(), room=room_id, limit=MAX_WINDOW_MESSAGES
            )

    def _deliver(self, message: RoomMessage, to: list[str] | None) -> int:
        room_id, sender = message.room_id, message.user_id
        if to is not None:
            receivers = [
                one for user in dict.fromkeys(to) for one in self._roster.connections_of(room_id, user)
            ]
            receivers = [one for one in receivers if one.socket_id != message.socket_id]
        else:
            own = self._roster.connections_of(room_id, sender) if isinstance(sender, str) else ()
            views = self._roster.views(room_id).values()
            receivers = [one for connections in views for one in connections if one not in own]
        current = [one for one in receivers if not one.lags]
        self.messages_lost += len(receivers) - len(current)
        return broadcast(message, current)

    def view_for(self, room_id: str, requested: View, count: int, *, observer: bool = False) -> View:
        """Return the view that a connection, just added to the roster, is served with.

        observer: whether it watches the room, in place of being in it.
        """
        if requested != "members":
            return requested
        if count > self._limit:
            self._roster.set_count_only(room_id, count_only=True, observers=observer)
        return "count" if self._roster.is_count_only(room_id, observers=observer) else requested

    def is_listed(self, room_id: str, requested: View, count: int, *, observer: bool = False) -> bool:
        """Return whether a connection that is added to the roster is to be served with the list of a room."""
        count_only = count > self._limit or self._roster.is_count_only(room_id, observers=observer)
        return requested == "members" and not count_only

    def force_leave(
        self, room_id: str, user_id: str, message: str, reason: str, timestamp: int, until: int | None = None
    ) -> tuple[Connection, ...]:
        """Send `room:force-leave` to a member's connections, and remove them from the room's roster.

        A connection that is in no other room is then closed with 4003.

        Returns:
            The connections that were in the room.

        """
        connections = self._roster.connections_of(room_id, user_id)
        broadcast(RoomForceLeave(room_id, message, reason, timestamp, None, until), connections)
        for connection in connections:
            self._roster.remove(room_id, connection)
            if connection.session.expelled(room_id):
                connection.close(CloseCode.FORCE_LEAVE, reason)
        return connections

    def catch_up(self, connection: Connection) -> None:
        """Send a connection that reads again rooms of which it missed changes, as far as it reads them."""
        for room_id in tuple(self._missed.get(connection, ())):
            if connection.blocked:
                return  # it is called again when the connection has read these
            self._send_anew(connection, room_id)

    def forget(self, connection: Connection) -> None:
        """Note that a connection is closed."""
        for room_id in self._missed.pop(connection, ()):
            self._not_unknown(connection, room_id)

    def _send_waiting(self, room_id: str) -> None:
        for connection in self._unknown.pop(room_id, ()):
            if room_id in self._missed.get(connection, ()) and not connection.lags:
                self._send_anew(connection, room_id)

    def _open_window(self, room_id: str, size: int) -> None:
        """Collect changes from here on; longer, the more bytes were just sent to each connection."""
        now = self._loop.time()
        connections = sum(map(len, self._roster.views(room_id).values()))
        cost, alone = _seconds(connections, size)
        of_large = longest = self._window * _MAX_BUSY_FACTOR
        if self._window:
            of_large = max(longest, _LONGEST_PER_MEMBERSHIP * self._roster.memberships)
        self._busy_until = min(max(self._busy_until, now) + cost, now + of_large)
        busy = min(self._busy_until - now, of_large if connections >= _LARGE_ROOM else longest)
        seconds = max(self._window, alone, busy)
        self._windows[room_id] = _Window(self._loop.call_later(seconds, self._on_window_end, room_id))

    def _send(self, room_id: str, diffs: list[RoomDiff]) -> int:
        """Send the changes to the connections of each view; return the bytes that one receives."""
        views = self._roster.views(room_id)
        size = self._send_to_members_view(diffs, views.get("members", ()), observers=False)
        # An update does not change the count.
        if (counts := views.get("count", ())) and any(diff.joined or diff.left for diff in diffs):
            self._send_change(room_id, _count_of(diffs[-1]), counts)
        return size

    def _send_watched(self, room_id: str, diffs: list[RoomDiff]) -> tuple[int, int]:
        """Send the changes to the connections that watch the members; return their number, and the bytes."""
        watching = self._roster.observers(room_id).get("members", ())
        members, window = self._roster.views(room_id).get("members", ()), self._windows.get(room_id)
        if members and not (window is not None and window.pending):
            # Those that are in the room, too, have been sent these changes as its members.
            watching = [one for one in watching if one not in members]
        return len(watching), self._send_to_members_view(diffs, watching, observers=True)

    def _send_to_members_view(
        self, diffs: list[RoomDiff], connections: Collection[Connection], *, observers: bool
    ) -> int:
        """Send changes to connections of the view `members`; return the bytes that one receives.

        observers: whether they watch the room, in place of being in it.
        """
        last = diffs[-1]
        room_id = last.room_id
        if self._roster.is_count_only(room_id, observers=observers):
            view = self._view(room_id) if last.count <= self._limit * _MEMBERS_AGAIN else None
            if view is not None:
                self._roster.set_count_only(room_id, count_only=False, observers=observers)
                return self._send_list(view, connections)
        elif last.count > self._limit:
            self._roster.set_count_only(room_id, count_only=True, observers=observers)
        else:
            diff = merge(diffs) if len(diffs) > 1 else last
            return self._send_diff(diff, connections) if connections else 0
        self._send_change(room_id, _count_of(last), connections)
        return 0

    def _send_diff(self, diff: RoomDiff, members: Collection[Connection]) -> int:
        view = self._view(diff.room_id) if len(diff.joined) + len(diff.updated) > _MANY else None
        if view is None or len(JSON.encode(diff)) < _LARGE_DIFF:
            return self._send_change(diff.room_id, diff, members)
        if diff.left:  # a list has no reasons
            self._send_change(diff.room_id, replace(diff, joined=[], updated=[]), members)
        return self._send_list(view, members)

    def _send_list(self, view: RoomView, members: Collection[Connection]) -> int:
        message, size = _list_of(view), 0
        for one in self._those_that_read(view.room_id, members):
            if self._is_prepared(one, view):
                size = max(size, self.snapshots.send(one, message, view))
            else:
                self._missed.setdefault(one, set()).add(view.room_id)
        return size

    def _is_prepared(self, connection: Connection, view: RoomView) -> bool:
        """Return whether a list can be sent at once; otherwise it is prepared, and sent then."""
        codec, room_id = connection.codec, view.room_id
        if self.snapshots.is_prepared(view, codec):
            return True
        self._unknown.setdefault(room_id, {})[connection] = None
        if (room_id, codec) not in self._preparing:
            self._preparing[room_id, codec] = self._loop.create_task(self._prepare(view, codec))
        return False

    async def _prepare(self, view: RoomView, codec: Codec) -> None:
        room_id = view.room_id

        def pay(_seconds: float) -> float:
            # Charges no one: who makes a node send a list was charged for the change, or has waited for it.
            if room_id not in self._unknown or self._view(room_id) is not view:
                raise Unavailable("no one waits for this list")
            return 0.0

        try:
            with suppress(Unavailable):
                await self.snapshots.prepare(view, codec, pay)
        finally:
            del self._preparing[room_id, codec]
        self._send_waiting(room_id)

    def _send_change(self, room_id: str, message: object, connections: Collection[Connection]) -> int:
        return broadcast(message, self._those_that_read(room_id, connections))

    def _send_counts(
        self, room_ids: Collection[str], message: object, connections: Collection[Connection]
    ) -> None:
        current = []
        for connection in connections:
            if connection.lags:
                self._missed.setdefault(connection, set()).update(room_ids)
            else:
                current.append(connection)  # a count replaces all before it
        broadcast(message, current)

    def _those_that_read(self, room_id: str, connections: Collection[Connection]) -> Collection[Connection]:
        """Return the connections that are sent a change; note it as missed for those that lag."""
        if not self._missed and not any(connection.lags for connection in connections):
            return connections
        current = []
        for connection in connections:
            if connection.lags:
                self._missed.setdefault(connection, set()).add(room_id)
            elif room_id in self._missed.get(connection, ()):
                self._send_anew(connection, room_id)
            else:
                current.append(connection)
        return current

    def _send_anew(self, connection: Connection, room_id: str) -> None:
        """Send a connection a room of which it missed changes; later, if the node does not know it now."""
        views, observers = self._roster.views(room_id), self._roster.observers(room_id)
        in_room, watching = (connection in one.get("members", ()) for one in (views, observers))
        counting, counted = (connection in one.get("count", ()) for one in (views, observers))
        view = self._view(room_id)
        if view is None and (in_room or watching or counting or counted):
            self._unknown.setdefault(room_id, {})[connection] = None
            return
        listed = (in_room and not self._roster.is_count_only(room_id)) or (
            watching and not self._roster.is_count_only(room_id, observers=True)
        )
        if (
            view is not None
            and listed
            and not (self._may_be_sent_anew(connection) and self._is_prepared(connection, view))
        ):
            return
        rooms = self._missed[connection]
        rooms.discard(room_id)
        if not rooms:
            del self._missed[connection]
        self._not_unknown(connection, room_id)
        if view is None:
            return
        if listed:
            self.lists_anew += 1
            size = self.snapshots.send(connection, _list_of(view), view)
            now = self._loop.time()
            lists = self._anew.get(connection.socket_id, now, _ListsAnew)
            lists.until = max(lists.until, now) + size / _BYTES_PER_SECOND
            return
        count = len(view.members)
        if counted:
            connection.send(RoomCounts([RoomCounted(room_id, view.epoch, view.version, count)]))
        if in_room or watching or counting:
            connection.send(CountChanged(room_id, view.epoch, view.version, count))

    def _may_be_sent_anew(self, connection: Connection) -> bool:
        """Return whether a connection may be sent one more list; otherwise it is as soon as it may."""
        now = self._loop.time()
        lists = self._anew.get(connection.socket_id, now, _ListsAnew)
        wait = lists.until - now - _ANEW_BYTES_AT_ONCE / _BYTES_PER_SECOND
        if wait <= 0:
            return True
        if not lists.waits:
            lists.waits = True
            self._loop.call_later(wait, self._send_more_anew, connection, lists)
        return False

    def _send_more_anew(self, connection: Connection, lists: "_ListsAnew") -> None:
        lists.waits = False
        if not connection.lags:  # otherwise once it reads again
            self.catch_up(connection)

    def _not_unknown(self, connection: Connection, room_id: str) -> None:
        waiting = self._unknown.get(room_id)
        if waiting is not None and connection in waiting:
            del waiting[connection]
            if not waiting:
                del self._unknown[room_id]

    def _on_window_end(self, room_id: str) -> None:
        window = self._windows.pop(room_id)
        if not (window.pending or window.messages) or not self._roster.views(room_id):
            return
        size = self._send(room_id, window.pending) if window.pending else 0
        size += sum(self._deliver(*message) for message in window.messages)
        self._open_window(room_id, size)
