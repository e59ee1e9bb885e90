"""A room's news to the room's sockets: encoded and framed once, and sent no more often than the window says.

The first change after a quiet time goes out at once; what comes within the window after it goes out together,
merged, at the window's end. So a burst of N joins in a room of N costs a few messages to each, not N.

A room larger than `max_members_view` is served as counts, also to those who asked for its members: their news
is `room:count` until the room is at nine tenths of that size again; then they get the members anew, and diffs
from there on.
"""

import asyncio
from collections.abc import Callable, Iterable

from msgspec import json

from reactor.gateway.connection import Connection
from reactor.gateway.framing import frame
from reactor.gateway.roster import Roster
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import Codec
from reactor.protocol.messages import CountChanged, ForceLeave, MembersReply, RoomDiff, RoomMessage, View
from reactor.protocol.room import merge
from reactor.settings import Settings

__all__ = ["Fanout", "frame", "send_to_all"]

_SECONDS_A_SOCKET = 50e-6
"""A window lasts at least this long for each socket in the room: a write takes some 7 us, so the news of one
room never takes more than a seventh of the node's time. Rooms of up to 1,000 sockets stay at 50 ms."""

_BUSY = 2
"""Times as long a window lasts at most while the news of all rooms together take more than that: 40 %
of the messages of a storm into 100 rooms at once go away, and a quarter of what it costs the node."""


def send_to_all(message: object, connections: Iterable[Connection]) -> None:
    """Send one message to many: encoded and framed once for each codec that is among them."""
    ready: dict[Codec, tuple[bytes, bytes]] = {}
    for connection in connections:
        codec = connection.codec
        if (both := ready.get(codec)) is None:
            payload = codec.encode(message)
            both = ready[codec] = payload, frame(payload, binary=codec.binary)
        if connection.compressed:
            connection.send_payload(both[0])
        else:
            connection.send_frame(both[1])


_BACK_AT = 0.9  # of the limit: a room at its edge does not go back and forth


class _Window:
    __slots__ = ("timer", "waiting")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.waiting: list[RoomDiff] = []


class Fanout:
    """News to the sockets of this node.

    Args:
        settings: Of these, `diff_window` (seconds) and `max_members_view` (members).
        roster: Who is where.
        snapshot: A room's members as of now, or None while the node does not know them.
        loop: Whose timers to use; the running one's by default.

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
        self._busy_until = 0.0  # when what was told would be done, at _SECONDS_A_SOCKET each

    def stop(self) -> None:
        """Forget what waits for the end of a window."""
        for window in self._windows.values():
            window.timer.cancel()
        self._windows.clear()

    def diff(self, diff: RoomDiff) -> None:
        """Tell a room of a change; diffs of a room are given in the order of their versions."""
        window = self._windows.get(diff.room_id)
        if window is not None:
            window.waiting.append(diff)
        elif diff.room_id in self._roster:
            self._tell(diff.room_id, [diff])

    def begin(self, room_id: str) -> None:
        """The room has its first socket here: what waits to be told of it is from before."""
        window = self._windows.pop(room_id, None)
        if window is not None:
            window.timer.cancel()

    def say(self, room_id: str, timestamp: int, data: bytes) -> None:
        """Tell everyone in a room, whatever their view, what the application says there: JSON.

        Raises:
            ValueError: It is none; or one of the msgspec and Python errors for what no message can hold.

        """
        message = RoomMessage(room_id, json.decode(data), timestamp)
        send_to_all(message, [one for sockets in self._roster.views(room_id).values() for one in sockets])

    def view_for(self, room_id: str, wanted: View, count: int) -> View:
        """Return the view to serve, and to tell, to a socket that has just been entered in the roster."""
        if wanted != "members":
            return wanted
        if count > self._limit:
            self._roster.note_counted(room_id, counted=True)
        return "count" if self._roster.counted(room_id) else wanted

    def force_leave(
        self, room_id: str, user_id: str, message: str, reason: str, timestamp: int
    ) -> tuple[Connection, ...]:
        """Put a member out of a room: each of its sockets is told and taken out of the roster.

        A socket that is in no other room is closed with 4003, after the message.

        Returns:
            The sockets that were in the room.

        """
        connections = self._roster.of_user(room_id, user_id)
        send_to_all(ForceLeave(room_id, message, reason, timestamp), connections)
        for connection in connections:
            self._roster.remove(room_id, connection)
            if connection.session.expelled(room_id):
                connection.close(CloseCode.FORCE_LEAVE, reason)
        return connections

    def _tell(self, room_id: str, diffs: list[RoomDiff]) -> None:
        views = self._roster.views(room_id)
        cost, now = sum(map(len, views.values())) * _SECONDS_A_SOCKET, self._loop.time()
        self._busy_until = min(max(self._busy_until, now) + cost, now + self._window * _BUSY)
        seconds = max(self._window, cost, self._busy_until - now)
        self._windows[room_id] = _Window(self._loop.call_later(seconds, self._window_over, room_id))

        members, counts = views.get("members", ()), views.get("count", ())
        last = diffs[-1]
        count = CountChanged(room_id, last.epoch, last.version, last.count)
        if self._roster.counted(room_id):
            snapshot = self._snapshot(room_id) if last.count <= self._limit * _BACK_AT else None
            if snapshot is not None:
                self._roster.note_counted(room_id, counted=False)
            send_to_all(snapshot or count, members)
        elif last.count > self._limit:
            self._roster.note_counted(room_id, counted=True)
            send_to_all(count, members)
        elif members:
            send_to_all(merge(diffs) if len(diffs) > 1 else last, members)
        # What changes no count, an update, is no news to these.
        if counts and any(diff.joined or diff.left for diff in diffs):
            send_to_all(count, counts)

    def _window_over(self, room_id: str) -> None:
        window = self._windows.pop(room_id)
        if window.waiting and room_id in self._roster:
            self._tell(room_id, window.waiting)
