"""Which sockets of this node stand in which room, under which name and with which view. PURE.

Kept small on purpose: most members have one socket, so a user's sockets are a tuple (48 bytes for one), where
a set would take 216.
"""

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Generic, TypeVar

C = TypeVar("C")


class _Room(Generic[C]):
    __slots__ = ("counted", "users", "views")

    def __init__(self) -> None:
        self.counted = False
        self.views: dict[str, dict[C, str]] = {}
        self.users: dict[str, tuple[C, ...]] = {}


class Roster(Generic[C]):
    """Room to sockets by view, and (room, user) to sockets. A socket is in a room once, under one user."""

    __slots__ = ("_rooms",)

    def __init__(self) -> None:
        self._rooms: dict[str, _Room[C]] = {}

    def __contains__(self, room_id: str) -> bool:
        return room_id in self._rooms

    def __iter__(self) -> Iterator[str]:
        return iter(self._rooms)

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def members(self) -> int:
        """How many members have a socket here, each room counted by itself."""
        return sum(len(room.users) for room in self._rooms.values())

    def add(self, room_id: str, user_id: str, connection: C, view: str) -> bool:
        """Enter a socket, or change its user and view. True when the room had no socket here before."""
        first = room_id not in self._rooms
        if not first:
            self._take_out(self._rooms[room_id], connection)
        room = self._rooms.setdefault(room_id, _Room())
        room.views.setdefault(view, {})[connection] = user_id
        room.users[user_id] = (*room.users.get(user_id, ()), connection)
        return first

    def remove(self, room_id: str, connection: C) -> bool:
        """Take a socket out, if it is there. True when it was the room's last here; the room is forgotten."""
        room = self._rooms.get(room_id)
        if room is None or not self._take_out(room, connection) or room.users:
            return False
        del self._rooms[room_id]
        return True

    def of_user(self, room_id: str, user_id: str) -> tuple[C, ...]:
        """A member's sockets on this node, in the order they came."""
        room = self._rooms.get(room_id)
        return room.users.get(user_id, ()) if room is not None else ()

    def users(self, room_id: str) -> AbstractSet[str]:
        """The members of a room with a socket here."""
        room = self._rooms.get(room_id)
        return room.users.keys() if room is not None else frozenset()

    def views(self, room_id: str) -> Mapping[str, Collection[C]]:
        """A room's sockets by the view they chose; a view that nobody chose is missing."""
        room = self._rooms.get(room_id)
        return room.views if room is not None else MappingProxyType({})

    def counted(self, room_id: str) -> bool:
        """Whether the room was last noted as served by its count alone."""
        room = self._rooms.get(room_id)
        return room is not None and room.counted

    def note_counted(self, room_id: str, *, counted: bool) -> None:
        """Note how the room is served; forgotten with the room's last socket."""
        room = self._rooms.get(room_id)
        if room is not None:
            room.counted = counted

    @staticmethod
    def _take_out(room: _Room[C], connection: C) -> bool:
        for view, connections in room.views.items():
            user_id = connections.pop(connection, None)
            if user_id is None:
                continue
            if not connections:
                del room.views[view]
            if rest := tuple(other for other in room.users[user_id] if other is not connection):
                room.users[user_id] = rest
            else:
                del room.users[user_id]
            return True
        return False
