"""Rooms that a node follows on for a while after their last follower, whose client may be about to return.

What they take is bounded: a room lingers only while the members of all such rooms together fit.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic

LINGER = 30.0
"""Seconds that a room lingers: longer than the grace, in which a client returns unnoticed."""
MEMBER_BYTES = 1024
"""Bytes of a member in a view, about."""


class LingeringRooms:
    """The rooms that linger, each with its number of members when that began.

    max_bytes: of all their members. end(room_id): called when a room's time is over.
    """

    def __init__(self, max_bytes: int, end: Callable[[str], None]) -> None:
        self._end = end
        self._max_members = max_bytes // MEMBER_BYTES
        self._rooms: dict[str, tuple[float, int]] = {}  # the one that ends first is the first
        self._members = 0
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, room_id: str) -> bool:
        return room_id in self._rooms

    def rooms(self) -> Iterable[str]:
        """Return the ids of the rooms."""
        return list(self._rooms)

    def add(self, room_id: str, members: int) -> bool:
        """Let a room linger; return whether there is a place for it."""
        if not members or self._members + members > self._max_members:
            return False
        self._members += members
        self._rooms[room_id] = monotonic() + LINGER, members
        if self._timer is None:
            self._schedule()
        return True

    def discard(self, room_id: str) -> None:
        """Note that a room is followed again, or not at all."""
        self._members -= self._rooms.pop(room_id, (0.0, 0))[1]
        if self._timer is not None and not self._rooms:
            self._timer.cancel()
            self._timer = None

    def must_end(self, room_id: str, members: int) -> bool:
        """Return whether a room, if it lingers, has become empty or much larger."""
        if (room := self._rooms.get(room_id)) is None:
            return False
        return not 0 < members <= 2 * room[1]

    def _schedule(self) -> None:
        """Set the timer for the room that ends first."""
        first, _ = next(iter(self._rooms.values()))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, first - monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = monotonic()
        for room_id in [room_id for room_id, (until, _) in self._rooms.items() if until <= now]:
            self._end(room_id)
            self.discard(room_id)
        if self._rooms:
            self._schedule()
