"""A room that the client watches without being in it: its members or their number, live."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, overload

from reactor.client.delivery import EventFeed, Events, Remove
from reactor.client.open_connection import OpenConnection, refusal
from reactor.client.reported_room import ReportedRoom
from reactor.client.status import Status
from reactor.client.watched import Watched
from reactor.protocol import messages
from reactor.protocol.events import EventKind, JoinEvent, LeaveEvent, RoomEvent, SyncEvent, UpdateEvent
from reactor.protocol.messages import Member, View, WatchView
from reactor.protocol.requests import Unwatch, Watch


class WatchedRoom(Watched):
    """A room that is watched, returned by `Client.watch`: like a `Room`, but the client is not in it.

        async with await client.watch("lobby") as room:
            async for event in room:
                print(event.kind, room.count)

    It is kept up to date until it is closed, also across reconnects. `async for event in room` yields a
    `RoomEvent` for each change, after a `sync`, and ends with it.
    """

    def __init__(
        self, room_id: str, view: WatchView,
        *, queue: int, timeout: float, on_close: Callable[["WatchedRoom"], None],
    ) -> None:  # fmt: skip
        super().__init__("join", "leave", "update", "sync", "status")
        self._room = ReportedRoom(room_id, None)
        self._wanted: WatchView = view
        self._connection: OpenConnection | None = None
        self._timeout, self._on_close = timeout, on_close
        self._feed = EventFeed(self._room.sync, queue)

    def __repr__(self) -> str:
        return f"<WatchedRoom {self.room_id!r}: {self.count} members, {self.status}>"

    @property
    def room_id(self) -> str:
        """The room's id."""
        return self._room.room_id

    @property
    def members(self) -> Mapping[str, Member]:
        """The present members by user id; empty where the view is not `members`."""
        return MappingProxyType(self._room.members)

    @property
    def count(self) -> int:
        """The number of members."""
        return self._room.count

    @property
    def view(self) -> View:
        """What the server sends of the room; of one that is too large for `members` it sends the `count`."""
        return self._room.served

    def close(self) -> None:
        """Watch no more; the iterators end."""
        if not self._ended:
            connection = self._connection
            self.end(None)
            if connection is not None:
                connection.post(Unwatch(self.room_id))

    def __aiter__(self) -> Events:
        return self._feed.iterator()

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
    def on(self, kind: Literal["status"], function: Callable[[Status], object]) -> Remove: ...
    def on(self, kind: str, function: Callable[[Any], object]) -> Remove:
        """Register a callback, and return the function that removes it.

        Args:
            kind: `join`, `leave`, `update` or `sync`: called with that event. `status`: called
                with the new `Status`.
            function: A plain function, called in the event loop: it must not block. Exceptions are logged.

        Raises:
            ValueError: There is no such kind.
            TypeError: The function is a coroutine function.

        """
        return self._callbacks.add(kind, function)

    # Called by the client.

    @property
    def unsettled(self) -> bool:
        """Whether changes are withheld until `settle`."""
        return not self._ended and self._room.unsettled

    def settle(self) -> None:
        """Report what was withheld."""
        if not self._ended:
            self._report(self._room.settle())

    async def ask(self, connection: OpenConnection) -> None:
        """Ask for the room on a connection. Raises ConnectionLost, ReactorError."""
        (reply,) = await connection.ask(Watch(self.room_id, self._wanted))
        if not self._ended and isinstance(reply, messages.RoomWatching):
            self._connection, self.established = connection, True
            self._report(self._room.watching(reply))
            self.refresh_status()

    async def restore(self, connection: OpenConnection) -> None:
        """Ask for the room on a new connection, or after a gap, until there is an answer."""
        await self.ask_until_answered(connection, lambda: self.ask(connection), timeout=self._timeout)

    def receive(self, message: messages.ServerMessage) -> bool:
        """Apply a message that the server sent by itself; return whether a snapshot has to be requested."""
        match message:
            case messages.ErrorMessage(id=None, code="banned"):
                self.end(refusal(message))
            case messages.RoomDiff():
                self._report(self._room.diff(message))
            case messages.CountReply(id=None) if self._wanted == "members":
                self._report(self._room.count_changed(message))
            case messages.MembersReply(id=None) if self._wanted == "members":
                self._report(self._room.listed(message))
            case messages.RoomCounts(id=None, rooms=rooms):
                for room in rooms:
                    if room.room_id == self.room_id:
                        self._report(self._room.count_changed(room))
            case _:
                pass
        return self._connection is not None and self._room.needs_snapshot

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        self._connection = None
        self._room.connection_lost()
        self.refresh_status()

    def _on_end(self) -> None:
        self._connection = None
        self._on_close(self)
        self._feed.end()

    def _connection_status(self) -> Status | None:
        return None if self._connection is None else self._connection.status

    def _report(self, events: list[RoomEvent]) -> None:
        for event in events:
            self._feed.put(event)
        for event in events:
            self._callbacks.call(event.kind, event)
