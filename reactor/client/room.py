"""A joined room: its members, its events, and what the application does in it."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, overload

from msgspec import UNSET

from reactor.client.delivery import Events, Remove
from reactor.client.room_membership import RoomMembership, checked_id, listed
from reactor.client.status import Status
from reactor.errors import ForceLeave, ReactorError
from reactor.protocol.events import EventKind, JoinEvent, LeaveEvent, RoomEvent, SyncEvent, UpdateEvent
from reactor.protocol.messages import Member, RoomMessage, View


class Room:
    """A joined room, returned by `Client.join`.

    `async for event in room` yields a `RoomEvent` for each change, after a `sync` with the whole list, and
    ends with the room. Any number of iterators may run at a time, and each gets all events. One that falls
    behind by more than the client's `queue` gets a `sync` in place of what it missed.

    The list and the events agree at any time: an application that applies the events holds what `members`
    holds. A reconnect yields events only for what has really changed.
    """

    def __init__(self, membership: RoomMembership) -> None:
        self._membership = membership

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and other._membership is self._membership

    def __hash__(self) -> int:
        return hash(self._membership)

    def __repr__(self) -> str:
        return f"<Room {self.room_id!r}: {self.count} members, {self.status}>"

    # State.

    @property
    def room_id(self) -> str:
        """The room's id."""
        return self._membership.room_id

    @property
    def user_id(self) -> str:
        """The client's own user id in this room."""
        return self._membership.user_id

    @property
    def members(self) -> Mapping[str, Member]:
        """The present members by user id; empty where the view is not `members`."""
        return MappingProxyType(self._membership.room.members)

    @property
    def count(self) -> int:
        """The number of members; with the view `none`, their number at the join."""
        return self._membership.room.count

    @property
    def me(self) -> Member | None:
        """The client's own member; None where the view is not `members`."""
        return self._membership.room.members.get(self.user_id)

    @property
    def others(self) -> list[Member]:
        """The members except the client's own."""
        return [member for member in self.members.values() if member.user_id != self.user_id]

    @property
    def view(self) -> View:
        """What the server sends of the room; of one that is too large for `members` it sends the `count`."""
        return self._membership.room.served

    @property
    def status(self) -> Status:
        """Whether the list is up to date."""
        return self._membership.status

    @property
    def socket_id(self) -> str:
        """The server's id of this connection in the room."""
        return self._membership.socket_id

    # Actions. Each raises:
    #   ForceLeave, or another error that ended the membership; NotJoined when the room was left;
    #   Unavailable, Refused: the server refused, and nothing has changed;
    #   RequestTimedOut: there was no reply in time; the request may still be processed.

    async def update(self, data: Any = UNSET, *, username: str | None = None) -> None:
        """Change the member's data or name.

        Args:
            data: Any JSON, up to the server's limit of bytes; left out, it stays.
            username: The new name; None keeps the present one.

        Raises:
            ReactorError: See above.

        """
        await self._membership.update(username, data)

    async def patch(self, patch: dict[str, Any]) -> None:
        """Change some fields of the member's data; the others stay, also those that another device changes.

        Args:
            patch: A JSON Merge Patch (RFC 7396): fields to set, None for those to remove.

        Raises:
            ReactorError: See above.

        """
        await self._membership.patch(patch)

    async def send(self, data: Any, *, to: Iterable[str | int] | None = None) -> None:
        """Send the other members something that is stored nowhere: someone is typing, a reaction.

        They receive a `RoomMessage` with this member's `user_id`. A member that is not there now never does.

        Args:
            data: Any JSON, up to the server's limit of bytes.
            to: Only to the connections of these users, at most 100; None for all others.

        Raises:
            Unavailable: There is no connection at the moment; nothing is kept for later.
            Refused: `forbidden`: the server, or the token, does not allow messages.
            ReactorError: See above.

        """
        limits = self._membership.reconnector.limits
        users = None if to is None else [checked_id(user, "to", limits) for user in listed(to, "to")]
        await self._membership.send(data, users)

    async def away(self) -> None:
        """Mark the member as away: the app is in the background. Raises as `update`."""
        await self._membership.set_away(away=True)

    async def back(self) -> None:
        """Mark the member as back. Raises as `update`."""
        await self._membership.set_away(away=False)

    async def leave(self) -> None:
        """Leave the room; does nothing where the membership has ended. Raises as `update`.

        Without a connection the room ends here at once. The other members are notified when there is one, or
        when the server's grace is over.
        """
        await self._membership.leave()

    async def ended(self) -> ReactorError | None:
        """Wait until the membership has ended, and return why.

        Returns:
            None when the room was left or the client closed; a `ForceLeave` with the server's message;
            `RoomFull` when the place was lost during a reconnect; `ConnectionClosed` when the connection was
            closed for good.

        """
        await self._membership.wait_ended()
        return self._membership.error

    # Events.

    def __aiter__(self) -> Events:
        return self._membership.events.iterator()

    @overload
    def on(self, kind: Literal["join"], function: Callable[[JoinEvent], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["update"], function: Callable[[UpdateEvent], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["leave"], function: Callable[[LeaveEvent], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["sync"], function: Callable[[SyncEvent], object]) -> Remove: ...
    @overload
    def on(self, kind: EventKind, function: Callable[[RoomEvent], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["message"], function: Callable[[RoomMessage], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["force-leave"], function: Callable[[ForceLeave], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["status"], function: Callable[[Status], object]) -> Remove: ...
    def on(self, kind: str, function: Callable[[Any], object]) -> Remove:
        """Register a callback, and return the function that removes it.

        Args:
            kind: `join`, `leave`, `update` or `sync`: called with that event. `message`: called with
                a `RoomMessage` of the application or, with `user_id`, of a member. `force-leave`: called with
                the `ForceLeave` that ended the membership. `status`: called with the new `Status`.
            function: A plain function, called in the event loop: it must not block. Exceptions are logged.

        Raises:
            ValueError: There is no such kind.
            TypeError: The function is a coroutine function.

        """
        return self._membership.on(kind, function)
