"""Delivers a room's events to the application: iterators with bounded queues, callbacks, and the status."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Self
from weakref import WeakSet

import anyio

from reactor.client.status import Status
from reactor.protocol.events import RoomEvent

log = logging.getLogger(__name__)

Remove = Callable[[], None]
"""Removes a callback."""


class ChangeNotifier:
    """Wakes tasks that wait for a condition.

    Check the condition; while it is false, `await wait()` and check again. No change is missed in between.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake all tasks that wait now."""
        event, self._event = self._event, anyio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        await self._event.wait()


class Events:
    """One iterator over a room's events; it ends with the room.

    It begins with a `sync` that holds the whole list. An iterator that falls behind by more than its queue
    holds gets another `sync` in place of the events that it missed.
    """

    def __init__(self, sync: Callable[[], RoomEvent], limit: int) -> None:
        self._sync = sync
        self._limit = limit
        self._queue: deque[RoomEvent] = deque()
        self._needs_sync = True
        self._ended = False
        self._changed = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RoomEvent:
        while True:
            if self._queue:
                return self._queue.popleft()
            if self._ended:
                raise StopAsyncIteration
            if self._needs_sync:
                self._needs_sync = False
                return self._sync()
            self._changed.clear()
            await self._changed.wait()

    def put(self, event: RoomEvent) -> None:
        """Queue an event, without waiting; when the queue is full, replace all of it by a `sync`."""
        if self._needs_sync:
            return
        if len(self._queue) >= self._limit:
            self._queue.clear()
            self._needs_sync = True
        else:
            self._queue.append(event)
        self._changed.set()

    def end(self) -> None:
        """End the iteration once the queue is read."""
        self._ended = True
        self._changed.set()


class EventFeed:
    """The iterators over one room's events. Iterators that the application has dropped are forgotten."""

    def __init__(self, sync: Callable[[], RoomEvent], limit: int) -> None:
        self._sync = sync
        self._limit = limit
        self._ended = False
        self._iterators: WeakSet[Events] = WeakSet()

    def iterator(self) -> Events:
        """Return an iterator over the events from now on."""
        events = Events(self._sync, self._limit)
        if self._ended:
            events.end()
        else:
            self._iterators.add(events)
        return events

    def put(self, event: RoomEvent) -> None:
        """Queue an event for every iterator."""
        for iterator in list(self._iterators):
            iterator.put(event)

    def end(self) -> None:
        """End all iterators, those to come included."""
        self._ended = True
        for iterator in list(self._iterators):
            iterator.end()
        self._iterators.clear()


class Callbacks:
    """The application's callbacks, by kind of event."""

    def __init__(self, *kinds: str) -> None:
        self._functions: dict[str, dict[object, Callable[[Any], object]]] = {kind: {} for kind in kinds}

    def add(self, kind: str, function: Callable[[Any], object]) -> Remove:
        """Register a callback; return the function that removes it.

        Raises:
            ValueError: There is no such kind.
            TypeError: It is no function, or a coroutine function, whose coroutine would never be awaited.

        """
        if kind not in self._functions:
            raise ValueError(f"unknown event {kind!r}: use one of {', '.join(self._functions)}")
        if not callable(function):
            raise TypeError(f"a callback must be a function, not {type(function).__name__}")
        if asyncio.iscoroutinefunction(function):
            raise TypeError(
                "a callback must be a plain function; async code can use `async for event in room`"
            )
        functions, key = self._functions[kind], object()
        functions[key] = function

        def remove() -> None:
            functions.pop(key, None)

        return remove

    def call(self, kind: str, argument: object) -> None:
        """Call them in the order of registration; an exception is logged and stops none of the others.

        One that another callback removes meanwhile is not called any more.
        """
        functions = self._functions[kind]
        for key, function in tuple(functions.items()):
            if key not in functions:
                continue
            try:
                function(argument)
            except (Exception, asyncio.CancelledError):
                # A plain function cannot be cancelled: the error is that of something whose result it read.
                log.exception("a callback for %r failed", kind)


class StatusReporter(ABC):
    """Something that lasts across reconnects, with a status of whose changes the application is notified.

    kinds: of the callbacks; `status` is one of them.
    """

    def __init__(self, *kinds: str) -> None:
        self._status = Status.CONNECTING
        self._callbacks = Callbacks(*kinds)
        self._changed = ChangeNotifier()

    @property
    def status(self) -> Status:
        """Whether what is shown is up to date."""
        return self._status

    def refresh_status(self) -> None:
        """Update the status, and notify the application of a change."""
        status = self._present_status()
        if status is not self._status:
            self._status = status
            self._callbacks.call("status", status)
        self._changed.notify()

    @abstractmethod
    def _present_status(self) -> Status:
        """Return the status as it is now."""
