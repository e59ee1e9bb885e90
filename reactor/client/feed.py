"""A room's news on its way to whoever listens: iterators, each with a bounded queue, and functions."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Self
from weakref import WeakSet

from reactor.protocol.events import RoomEvent

log = logging.getLogger(__name__)


class Events:
    """One reader's way through a room's events; ends with the room.

    It begins with a `sync` that holds the whole list. A reader that falls behind by more than the queue holds
    gets another one in place of what it missed, so the list it keeps is right again.
    """

    def __init__(self, sync: Callable[[], RoomEvent], limit: int) -> None:
        self._sync = sync
        self._limit = limit
        self._queue: deque[RoomEvent] = deque()
        self._behind = True
        self._over = False
        self._news = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RoomEvent:
        while True:
            if self._queue:
                return self._queue.popleft()
            if self._over:
                raise StopAsyncIteration
            if self._behind:
                self._behind = False
                return self._sync()
            self._news.clear()
            await self._news.wait()

    def put(self, event: RoomEvent) -> None:
        """Give it an event; never waits."""
        if self._behind:
            return
        if len(self._queue) >= self._limit:
            self._queue.clear()
            self._behind = True
        else:
            self._queue.append(event)
        self._news.set()

    def end(self) -> None:
        """Nothing more comes: what is queued is still read."""
        self._over = True
        self._news.set()


class Feed:
    """All who listen to one room. An iterator that nobody holds any more is forgotten by itself."""

    def __init__(self, sync: Callable[[], RoomEvent], limit: int) -> None:
        self._sync = sync
        self._limit = limit
        self._over = False
        self._readers: WeakSet[Events] = WeakSet()

    def reader(self) -> Events:
        """Return an iterator over what happens from now on."""
        events = Events(self._sync, self._limit)
        if self._over:
            events.end()
        else:
            self._readers.add(events)
        return events

    def put(self, event: RoomEvent) -> None:
        """Tell all readers."""
        for reader in list(self._readers):
            reader.put(event)

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        for reader in list(self._readers):
            reader.end()
        self._readers.clear()


class Callbacks:
    """Functions by the kind of news that they are called for."""

    def __init__(self, *kinds: str) -> None:
        self._functions: dict[str, dict[object, Callable[[Any], object]]] = {kind: {} for kind in kinds}

    def add(self, kind: str, function: Callable[[Any], object]) -> Callable[[], None]:
        """Have a function called; return the function that ends it.

        Raises:
            ValueError: There is no such kind.
            TypeError: The function is a coroutine function, whose coroutine nobody would await.

        """
        if kind not in self._functions:
            raise ValueError(f"no such news: {kind!r}; use one of {', '.join(self._functions)}")
        if asyncio.iscoroutinefunction(function):
            raise TypeError("give a plain function; for async code iterate: `async for event in room`")
        functions, place = self._functions[kind], object()
        functions[place] = function

        def remove() -> None:
            functions.pop(place, None)

        return remove

    def call(self, kind: str, news: object) -> None:
        """Call them in the order they came; one that fails keeps nobody else from hearing."""
        for function in tuple(self._functions[kind].values()):
            try:
                function(news)
            except Exception:
                log.exception("a function for %r failed", kind)
