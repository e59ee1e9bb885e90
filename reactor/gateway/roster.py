"""The connections of this node by room, user and view. PURE.

Small on purpose: most members have one connection, so a user's connections are a tuple (48 bytes for one),
where a set would take 216.
"""

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Generic, TypeVar

C = TypeVar("C")


class _Room(Generic[C]):
    __slots__ = ("count_only", "users", "views")

    def __init__(self) -> None:
        self.count_only = False
        self.views: dict[str, dict[C, str]] = {}
        self.users: dict[str, tuple[C, ...]] = {}


class Roster(Generic[C]):
    """The connections in each room, by view and by user. A connection is in a room once, under one user."""

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
        """Number of members with a connection here, summed over rooms."""
        return sum(len(room.users) for room in self._rooms.values())

    def add(self, room_id: str, user_id: str, connection: C, view: str) -> bool:
        """Add a connection, or change its user and view; return whether it is the room's first here."""
        first = room_id not in self._rooms
        if not first:
            self._discard(self._rooms[room_id], connection)
        room = self._rooms.setdefault(room_id, _Room())
        room.views.setdefault(view, {})[connection] = user_id
        room.users[user_id] = (*room.users.get(user_id, ()), connection)
        return first

    def remove(self, room_id: str, connection: C) -> bool:
        """Remove a connection, if present; return whether it was the room's last, which removes the room."""
        room = self._rooms.get(room_id)
        if room is None or not self._discard(room, connection) or room.users:
            return False
        del self._rooms[room_id]
        return True

    def connections_of(self, room_id: str, user_id: str) -> tuple[C, ...]:
        """Return a member's connections to this node, in the order they were added."""
        room = self._rooms.get(room_id)
        return room.users.get(user_id, ()) if room is not None else ()

    def users(self, room_id: str) -> AbstractSet[str]:
        """Return the members of a room that have a connection to this node."""
        room = self._rooms.get(room_id)
        return room.users.keys() if room is not None else frozenset()

    def views(self, room_id: str) -> Mapping[str, Collection[C]]:
        """Return a room's connections by view, without views that no connection has."""
        room = self._rooms.get(room_id)
        return room.views if room is not None else MappingProxyType({})

    def is_count_only(self, room_id: str) -> bool:
        """Return whether a room is served as a count to all its connections."""
        room = self._rooms.get(room_id)
        return room is not None and room.count_only

    def set_count_only(self, room_id: str, *, count_only: bool) -> None:
        """Set how a room is served; forgotten with the room's last connection."""
        room = self._rooms.get(room_id)
        if room is not None:
            room.count_only = count_only

    @staticmethod
    def _discard(room: _Room[C], connection: C) -> bool:
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
