"""A room that was joined: who is in it, what happens there, and what one does there oneself."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, overload

from msgspec import UNSET

from reactor.client.feed import Events
from reactor.client.status import Status
from reactor.client.stay import Stay
from reactor.errors import ForceLeave, ReactorError
from reactor.protocol.events import Kind, RoomEvent
from reactor.protocol.messages import Member, RoomMessage, View


class Room:
    """Got from `Client.join`.

    `async for event in room` gives a `RoomEvent` for each thing that happens, after a `sync` with the whole
    list, and ends with the room. Any number of iterators may run at a time, and each gets all events. One
    that is more than the client's `queue` behind gets a `sync` in place of what it missed.

    The list and the events agree at any time: who follows the events holds what `members` holds. A connection
    that is lost and comes back makes events only of what has really changed.
    """

    def __init__(self, stay: Stay) -> None:
        self._stay = stay

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and other._stay is self._stay

    def __hash__(self) -> int:
        return hash(self._stay)

    def __repr__(self) -> str:
        return f"<Room {self.room_id!r}: {self.count} members, {self.status}>"

    # Who is there.

    @property
    def room_id(self) -> str:
        """The room's id."""
        return self._stay.room_id

    @property
    def user_id(self) -> str:
        """One's own user id."""
        return self._stay.user_id

    @property
    def members(self) -> Mapping[str, Member]:
        """The members by user id, as of now; empty where the view is not `members`."""
        return MappingProxyType(self._stay.listing.members)

    @property
    def count(self) -> int:
        """How many are in the room; with the view `none`, how many there were at the join."""
        return self._stay.listing.count

    @property
    def me(self) -> Member | None:
        """Oneself as a member; None where the view is not `members`."""
        return self._stay.listing.members.get(self.user_id)

    @property
    def others(self) -> list[Member]:
        """The members but for oneself."""
        return [member for user_id, member in self._stay.listing.members.items() if user_id != self.user_id]

    @property
    def view(self) -> View:
        """What the server tells of the room: one that is too large for names is told as its count."""
        return self._stay.listing.served

    @property
    def status(self) -> Status:
        """Whether the list moves on."""
        return self._stay.status

    @property
    def socket_id(self) -> str:
        """The server's name for this connection in the room."""
        return self._stay.socket_id

    # What one does there. Each raises:
    #   ForceLeave, or what else ended the stay in the room; NotJoined when it was left;
    #   Unavailable, Refused: the server's refusal, with its sentence; nothing has changed;
    #   RequestTimedOut: no answer in time; what was asked for may still be done.

    async def update(self, data: Any = UNSET, *, username: str | None = None) -> None:
        """Change one's own name or data, for all to see; what is not given stays. data: any small JSON."""
        await self._stay.update(username, data)

    async def away(self) -> None:
        """Be seen as away: the app is in the background."""
        await self._stay.set_away(away=True)

    async def back(self) -> None:
        """Be seen as here again."""
        await self._stay.set_away(away=False)

    async def leave(self) -> None:
        """Leave the room; nothing happens where it has ended already."""
        await self._stay.leave()

    async def ended(self) -> ReactorError | None:
        """Wait until the stay in the room is over, and return why.

        None when it was left, or the client was closed; a `ForceLeave` with the server's message; `RoomFull`
        where the place was lost while the connection was; `ConnectionClosed` when that will not come back.
        """
        await self._stay.ended()
        return self._stay.error

    # What happens there.

    def __aiter__(self) -> Events:
        return self._stay.feed.reader()

    @overload
    def on(self, kind: Kind, function: Callable[[RoomEvent], object]) -> Callable[[], None]: ...
    @overload
    def on(
        self, kind: Literal["force-leave"], function: Callable[[ForceLeave], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, kind: Literal["message"], function: Callable[[RoomMessage], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, kind: Literal["status"], function: Callable[[Status], object]) -> Callable[[], None]: ...
    def on(self, kind: str, function: Callable[[Any], object]) -> Callable[[], None]:
        """Have a function called, and get the function that ends it.

        Args:
            kind: `join`, `leave`, `update` or `sync`: called with the `RoomEvent`. `message`: with what the
                application says to everyone in the room, `data` and `timestamp` (milliseconds since 1970).
                `force-leave`: with the `ForceLeave` that ended the stay. `status`: with the new `Status`.
            function: A plain function. It is called at once and must not block; an exception is only logged.

        """
        return self._stay.callbacks.add(kind, function)
