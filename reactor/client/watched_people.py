"""Users whom a client watches, regardless of rooms: asked for on each new connection, and kept up to date."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self, overload

from reactor.client.delivery import Remove
from reactor.client.open_connection import ConnectionLost, OpenConnection
from reactor.client.reconnector import Reconnector
from reactor.client.room_membership import checked_id, listed
from reactor.client.status import Status
from reactor.client.watched import Watched
from reactor.errors import ConnectionClosed, ReactorError
from reactor.protocol import messages
from reactor.protocol.messages import Person
from reactor.protocol.requests import UnwatchPeople, WatchPeople

_MOST = 1000
"""Users of one request, by the protocol."""

_MOST_BYTES = 32_768
"""Bytes of the ids of one request: half of the message that a server accepts by default."""


class WatchedPeople(Watched):
    """Users who are watched, returned by `Client.people`: whether they are online, away or offline.

        async with await client.people(["7", "8"]) as people:
            async for person in people:
                print(person.user_id, person.status)

    They are kept up to date until it is closed, also across reconnects. `async for` yields each user's
    present state first, and then each change. A slow iterator is given the last state of a user alone.
    """

    def __init__(self, watches: "PeopleWatcher") -> None:
        super().__init__("change", "status")
        self._watches = watches
        self._ids: dict[str, None] = {}  # in the order in which they were added
        self._people: dict[str, Person] = {}
        self._current = False

    def __repr__(self) -> str:
        return f"<WatchedPeople: {len(self._ids)}, {self.status}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """The users who are watched, in the order in which they were added."""
        return tuple(self._ids)

    @property
    def people(self) -> Mapping[str, Person]:
        """The users as last received, by id."""
        return MappingProxyType(self._people)

    def get(self, user_id: str | int) -> Person | None:
        """Return a user as last received; None for one who is not watched."""
        return self._people.get(str(user_id))

    async def add(self, user_ids: Iterable[str | int]) -> None:
        """Watch more users, and return once their state is known. Raises ReactorError as `Client.people`.

        When it fails, those who were watched before still are.
        """
        if self._ended:
            raise ConnectionClosed(str(self._error or "it was closed: call Client.people again"))
        new = [user_id for user_id in self._watches.checked(user_ids) if user_id not in self._ids]
        self._ids |= dict.fromkeys(new)
        try:
            await self._watches.watch(new)
        except BaseException:
            self.remove(new)
            raise

    def remove(self, user_ids: Iterable[str | int]) -> None:
        """Watch these no more. Raises Refused for what is no list of ids."""
        ids = [checked_id(each, "user_ids", None) for each in listed(user_ids, "user_ids")]
        gone = [user_id for user_id in dict.fromkeys(ids) if user_id in self._ids]
        for user_id in gone:
            del self._ids[user_id]
            self._people.pop(user_id, None)
        self._watches.unwatch(gone)

    def close(self) -> None:
        """Watch no more; the iterators end."""
        if not self._ended:
            self.end(None)
            self._watches.unwatch(self._ids)

    def __aiter__(self) -> "PeopleIterator":
        return PeopleIterator(self)

    async def wait_changed(self) -> bool:
        """Wait until something has changed; return False at once when it has ended."""
        if not self._ended:
            await self._changed.wait()
            return True
        return False

    @overload
    def on(self, kind: Literal["change"], function: Callable[[list[Person]], object]) -> Remove: ...
    @overload
    def on(self, kind: Literal["status"], function: Callable[[Status], object]) -> Remove: ...
    def on(self, kind: str, function: Callable[[Any], object]) -> Remove:
        """Register a callback, and return the function that removes it.

        Args:
            kind: `change`: called with a list of those who have changed, as they are now. `status`: called
                with the new `Status`.
            function: A plain function, called in the event loop: it must not block. Exceptions are logged.

        Raises:
            ValueError: There is no such kind.
            TypeError: The function is a coroutine function.

        """
        return self._callbacks.add(kind, function)

    # Called by the client.

    def receive(self, people: list[Person]) -> None:
        """Take over the present state of users; those who are not watched are ignored."""
        changed = [
            person
            for person in people
            if person.user_id in self._ids and self._people.get(person.user_id) != person
        ]
        if changed:
            self._people |= {person.user_id: person for person in changed}
            self._callbacks.call("change", changed)
            self._changed.notify()

    def restored(self) -> None:
        """Note that all users have been received on the present connection."""
        self._current = self.established = True
        self.refresh_status()

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        self._current = False
        self.refresh_status()

    def _on_end(self) -> None:
        self._watches.forget(self)

    def _connection_status(self) -> Status | None:
        return self._watches.connection_status if self._current else None


class PeopleIterator:
    """One iterator over the users that are watched; it ends with the watching.

    It is no generator, so that a call of `anext` that was cancelled does not end it.
    """

    def __init__(self, watched: WatchedPeople) -> None:
        self._watched = watched
        self._yielded: dict[str, Person] = {}
        self._next: deque[str] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Person:
        while True:
            people = self._watched.people
            while self._next:
                # A later state may have come while the application handled the one before.
                present = people.get(user_id := self._next.popleft())
                if present is not None and self._yielded.get(user_id) is not present:
                    self._yielded[user_id] = present
                    return present
            self._next.extend(
                person.user_id
                for person in people.values()
                if self._yielded.get(person.user_id) is not person
            )
            if not self._next and not await self._watched.wait_changed():
                raise StopAsyncIteration


class PeopleWatcher:
    """What the `WatchedPeople` of one client watch together."""

    def __init__(self, reconnector: Reconnector) -> None:
        self._reconnector = reconnector
        self._objects: set[WatchedPeople] = set()

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def connection_status(self) -> Status:
        """The status of the client."""
        return self._reconnector.status

    def checked(self, user_ids: Iterable[str | int]) -> list[str]:
        """Return ids as text, each once. Raises Refused for one that cannot be sent."""
        limits = self._reconnector.limits
        ids = listed(user_ids, "user_ids")
        return list(dict.fromkeys(checked_id(each, "user_ids", limits) for each in ids))

    async def open(self, user_ids: Iterable[str | int]) -> WatchedPeople:
        """Watch users. Raises ReactorError as `Client.people`."""
        people = WatchedPeople(self)
        self._objects.add(people)
        try:
            await people.add(user_ids)
        except BaseException:
            people.close()
            raise
        people.restored()
        return people

    async def watch(self, user_ids: list[str]) -> None:
        """Watch users on the present connection, or the one after a loss. Raises ReactorError."""
        with self._reconnector.deadline("people:watch"):
            while True:
                connection = await self._reconnector.connection()
                try:
                    await self._ask(connection, user_ids)
                except ConnectionLost:
                    continue
                return

    def unwatch(self, user_ids: Iterable[str]) -> None:
        """Watch those users no more whom nothing else watches."""
        for batch in self._batches(self._unwanted(user_ids)):
            self._reconnector.post(UnwatchPeople(batch))

    def forget(self, people: WatchedPeople) -> None:
        """Note that an object has ended."""
        self._objects.discard(people)

    async def restore_all(self, connection: OpenConnection) -> None:
        """Ask for all users on a new connection."""
        for people in list(self._objects):
            if people.established:
                await self._restore(connection, people)

    def receive(self, message: messages.ServerMessage) -> None:
        """Pass a message to the objects that it is for."""
        if isinstance(message, messages.PeopleState | messages.PeopleDiff):
            # A reply is taken over here, in its place among the changes.
            received = message.people if isinstance(message, messages.PeopleState) else message.changed
            for people in list(self._objects):
                people.receive(received)

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        for people in list(self._objects):
            people.connection_lost()

    def refresh_status(self) -> None:
        """Update the status of each object."""
        for people in list(self._objects):
            people.refresh_status()

    def end_all(self, error: ReactorError | None) -> None:
        """End every object."""
        for people in list(self._objects):
            people.end(error)

    async def _restore(self, connection: OpenConnection, people: WatchedPeople) -> None:
        timeout = self._reconnector.request_timeout
        if await people.ask_until_answered(
            connection, lambda: self._ask(connection, list(people.ids)), timeout=timeout
        ):
            people.restored()

    async def _ask(self, connection: OpenConnection, user_ids: list[str]) -> None:
        for batch in self._batches(user_ids):
            await connection.ask(WatchPeople(batch))
            # Those whom the application has removed meanwhile: the server may have done that first.
            for gone in self._batches(self._unwanted(batch)):
                connection.post(UnwatchPeople(gone))

    def _unwanted(self, user_ids: Iterable[str]) -> list[str]:
        wanted = {user_id for people in self._objects for user_id in people.ids}
        return [user_id for user_id in user_ids if user_id not in wanted]

    def _batches(self, user_ids: list[str]) -> list[list[Any]]:
        """Return the users by requests; text, as a list that the requests take."""
        limits = self._reconnector.limits
        most = _MOST_BYTES if limits is None else min(_MOST_BYTES, limits.message // 2)
        batches: list[list[Any]] = []
        size = 0
        for user_id in user_ids:
            size += len(user_id.encode()) + 3
            if not batches or len(batches[-1]) == _MOST or size > most:
                batches.append([])
                size = len(user_id.encode()) + 3
            batches[-1].append(user_id)
        return batches
