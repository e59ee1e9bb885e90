"""The connections of this node by room, user and view: those of members, and those that watch. PURE.

Small on purpose: most members have one connection, so a user's connections are a tuple (48 bytes for one),
where a set would take 216.
"""

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Generic, TypeVar

C = TypeVar("C")


class _Room(Generic[C]):
    __slots__ = ("count_only", "observers", "users", "views", "watched_as_count")

    def __init__(self) -> None:
        self.count_only = self.watched_as_count = False
        self.observers: dict[str, dict[C, None]] = {}
        self.views: dict[str, dict[C, str]] = {}
        self.users: dict[str, tuple[C, ...]] = {}


class Roster(Generic[C]):
    """The connections in each room, by view and by user. A connection is in a room once, under one user.

    A connection may watch a room beside, which is no part of its membership.

    Attributes:
        memberships: The number of connections in rooms, summed over rooms.

    """

    __slots__ = ("_rooms", "memberships")

    def __init__(self) -> None:
        self._rooms: dict[str, _Room[C]] = {}
        self.memberships = 0

    def __contains__(self, room_id: str) -> bool:
        return room_id in self._rooms

    def __iter__(self) -> Iterator[str]:
        return iter(self._rooms)

    def __len__(self) -> int:
        """Return the number of rooms that have a member with a connection here."""
        return sum(bool(room.users) for room in self._rooms.values())

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
        self.memberships += 1
        room.users[user_id] = (*room.users.get(user_id, ()), connection)
        return first

    def remove(self, room_id: str, connection: C) -> bool:
        """Remove a member's connection, if present; return whether it was the room's last here."""
        room = self._rooms.get(room_id)
        if room is None or not self._discard(room, connection):
            return False
        return self._forget_empty(room_id, room)

    def observe(self, room_id: str, connection: C, view: str) -> bool:
        """Add a connection that watches a room, or change its view; return whether it is the first here."""
        first = room_id not in self._rooms
        room = self._rooms.setdefault(room_id, _Room())
        self._discard_observer(room, connection)
        room.observers.setdefault(view, {})[connection] = None
        return first

    def unobserve(self, room_id: str, connection: C) -> bool:
        """Remove a connection that watches a room; return whether it was the room's last here."""
        room = self._rooms.get(room_id)
        if room is None or not self._discard_observer(room, connection):
            return False
        return self._forget_empty(room_id, room)

    def observers(self, room_id: str) -> Mapping[str, Collection[C]]:
        """Return the connections that watch a room by view, without views that no connection has."""
        room = self._rooms.get(room_id)
        return room.observers if room is not None else MappingProxyType({})

    def connections_of(self, room_id: str, user_id: str) -> tuple[C, ...]:
        """Return a member's connections to this node, in the order they were added."""
        room = self._rooms.get(room_id)
        return room.users.get(user_id, ()) if room is not None else ()

    def users(self, room_id: str) -> AbstractSet[str]:
        """Return the members of a room that have a connection to this node."""
        room = self._rooms.get(room_id)
        return room.users.keys() if room is not None else frozenset()

    def views(self, room_id: str) -> Mapping[str, Collection[C]]:
        """Return the connections of a room's members by view, without views that no connection has."""
        room = self._rooms.get(room_id)
        return room.views if room is not None else MappingProxyType({})

    def is_count_only(self, room_id: str, *, observers: bool = False) -> bool:
        """Return whether a room is served as a count to all its members' connections, or all observers."""
        room = self._rooms.get(room_id)
        return room is not None and (room.watched_as_count if observers else room.count_only)

    def set_count_only(self, room_id: str, *, count_only: bool, observers: bool = False) -> None:
        """Set how a room is served to its members, or its observers; forgotten with its last connection."""
        room = self._rooms.get(room_id)
        if room is not None and observers:
            room.watched_as_count = count_only
        elif room is not None:
            room.count_only = count_only

    def _forget_empty(self, room_id: str, room: _Room[C]) -> bool:
        if room.users or room.observers:
            return False
        del self._rooms[room_id]
        return True

    @staticmethod
    def _discard_observer(room: _Room[C], connection: C) -> bool:
        for view, connections in room.observers.items():
            if connection in connections:
                del connections[connection]
                if not connections:
                    del room.observers[view]
                return True
        return False

    def _discard(self, room: _Room[C], connection: C) -> bool:
        for view, connections in room.views.items():
            user_id = connections.pop(connection, None)
            if user_id is None:
                continue
            self.memberships -= 1
            if not connections:
                del room.views[view]
            if rest := tuple(other for other in room.users[user_id] if other is not connection):
                room.users[user_id] = rest
            else:
                del room.users[user_id]
            return True
        return False
