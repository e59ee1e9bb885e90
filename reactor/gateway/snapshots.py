"""The member list of a large room, encoded once for all connections that request it at about the same time.

A client that joins a room of thousands in a storm of joins receives the list of the client before it, plus
a few members. So the latest encoded lists are cached and new members appended: 20 us for a list of 2,500,
where encoding takes 250. Any other change of a room invalidates its list.
"""

from itertools import islice
from typing import Any

from msgspec.structs import replace

from reactor.gateway.connection import Connection
from reactor.protocol.codec import Codec
from reactor.protocol.room import RoomView

LARGE = 100
"""Members from which on a list is cached."""
_MAX_CACHED = 8  # lists, of half a megabyte each for a room of 5,000


class _CachedList:
    __slots__ = ("body", "count", "run")

    def __init__(self, run: object) -> None:
        self.run = run
        self.count = 0
        self.body = b""


class Snapshots:
    """Sends member lists, and caches the latest."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, Codec], _CachedList] = {}

    def send(self, connection: Connection, message: Any, view: RoomView, *, whole: bool = True) -> None:
        """Send a message whose `members` is unset: with the view's members if `whole`, otherwise as it is."""
        if not whole:
            connection.send(message)
            return
        if len(view.members) < LARGE:
            connection.send(replace(message, members=list(view.members.values())))
            return
        codec = connection.codec
        head = codec.open_members(codec.encode(message), len(view.members))
        connection.send_pieces(head, self._encoded_members(view, codec), codec.end)

    def _encoded_members(self, view: RoomView, codec: Codec) -> bytes:
        key = view.room_id, codec
        cached = self._lists.pop(key, None)
        if cached is None or cached.run is not view.run:
            cached = _CachedList(view.run)
        self._lists[key] = cached  # the most recently used list is the last
        if len(self._lists) > _MAX_CACHED:
            del self._lists[next(iter(self._lists))]
        if cached.count < len(view.members):
            new = map(codec.encode, islice(view.members.values(), cached.count, None))
            cached.body = codec.between.join((cached.body, *new) if cached.count else new)
            cached.count = len(view.members)
        return cached.body
