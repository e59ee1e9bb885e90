"""A large room's members, encoded once for all who come, or ask for them, at about the same time.

Who joins a room of thousands in a storm of joins gets the list of the one before, and a few more behind it.
So the encoded members of the last lists are kept, and those that came since are put behind them: 20 us for a
list of 2,500, where encoding takes 250. Any other change of a room begins its list anew.
"""

from itertools import islice
from typing import Any

from msgspec.structs import replace

from reactor.gateway.connection import Connection
from reactor.protocol.codec import Codec
from reactor.protocol.room import RoomView

LARGE = 100
"""Members from which on it pays."""
_KEPT = 8  # lists: half a megabyte each for a room of 5,000


class _List:
    __slots__ = ("body", "count", "run")

    def __init__(self, run: object) -> None:
        self.run = run
        self.count = 0
        self.body = b""


class Snapshots:
    """The lists that were sent last."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, Codec], _List] = {}

    def send(self, connection: Connection, message: Any, view: RoomView, *, whole: bool = True) -> None:
        """Send a message that has no `members` yet: with those of the view, or as it is."""
        if not whole:
            connection.send(message)
            return
        if len(view.members) < LARGE:
            connection.send(replace(message, members=list(view.members.values())))
            return
        codec = connection.codec
        head = codec.open_members(codec.encode(message), len(view.members))
        connection.send_pieces(head, self._members(view, codec), codec.end)

    def _members(self, view: RoomView, codec: Codec) -> bytes:
        key = view.room_id, codec
        found = self._lists.pop(key, None)
        if found is None or found.run is not view.run:
            found = _List(view.run)
        self._lists[key] = found  # the last used is the last
        if len(self._lists) > _KEPT:
            del self._lists[next(iter(self._lists))]
        if found.count < len(view.members):
            news = map(codec.encode, islice(view.members.values(), found.count, None))
            found.body = codec.between.join((found.body, *news) if found.count else news)
            found.count = len(view.members)
        return found.body
